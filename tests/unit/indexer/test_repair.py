"""A repair deletes what it sees under the lock; one that is cut short is finished by the next."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from common.errors import FailedPrecondition, Unavailable
from indexer import repair as repairing
from indexer.repair import Repaired, repair
from indexer.target import Target
from indexer.verification import verify
from tests.unit.indexer.broken_documents import FAULTS, SENT_AGAIN, SURPLUS_CHUNKS, record, write
from tests.unit.indexer.corpus import document, id_of, index, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from indexer.pipeline import IndexPipeline
    from indexer.reconcile import HeldChunk


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


class RacedStore(MemoryStore):
    """Something happens after the first look at what is held, once."""

    then: Callable[[], Awaitable[object]] | None = None

    async def held(self, document_ids: Sequence[str]) -> Mapping[str, tuple[HeldChunk, ...]]:
        found = await super().held(document_ids)
        then, self.then = self.then, None
        if then is not None:
            await then()
        return found


@pytest.mark.parametrize("page_ids", [1, 5, 20_000])
async def test_what_can_be_mended_is_mended_and_the_rest_is_named(
    rule: IndexPipeline, page_ids: int
) -> None:
    store = MemoryStore(page_ids=page_ids)
    await write(rule, store)
    before = set(store.kept)
    repaired = await repair(rule, Target("store", store))
    assert repaired.deleted_chunks == SURPLUS_CHUNKS == len(before) - len(store.kept)
    assert set(repaired.incomplete) == SENT_AGAIN
    assert repaired.incomplete_documents == len(SENT_AGAIN)
    # What was beheaded is gone, so what still has a fault is what the store cannot mend.
    left = {FAULTS["holed"], FAULTS["half moved"]}
    assert set((await verify(store, record())).faults) == left
    assert await repair(rule, Target("store", store)) == Repaired(
        0, tuple(sorted(left, key=repaired.incomplete.index)), 2
    )


async def test_sent_again_the_version_is_what_it_would_be_without_any_fault(
    rule: IndexPipeline,
) -> None:
    store, clean = MemoryStore(), MemoryStore()
    await write(rule, store)
    await repair(rule, Target("store", store))
    again = [
        document(name, 3, sentences(3, name), container="file:///box" if name == "holed" else "")
        for name in FAULTS
    ]
    whole = [document(name, 1, sentences(2, name)) for name in ("first", "last")]
    await index(rule, store, again)
    await index(rule, clean, [*whole, *again])
    assert store.snapshot() == clean.snapshot()
    assert (await verify(store, record(), expected_documents=7)).verdict.passed


async def test_what_was_mended_since_the_first_look_is_left_alone(rule: IndexPipeline) -> None:
    store = RacedStore()
    await index(rule, store, [document("a", 1, sentences(3, "old"))])
    await store.delete([min(store.kept)])  # its head

    async def send_again() -> None:
        await index(rule, store, [document("a", 1, sentences(3, "old"))])

    store.then = send_again
    assert await repair(rule, Target("store", store)) == Repaired(0, (), 0)
    assert sorted(store.kept) == sorted(await store.ids_of([id_of("a")]))
    assert len(store.kept) == 3


@pytest.mark.parametrize("moment", ["before", "half", "after"])
async def test_a_repair_that_fails_anywhere_is_finished_by_the_next(
    rule: IndexPipeline, moment: str
) -> None:
    whole = MemoryStore()
    await write(rule, whole)
    await repair(rule, Target("store", whole))
    calls: list[str] = []
    for call in itertools.count(1):
        store = MemoryStore(page_ids=7)
        await write(rule, store)
        faulty = FaultyStore(store, fail_at=call, moment=moment)
        try:
            await repair(rule, Target("store", faulty))
        except Unavailable:
            assert faulty.failed
        else:
            calls = faulty.calls
            break
        await repair(rule, Target("store", store))
        assert store.snapshot() == whole.snapshot()
    assert calls.count("delete") >= 2


async def test_a_version_that_may_not_be_changed_is_left_as_it_is(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await write(rule, store)
    before = store.snapshot()

    async def check() -> None:
        raise FailedPrecondition("the version is retired")

    with pytest.raises(FailedPrecondition, match="retired"):
        await repair(rule, Target("store", store, check))
    assert store.snapshot() == before


async def test_what_is_named_is_bounded_and_counted(
    rule: IndexPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairing, "MAX_FAULTS", 5)
    store = MemoryStore(page_ids=6)
    names = [f"n{n}" for n in range(12)]
    await index(rule, store, [document(name, 1, sentences(2, name)) for name in names])
    await store.delete([id_ for id_ in store.kept if id_.endswith(":1")])
    repaired = await repair(rule, Target("store", store))
    assert (repaired.deleted_chunks, repaired.incomplete_documents) == (0, 12)
    assert len(set(repaired.incomplete)) == 5
