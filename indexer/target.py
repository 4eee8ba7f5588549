"""What a batch changes: the store of one index version, whether it may, and what keeps it there.

It knows neither pins nor records: whoever opens a version brings them along. Every change of a
store goes through `changing`, so that nothing is acknowledged which was not allowed all the time.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from indexer.store import VectorStore


async def _always() -> None:
    """Let every batch and every deletion pass."""


def _unheard() -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Target:
    """An index version's store, by the name of its collection.

    Attributes:
        name: of its collection.
        store: to be changed.
        check: raises where the store may not be changed now. Awaited before the store is asked, and
            again before an answer: what is acknowledged was written while that was allowed.
        held: keeps the store there, and others from mending it; open while a batch or a deletion is
            under way, also after whoever sent it has gone. Raises on leaving where it did not keep
            it all the time.
        changed: told after a batch or a deletion that the store may hold something else now; it
            must neither block nor fail.
    """

    name: str
    store: VectorStore
    check: Callable[[], Awaitable[object]] = _always
    held: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
    changed: Callable[[], None] = _unheard


@asynccontextmanager
async def changing(target: Target) -> AsyncIterator[None]:
    """Hold a store that may be changed, before and after."""
    async with target.held():
        await target.check()
        try:
            yield
        finally:
            target.changed()  # what failed may have changed something too
        await target.check()
