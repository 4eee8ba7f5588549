"""What each command of the client does around its work: settings, telemetry, client, printing.

The composition root of the command line: the one place of it that reads the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from client.client import SluiceClient
from client.settings import Connection, load_connection
from common.telemetry import Telemetry, TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")

# A person's terminal, not a service's log: an installation's own telemetry section is not for it.
_TELEMETRY = TelemetrySettings(log_format="text", log_level="warning")


def connection(config: Path | None, target: str | None, tenant: str | None = None) -> Connection:
    """The settings of the connection; a target on the command line stands for all servers.

    Raises:
        ConfigurationError: names the key that cannot work.
    """
    return load_connection(file=config, environ=os.environ, target=target, tenant=tenant)


def open_client(settings: Connection) -> SluiceClient:
    """The client these settings describe."""
    return SluiceClient(
        settings.target,
        settings.channel,
        query_target=settings.query_target,
        tenant=settings.tenant,
        timeout_s=settings.timeout_s,
        coordinator=settings.coordinator,
    )


async def session(settings: Connection, work: Callable[[SluiceClient], Awaitable[T]]) -> T:
    """Run the work with an open client and telemetry, and return what it made."""
    async with (
        Telemetry.open("sluice-cli", _TELEMETRY, os.environ),
        open_client(settings) as client,
    ):
        return await work(client)


def ask(settings: Connection, work: Callable[[SluiceClient], Awaitable[T]]) -> T:
    """Run the work of one command to its end."""
    return asyncio.run(session(settings, work))


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object; escaped to ASCII, so that no text in it can steer a terminal."""
    typer.echo(json.dumps(value))
