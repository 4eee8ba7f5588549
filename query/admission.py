"""How many searches run at once and how many may wait for their turn.

Beyond both bounds a search is refused at once, with a delay after which to repeat it: nothing is
ever queued without bound. Whoever takes calls may ask first, so that what would be refused anyway
costs next to nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from common.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RETRY_AFTER_MS: Final = 200


class Admission:
    """Lets searches in, first come first served.

    Args:
        running: how many may run at once.
        waiting: how many may wait beside them.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(running)
        self._max_waiting = waiting
        self._waiting = 0

    def refusal(self) -> Overloaded | None:
        """What a search that came now would be refused with; None while there is room."""
        if self._slots.locked() and self._waiting >= self._max_waiting:
            return Overloaded(
                f"too many searches at once; repeat after {RETRY_AFTER_MS} ms",
                retry_after_ms=RETRY_AFTER_MS,
            )
        return None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot; Overloaded if too many wait already."""
        refused = self.refusal()
        if refused is not None:
            raise refused
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
