"""Readers: a bounded number of files in hand at once, the large ones apart from the many.

Files that hold many documents have readers of their own, so that a huge one holds up its like and
nothing else. Where a job is stopped, what is in hand is finished and the rest is let go unread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ingestor.job.container import read_container
from ingestor.job.whole_file import read_whole_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ingestor.job.candidate import Candidate
    from ingestor.job.means import Means


class Processing:
    """The readers of one job."""

    def __init__(self, means: Means) -> None:
        self._means = means
        ahead = means.settings.max_files_listed_ahead
        self._files: asyncio.Queue[Candidate | None] = asyncio.Queue(ahead)
        self._containers: asyncio.Queue[Candidate | None] = asyncio.Queue(ahead)

    async def take(self, candidate: Candidate) -> None:
        """Let a file be read; waits while too many are ahead."""
        await (self._containers if candidate.plan.is_container else self._files).put(candidate)

    async def run(self) -> None:
        """Read until ``close``."""
        settings = self._means.settings
        # None waits for a parser while it holds bytes: one parser is kept from containers.
        for_containers = max(1, min(settings.readers // 2, settings.extraction.workers - 1))
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.readers):
                group.create_task(self._read(self._files, read_whole_file))
            for _ in range(for_containers):
                group.create_task(self._read(self._containers, read_container))

    async def close(self) -> None:
        """No more files come."""
        await self._files.put(None)
        await self._containers.put(None)

    async def _read(
        self,
        queue: asyncio.Queue[Candidate | None],
        read: Callable[[Candidate, Means], Awaitable[None]],
    ) -> None:
        while (candidate := await queue.get()) is not None:
            # Taken and let go, so that nobody waits for room in the queue.
            if not self._means.stop.is_set():
                await read(candidate, self._means)
            if self._means.outcomes.is_deletion_due:
                await self._means.outcomes.delete_waiting()
        await queue.put(None)  # for the next reader
