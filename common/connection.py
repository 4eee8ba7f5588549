"""How a client reaches the servers: the section ``client``, which every command reads."""

from __future__ import annotations

from pydantic import Field

from common.config import Settings
from common.rpc import ChannelSettings

DEFAULT_TARGET = "127.0.0.1:50051"


class ConnectionSettings(Settings):
    """Section ``client``.

    Attributes:
        target: HOST:PORT of the server, as gRPC names it.
        query_target: HOST:PORT for queries, where they are answered by another server than
            ``target``; None for the same.
        tenant: whose collections; empty means "default".
        timeout_s: deadline of a call, in seconds; verifying and streams have longer ones.
        channel: TLS, retries and bounds of the connection.
    """

    target: str = Field(default=DEFAULT_TARGET, min_length=1)
    query_target: str | None = Field(default=None, min_length=1)
    tenant: str = ""
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    channel: ChannelSettings = ChannelSettings()
