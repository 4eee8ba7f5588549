"""A command of the ingestor as it runs: its settings, its signals, its progress.

Everything heavy is imported when a command runs, since the command line loads this to tell of its
flags.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ingestor.ingestion import Ingestion
    from ingestor.rounds import Show
    from ingestor.settings import IngestorConfig

T = TypeVar("T")

FAILED = 1


def load_config(
    config: Path | None,
    target: str | None,
    tenant: str | None,
    ingest_settings: dict[str, Any] | None = None,
) -> IngestorConfig:
    """Settings from file, environment and flags; None values are left out."""
    from common.config import load  # noqa: PLC0415 — imported when a command runs
    from ingestor.settings import IngestorConfig  # noqa: PLC0415 — as above

    overrides = {
        "ingest": ingest_settings or {},
        "client": {"target": target, "tenant": tenant},
    }
    return load(IngestorConfig, file=config, environ=os.environ, overrides=overrides)


def run(config: IngestorConfig, work: Callable[[Ingestion], Awaitable[T]]) -> T:
    """Run a command that a signal ends at once."""
    return run_stoppable(config, lambda ingestion, _: work(ingestion), is_orderly=False)


def run_stoppable(
    config: IngestorConfig,
    work: Callable[[Ingestion, asyncio.Event], Awaitable[T]],
    *,
    is_orderly: bool = True,
) -> T:
    """Run a command's work.

    The first SIGTERM or Ctrl-C sets the event that the work is given, so that it comes to an
    orderly end; the second ends it at once, as a failure does, with what was done recorded.
    """
    from common.telemetry import Telemetry  # noqa: PLC0415 — imported when a command runs
    from ingestor.ingestion import Ingestion  # noqa: PLC0415 — as above
    from ingestor.stopping import CalledOffError  # noqa: PLC0415 — as above

    telemetry = config.telemetry
    if sys.stderr.isatty():  # a person's terminal, where log lines would tear the progress apart
        telemetry = telemetry.model_copy(update={"log_format": "text", "log_level": "warning"})

    async def session() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 — a coroutine runs in a task
        stop = asyncio.Event()
        is_working = False

        def on_signal() -> None:
            if stop.is_set() or not (is_orderly and is_working):
                task.cancel()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
        async with (
            Telemetry.open("sluice-ingest", telemetry, os.environ),
            Ingestion.open(config, os.environ) as ingestion,
        ):
            is_working = True
            return await work(ingestion, stop)

    try:
        return asyncio.run(session())
    except (asyncio.CancelledError, CalledOffError):
        raise Stopped from None


class Stopped(typer.Exit):
    """A signal ended the command."""

    def __init__(self) -> None:
        super().__init__(FAILED)


def stop_told(*, rebuild: bool = False) -> Stopped:
    """Tell of an end before the end."""
    told = "start it again: it goes on where it stopped"
    if rebuild:
        told = "queries see the version that they saw; the next --rebuild begins anew"
    typer.echo(f"error: stopped; {told}", err=True)
    return Stopped()


def choose_show(*, quiet: bool) -> Show:
    """What makes the context in which a job's progress is shown on stderr."""
    from ingestor.progress import choose_mode, shown  # noqa: PLC0415 — imported when needed

    mode = choose_mode(sys.stderr, quiet=quiet)
    return lambda counters, root_uri: shown(counters, root_uri, mode, sys.stderr)
