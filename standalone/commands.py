"""``sluice up`` on the command line, and what `sluice doctor` checks of it.

The place where the one process reads its environment. Nothing is imported before it is needed: the
command line loads this module to list its commands.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from common.doctor import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEAST_FREE_BYTES = 2 * 2**30


def up(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where everything is kept.", file_okay=False),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes a free one."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML file of settings.", exists=True, dir_okay=False),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", help="Gets the address once requests are taken."),
    ] = None,
) -> None:
    """Run all services in this process until SIGTERM or Ctrl-C."""
    import asyncio  # noqa: PLC0415  # imported when the command runs

    from common.config import load  # noqa: PLC0415  # as above
    from common.rpc import stop_on_signals  # noqa: PLC0415  # as above
    from common.telemetry import Telemetry  # noqa: PLC0415  # as above
    from standalone.serve import UpConfig, run  # noqa: PLC0415  # as above

    overrides = {"up": {"data_dir": data_dir, "server": {"listen": listen}}}
    settings = load(UpConfig, file=config, environ=os.environ, overrides=overrides)

    def tell(address: str) -> None:
        if ready_file is not None:
            _write_whole(ready_file, f"{address}\n")
        typer.echo(f"sluice is ready on {address}", err=True)

    async def serve() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        async with Telemetry.open("sluice-up", settings.telemetry, os.environ):
            await run(settings, stop=stop, on_ready=tell)

    asyncio.run(serve())


def checks(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Whether the data directory can be written and has room."""
    from common.config import load  # noqa: PLC0415  # as above
    from standalone.serve import UpConfig  # noqa: PLC0415  # as above

    data_dir = load(UpConfig, file=file, environ=environ).up.data_dir.absolute()
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        cure = "set up.data_dir to a folder that this user may write"
        yield Check("data folder", ok=False, detail=f"{existing} cannot be written", cure=cure)
        return
    yield Check("data folder", ok=True, detail=str(data_dir))
    free = shutil.disk_usage(existing).free
    detail = f"{free / 2**30:.1f} GiB free at {existing}"
    if free < LEAST_FREE_BYTES:
        cure = f"free at least {LEAST_FREE_BYTES // 2**30} GiB, or set up.data_dir to another disk"
        yield Check("disk", ok=False, detail=detail, cure=cure)
    else:
        yield Check("disk", ok=True, detail=detail)


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever sees it sees all of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
