"""A bound on bytes that a job holds, such as files being read and documents being sent.

First come, first served, so that a large file is not passed by for ever. A lease larger than the
whole budget is cut to it: the file then travels alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from common.telemetry import Metric, gauge_add


@dataclass(slots=True, eq=False)
class Lease:
    """Bytes taken from the budget; to be given back once."""

    size: int


class ByteBudget:
    """So many bytes, for one event loop; ``metric`` is a gauge that follows them."""

    def __init__(self, capacity: int, metric: Metric | None = None) -> None:
        self._capacity = capacity
        self._metric = metric
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.held = 0

    async def take(self, size: int) -> Lease:
        """Wait until so many bytes are free, and take them."""
        size = min(size, self._capacity)
        if self._waiting or self.held + size > self._capacity:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._add(-size)  # it was granted and will not be used
                else:
                    self._waiting = deque(item for item in self._waiting if item[1] is not turn)
                self._grant()
                raise
        else:
            self._add(size)
        return Lease(size)

    def resize(self, lease: Lease, size: int) -> None:
        """Tell what the lease really holds now; never waits, so the bound may be passed by it."""
        self._add(size - lease.size)
        lease.size = size
        self._grant()

    def give_back(self, lease: Lease) -> None:
        """End a lease."""
        self.resize(lease, 0)

    def close(self) -> None:
        """Forget what is still held: those who held it are gone."""
        self._add(-self.held)

    def _grant(self) -> None:
        while self._waiting and (
            not self.held or self.held + self._waiting[0][0] <= self._capacity
        ):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._add(size)
                turn.set_result(None)

    def _add(self, size: int) -> None:
        self.held += size
        if self._metric is not None:
            gauge_add(self._metric, size)
