"""``sluice serve query``. Imports what it starts only when it is called."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 — typer evaluates the annotations
from typing import Annotated

import typer


def serve_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of settings.", dir_okay=False)
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")
    ] = None,
) -> None:
    """Serve queries until SIGTERM."""
    import os  # noqa: PLC0415 — a command that is not called costs nothing

    from common.config import load  # noqa: PLC0415 — as above
    from common.rpc import run_until_signal  # noqa: PLC0415 — as above
    from query.serve import QueryConfig, run  # noqa: PLC0415 — as above

    settings = load(
        QueryConfig,
        file=config,
        environ=os.environ,
        overrides={"query": {"server": {"listen": listen}}},
    )

    run_until_signal("query", lambda stop, ready: run(settings, stop=stop, on_ready=ready))
