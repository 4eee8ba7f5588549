"""`sluice serve indexer`. It imports only typer until it runs: the command line stays quick."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 — typer reads the annotation
from typing import Annotated

import typer


def serve_command(
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings.", exists=True, dir_okay=False)
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT; port 0 takes a free one.")] = None,
) -> None:
    """Serve the indexer until it is told to stop (SIGTERM or Ctrl-C)."""
    import os  # noqa: PLC0415 — heavy imports wait until the command runs, as all here

    from common.config import load  # noqa: PLC0415
    from common.rpc import run_until_signal  # noqa: PLC0415
    from indexer.serve import IndexerConfig, run  # noqa: PLC0415

    settings = load(
        IndexerConfig,
        file=config,
        environ=os.environ,
        overrides={"indexer": {"server": {"listen": listen}}},
    )

    run_until_signal("indexer", lambda stop, ready: run(settings, stop=stop, on_ready=ready))
