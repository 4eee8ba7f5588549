"""The sections that the command line of the client reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.config import Settings, load
from common.connection import ConnectionSettings
from common.discovery import Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from common.coordination import CoordinatorSettings


class ClientConfig(Settings):
    """Read once by the command line; a program that uses the Python client needs none of it."""

    client: ConnectionSettings = ConnectionSettings()


class Connection(ConnectionSettings):
    """Section ``client`` with the section ``coordinator``, where a target is announced there."""

    coordinator: Any = None  # CoordinatorSettings, which takes too long to import for every command

    @property
    def is_announced(self) -> bool:
        """Whether etcd knows the servers."""
        return any(Target.parse(target).is_announced for target in (self.target, self.queries))


def load_connection(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    target: str | None = None,
    tenant: str | None = None,
) -> Connection:
    """The settings of the connection.

    Args:
        file: settings, as ``config.load`` takes them.
        environ: likewise.
        target: stands for all servers; an etcd target for both services of its installation.
        tenant: whose collections.

    Raises:
        ConfigurationError: names the key that cannot work.
    """
    index, query = target, target
    if target and (parsed := Target.parse(target)).is_announced:
        index, query = parsed.of_service("indexer").text, parsed.of_service("query").text
    overrides = {"client": {"target": index, "query_target": query, "tenant": tenant}}
    client = load(ClientConfig, file=file, environ=environ, overrides=overrides).client
    found = Connection(**dict(client))
    if not found.is_announced:
        return found
    coordinator = load_coordinator(file=file, environ=environ)
    return found.model_copy(update={"coordinator": coordinator})


def load_coordinator(*, file: Path | None, environ: Mapping[str, str]) -> CoordinatorSettings:
    """Section ``coordinator``.

    Raises:
        ConfigurationError: names the key that cannot work.
    """
    from common.coordination import CoordinatorSettings  # noqa: PLC0415  # slow to import

    class CoordinatorConfig(Settings):
        coordinator: CoordinatorSettings = CoordinatorSettings()

    return load(CoordinatorConfig, file=file, environ=environ).coordinator
