"""Lets one batch at a time work on a document, in the order of their arrival.

Two streams may carry the same document; between asking the store what it holds of it and deleting
what was replaced nobody else may write it. A batch waits for those before it that share a document,
and only for those, so batches can never wait for each other. Memory follows the documents in work.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

DocumentKey: TypeAlias = tuple[str, str]


class DocumentLocks:
    """Locks by store and document id, for one event loop."""

    def __init__(self) -> None:
        self._last: dict[DocumentKey, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._last)

    @asynccontextmanager
    async def holding(self, store: str, document_ids: Iterable[str]) -> AsyncIterator[None]:
        """Hold these documents; whoever enters first holds them first."""
        keys = [(store, document_id) for document_id in document_ids]
        released = asyncio.get_running_loop().create_future()
        # No await until every key is taken: that is what keeps batches in one order.
        before = {self._last[key] for key in keys if key in self._last}
        self._last.update(dict.fromkeys(keys, released))
        try:
            if before:
                await asyncio.wait(before)
            yield
        finally:
            self._release(keys, released, before)

    def _release(
        self,
        keys: list[DocumentKey],
        released: asyncio.Future[None],
        before: set[asyncio.Future[None]],
    ) -> None:
        waiting = {future for future in before if not future.done()}
        if waiting:  # cancelled in the queue: whoever waits for this one waits for those now
            first = waiting.pop()
            first.add_done_callback(lambda _: self._release(keys, released, waiting))
            return
        released.set_result(None)
        for key in keys:
            if self._last.get(key) is released:
                del self._last[key]
