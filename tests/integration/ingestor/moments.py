"""A folder of small files, and the moments of a job at which a test acts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write(root: Path, number: int) -> None:
    root.mkdir(exist_ok=True)
    for one in range(number):
        (root / f"{one:03}.txt").write_text(f"text {one}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 — the server tells of no event
            await asyncio.sleep(0.005)


def at_document(recorder, number: int, act: Callable[[], None]) -> None:
    """Act when so many documents have come, before that one is acknowledged."""

    def look(_) -> None:
        if len(recorder.sent) == number:
            act()

    recorder.on_document = look
