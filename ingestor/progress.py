"""Progress of a job on stderr: a live bar on a terminal, else a plain line now and then.

It only reads the job's counters. Time left is by bytes, and told only once the listing is complete:
before that nobody knows it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ingestor.job.summary import Counters

_BAR_REFRESH_S = 0.2
_LINE_REFRESH_S = 10.0


class ProgressMode(StrEnum):
    """How progress is shown."""

    NONE = "none"
    BAR = "bar"
    LINES = "lines"


def choose_mode(stream: TextIO, *, quiet: bool) -> ProgressMode:
    """A bar on a terminal, lines elsewhere, nothing if quiet."""
    if quiet:
        return ProgressMode.NONE
    return ProgressMode.BAR if stream.isatty() else ProgressMode.LINES


@asynccontextmanager
async def shown(
    counters: Counters, root_uri: str, mode: ProgressMode, stream: TextIO
) -> AsyncIterator[None]:
    """Show the progress of a job while the block runs."""
    if mode is ProgressMode.NONE:
        yield
        return
    show = _show_bar if mode is ProgressMode.BAR else _show_lines
    showing = asyncio.create_task(show(counters, root_uri, stream))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


def describe(counters: Counters) -> str:
    """Files, rates and dead letters in one line; ``≥`` while files are still being found."""
    elapsed_s = max(counters.elapsed_s, 1e-3)
    total = f"{'' if counters.is_listing_done else '≥ '}{counters.files_due:,}"
    line = (
        f"{counters.files_done:,} of {total} files"
        f" · {counters.bytes_read / 1e6 / elapsed_s:.1f} MB/s"
        f" · {counters.documents_sent / elapsed_s:.1f} documents/s"
        f" · {counters.chunks / elapsed_s:.0f} chunks/s"
    )
    return f"{line} · {counters.dead_letters:,} dead letters" if counters.dead_letters else line


def seconds_left(counters: Counters) -> float | None:
    """By bytes, at the rate so far; None while it cannot be known."""
    if not counters.is_listing_done or not counters.bytes_done:
        return None
    rate = counters.bytes_done / max(counters.elapsed_s, 1e-3)
    return (counters.bytes_due - counters.bytes_done) / rate


async def _show_bar(counters: Counters, root_uri: str, stream: TextIO) -> None:
    # What matters most comes first: a narrow terminal cuts the end.
    columns = (
        BarColumn(bar_width=10),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(file=stream)
    console.print(Text(_printable(root_uri)))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        while True:
            progress.update(
                task,
                description=describe(counters),
                completed=counters.bytes_done,
                total=max(1, counters.bytes_due) if counters.is_listing_done else None,
            )
            await asyncio.sleep(_BAR_REFRESH_S)


def _printable(name: str) -> str:
    """The name without what a terminal would act upon."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)


async def _show_lines(counters: Counters, root_uri: str, stream: TextIO) -> None:
    console = Console(file=stream, highlight=False, soft_wrap=True)
    while True:
        await asyncio.sleep(_LINE_REFRESH_S)
        left_s = seconds_left(counters)
        left = "" if left_s is None else f" · {left_s:.0f} s left"
        console.print(Text(f"{_printable(root_uri)}: {describe(counters)}{left}"))
