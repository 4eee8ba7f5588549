"""``sluice health``: the probe of a supervisor, which looks at the exit code alone."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from client.commands.options import Config, Json  # noqa: TC001  # typer reads them


def health(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="HOST:PORT, or etcd:///sluice/query for all announced; else client.target.",
        ),
    ] = None,
    *,
    service: Annotated[
        str,
        typer.Option(
            "--service",
            metavar="NAME",
            help="One service of it, such as sluice.query.v1.QueryService.",
        ),
    ] = "",
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=0.1, max=600, metavar="SECONDS", help="Bound on the answer."),
    ] = 3.0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Ask a server whether it serves; exit code 0 if it says so, 1 if not."""
    import asyncio  # noqa: PLC0415  # imported when the command runs

    from client.health import ask_servers  # noqa: PLC0415  # as above
    from client.settings import load_connection  # noqa: PLC0415  # as above
    from common.errors import Unavailable  # noqa: PLC0415  # as above

    settings = load_connection(file=config, environ=os.environ, target=target)
    found = asyncio.run(
        ask_servers(target or settings.target, settings, service=service, timeout_s=timeout_s)
    )
    faults = [one.reason for one in found if not one.is_serving]
    if as_json:
        servers = [{"address": one.address, "status": one.status} for one in found]
        typer.echo(json.dumps({"serving": not faults, "servers": servers}))
    if faults:
        raise Unavailable("; ".join(faults))
    if not as_json:
        typer.echo("; ".join(one.reason for one in found))
