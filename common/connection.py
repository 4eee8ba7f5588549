"""How a client reaches the servers: the section ``client``, which every command reads."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from common.config import Settings
from common.discovery import Target
from common.errors import ConfigurationError
from common.rpc import ChannelSettings

DEFAULT_TARGET = "127.0.0.1:50051"


def _is_target(text: str) -> str:
    """The text itself."""
    try:
        Target.parse(text)
    except ConfigurationError as error:
        raise ValueError(error.message) from None
    return text


TargetName: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_is_target)]


class ConnectionSettings(Settings):
    """Section ``client``.

    Attributes:
        target: HOST:PORT of the server, as gRPC names it; or ``etcd:///INSTALLATION/indexer`` for
            all that are announced in the etcd of section ``coordinator``, of which
            ``etcd://HOST:PORT,HOST:PORT/INSTALLATION/indexer`` names the endpoints itself.
        query_target: the same for queries, where they are answered by another server than
            ``target``; None for the same, or for the query servers of an etcd target's
            installation.
        tenant: whose collections; empty means "default".
        timeout_s: deadline of a call, in seconds; verifying and streams have longer ones.
        channel: TLS, retries and bounds of the connection.
    """

    target: TargetName = DEFAULT_TARGET
    query_target: TargetName | None = None
    tenant: str = ""
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    channel: ChannelSettings = ChannelSettings()

    @property
    def queries(self) -> str:
        """Where queries go."""
        return self.query_target or Target.parse(self.target).of_service("query").text
