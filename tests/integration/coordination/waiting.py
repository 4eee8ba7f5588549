"""Waiting for what a test expects: bounded, and no longer than it takes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.coordination import Change, Watch

WITHIN_S = 20
_POLL_S = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; TimeoutError if it does not come true in time."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110  whatever comes true has no event
            await asyncio.sleep(_POLL_S)


class Following:
    """Collects the changes of a watch in a task of its own."""

    def __init__(self, watch: Watch) -> None:
        self.changes: list[Change] = []
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._collect(watch))

    async def until_count(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.changes) < count:
                self._came.clear()
                await self._came.wait()

    async def ended(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self._task

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _collect(self, watch: Watch) -> None:
        async for change in watch:
            self.changes.append(change)
            self._came.set()


@contextlib.asynccontextmanager
async def following(watch: Watch) -> AsyncIterator[Following]:
    follower = Following(watch)
    try:
        yield follower
    finally:
        await follower.stop()
