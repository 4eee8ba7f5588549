"""``sluice doctor``: looks at everything Sluice depends on and names what is wrong."""

from __future__ import annotations

import os
from dataclasses import asdict

import typer

from client.commands.options import Config, Json, Target  # noqa: TC001  # typer reads them

FAILED = 1


def doctor(*, config: Config = None, target: Target = None, as_json: Json = False) -> None:
    """Check each dependency; name the exact fault and its cure."""
    from client import doctor as checks  # noqa: PLC0415  # imported when the command runs
    from client import render  # noqa: PLC0415  # as above
    from client.commands.session import print_json  # noqa: PLC0415  # as above

    found = list(checks.examine(file=config, environ=os.environ, target=target))
    healthy = all(check.ok for check in found)
    if as_json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in found]})
    else:
        render.open_console().print(render.findings(found))
    if not healthy:
        raise typer.Exit(FAILED)
