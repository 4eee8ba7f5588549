"""What must be true around each change of a store: pinned, allowed before, and allowed after."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from common.errors import FailedPrecondition
from indexer.containers import ContainerDeletion
from indexer.pipeline import Deletion
from indexer.target import Target
from tests.unit.indexer.corpus import document, id_of, index, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from indexer.pipeline import IndexPipeline
    from indexer.reconcile import HeldChunk

    Change = Callable[[IndexPipeline, Target], Awaitable[object]]

DOCUMENT = document("a", 1, sentences(3, "old"), container="file:///a.zip")
ID = id_of("a")


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


async def write(rule: IndexPipeline, target: Target) -> object:
    return await rule.submit(target, [document("b", 1, sentences(2, "b"))], asyncio.Event())


async def delete(rule: IndexPipeline, target: Target) -> object:
    return await rule.delete(target, [Deletion(ID)])


async def delete_contained(rule: IndexPipeline, target: Target) -> object:
    return await rule.delete_contained(target, ContainerDeletion("file:///a.zip"), [ID])


async def mend(rule: IndexPipeline, target: Target) -> object:
    return await rule.mend(target, [ID], lambda held: [chunk.id for chunk in held[ID]])


CHANGES: list[Change] = [write, delete, delete_contained, mend]


class Watched:
    """A target that notes what is asked of it, in order, and refuses the nth change."""

    def __init__(self, store: MemoryStore, *, refuse_at: int = 0) -> None:
        self.events = FaultyStore(store)
        self.refuse_at = refuse_at
        self.checks = 0

    async def check(self) -> None:
        self.events.calls.append("check")
        self.checks += 1
        if self.checks == self.refuse_at:
            raise FailedPrecondition("retired; version 2 is active")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        self.events.calls.append("pinned")
        try:
            yield
        finally:
            self.events.calls.append("let go")

    @property
    def target(self) -> Target:
        return Target("store", self.events, self.check, self.held)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_pinned_and_checked_around_what_the_store_does(
    rule: IndexPipeline, change: Change
) -> None:
    store = MemoryStore()
    await index(rule, store, [DOCUMENT])
    watched = Watched(store)
    before = store.snapshot()
    await change(rule, watched.target)
    assert store.snapshot() != before
    calls = watched.events.calls
    assert calls[:3] == ["pinned", "check", "held"]  # the store is asked what it holds
    assert calls[-2:] == ["check", "let go"]
    assert calls.count("check") == 2


@pytest.mark.parametrize("change", CHANGES)
async def test_where_changes_are_not_allowed_the_store_is_not_asked(
    rule: IndexPipeline, change: Change
) -> None:
    store = MemoryStore()
    await index(rule, store, [DOCUMENT])
    before = store.snapshot()
    watched = Watched(store, refuse_at=1)
    with pytest.raises(FailedPrecondition, match="version 2 is active"):
        await change(rule, watched.target)
    assert watched.events.calls == ["pinned", "check", "let go"]
    assert store.snapshot() == before


@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_changed_when_it_no_longer_was_allowed_is_not_acknowledged(
    rule: IndexPipeline, change: Change
) -> None:
    store = MemoryStore()
    await index(rule, store, [DOCUMENT])
    watched = Watched(store, refuse_at=2)
    with pytest.raises(FailedPrecondition, match="version 2 is active"):
        await change(rule, watched.target)
    assert watched.events.calls[-1] == "let go"


async def test_a_batch_keeps_its_pin_when_its_stream_has_gone(rule: IndexPipeline) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    watched = Watched(MemoryStore())

    async def wait() -> None:
        asked.set()
        await go_on.wait()

    target = Target("store", watched.events, wait, watched.held)
    waiting = asyncio.create_task(rule.delete(target, [Deletion(ID)]))
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert watched.events.calls == ["pinned"]
    go_on.set()
    await rule.aclose()
    assert watched.events.calls[-1] == "let go"


async def test_mending_deletes_what_is_named_of_what_is_held(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await index(rule, store, [DOCUMENT, document("b", 1, sentences(2, "b"))])
    seen: list[Mapping[str, Sequence[HeldChunk]]] = []

    def doomed(held: Mapping[str, Sequence[HeldChunk]]) -> list[str]:
        seen.append(held)
        return [chunk.id for chunk in held[ID] if chunk.ordinal]

    assert await rule.mend(Target("store", store), [ID], doomed) == 2
    assert [sorted(held) for held in seen] == [[ID]]
    assert sorted(chunk.ordinal for chunk in (await store.held([ID]))[ID]) == [0]
    assert len((await store.held([id_of("b")]))[id_of("b")]) == 2


async def test_mending_waits_for_a_batch_with_the_same_document(rule: IndexPipeline) -> None:
    store = MemoryStore()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        entered.set()
        await go_on.wait()

    batch = rule.submit(Target("store", store, slowly), [DOCUMENT], asyncio.Event())
    await entered.wait()
    seen: list[int] = []

    def doomed(held: Mapping[str, Sequence[HeldChunk]]) -> list[str]:
        seen.append(len(held[ID]))
        return []

    mending = asyncio.create_task(rule.mend(Target("store", store), [ID], doomed))
    go_on.set()
    await batch
    assert await mending == 0
    assert seen == [3]
