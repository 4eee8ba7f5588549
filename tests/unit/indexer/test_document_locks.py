from __future__ import annotations

import asyncio

import pytest

from indexer.document_locks import DocumentLocks


async def settle() -> None:
    """Let every task run until it waits for another."""
    for _ in range(20):
        await asyncio.sleep(0)


class Holder:
    """Holds documents until it is let go."""

    def __init__(self, locks: DocumentLocks, name: str, order: list[str], *ids: str) -> None:
        self.let_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(locks, name, order, ids))

    async def _hold(
        self, locks: DocumentLocks, name: str, order: list[str], ids: tuple[str, ...]
    ) -> None:
        async with locks.holding("store", ids):
            order.append(name)
            await self.let_go.wait()


async def test_batches_that_share_a_document_take_turns_in_the_order_they_came() -> None:
    locks = DocumentLocks()
    order: list[str] = []
    first = Holder(locks, "first", order, "a", "b")
    second = Holder(locks, "second", order, "b", "c")
    third = Holder(locks, "third", order, "c", "a")
    other = Holder(locks, "other", order, "d")
    await settle()
    assert order == ["first", "other"]
    first.let_go.set()
    await settle()
    assert order == ["first", "other", "second"]
    second.let_go.set()
    await settle()
    assert order == ["first", "other", "second", "third"]
    third.let_go.set()
    other.let_go.set()
    await asyncio.gather(first.task, second.task, third.task, other.task)
    assert len(locks) == 0


async def test_the_same_id_in_two_stores_is_two_documents() -> None:
    locks = DocumentLocks()
    async with asyncio.timeout(1), locks.holding("one", ["a"]), locks.holding("two", ["a"]):
        assert len(locks) == 2


async def test_who_is_cancelled_while_waiting_opens_no_gap() -> None:
    locks = DocumentLocks()
    order: list[str] = []
    first = Holder(locks, "first", order, "a")
    other = Holder(locks, "other", order, "b")
    waiting = Holder(locks, "waiting", order, "a", "b")
    last = Holder(locks, "last", order, "b", "a")
    await settle()
    waiting.task.cancel()
    await settle()
    assert waiting.task.cancelled()
    assert order == ["first", "other"]
    first.let_go.set()
    await settle()
    assert order == ["first", "other"]
    other.let_go.set()
    await settle()
    assert order == ["first", "other", "last"]
    last.let_go.set()
    await asyncio.gather(first.task, other.task, last.task)
    assert len(locks) == 0


async def test_a_failure_releases() -> None:
    locks = DocumentLocks()
    with pytest.raises(ValueError, match="inside"):
        async with locks.holding("store", ["a"]):
            raise ValueError("inside")
    assert len(locks) == 0
