"""Listings: every document once, whatever else the store holds and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Unavailable
from indexer import inventory
from indexer.faults import FaultKind
from indexer.pipeline import Deletion
from indexer.target import Target
from tests.unit.indexer import broken_documents
from tests.unit.indexer.corpus import document, id_of, index, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from indexer.inventory import Listed
    from indexer.pipeline import IndexPipeline
    from indexer.reconcile import HeldChunk

NAMES = [f"n{n:02d}" for n in range(12)]


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


async def listed(store: MemoryStore, prefix: str = "") -> list[tuple[str, int]]:
    return sorted([named(one) async for page in inventory.documents(store, prefix) for one in page])


async def fragments(store: MemoryStore, prefix: str = "") -> list[tuple[str, int]]:
    pages = inventory.documents(store, prefix, fragments=True)
    return sorted([named(one) async for page in pages for one in page if one.fragment])


def named(one: Listed) -> tuple[str, int]:
    return one.chunk.source_uri.removeprefix("file:///"), one.chunk.version


@pytest.mark.parametrize("page_ids", [1, 3, 20_000])
async def test_fragments_are_listed_once_and_only_where_no_revision_is_complete(
    rule: IndexPipeline, page_ids: int
) -> None:
    store = MemoryStore(page_ids=page_ids)
    await broken_documents.write(rule, store)
    incomplete = {
        fault.source_uri.removeprefix("file:///")
        for fault in broken_documents.FAULTS.values()
        if fault.kind is FaultKind.INCOMPLETE
    }
    whole = await listed(store)
    found = await fragments(store)
    assert incomplete
    assert sorted(name for name, _ in found) == sorted(incomplete)
    assert not incomplete & {name for name, _ in whole}
    assert await fragments(store, "file:///beh") == [one for one in found if one[0] == "beheaded"]
    with_fragments = inventory.documents(store, "", fragments=True)
    everything = [named(one) async for page in with_fragments for one in page]
    assert sorted(everything) == sorted(whole + found)


@pytest.mark.parametrize("page_ids", [1, 3, 4, 20_000])
async def test_pages_of_any_size_list_each_document_once(
    rule: IndexPipeline, page_ids: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_PAGE_HEADS", 2)
    monkeypatch.setattr(inventory, "_PAGE_CHUNKS", 5)
    store = MemoryStore(page_ids=page_ids)
    await index(rule, store, [document(n, 1, sentences(i % 7 + 1, n)) for i, n in enumerate(NAMES)])
    assert await listed(store) == [(name, 1) for name in NAMES]
    assert await listed(store, "file:///n1") == [("n10", 1), ("n11", 1)]
    assert await listed(store, "n") == []


@pytest.mark.parametrize("page_ids", [2, 20_000])
async def test_of_two_complete_revisions_the_newer_is_listed(
    rule: IndexPipeline, page_ids: int
) -> None:
    store = MemoryStore(page_ids=page_ids)
    await index(rule, store, [document(name, 1, sentences(3, "old")) for name in "abc"])
    with pytest.raises(Unavailable):  # before what was replaced is deleted
        await index(
            rule,
            FaultyStore(store, fail_at=3, moment="before"),
            [document("b", 2, sentences(2, "new"))],
        )
    assert len(store.kept) == 11
    assert await listed(store) == [("a", 1), ("b", 2), ("c", 1)]


async def test_a_revision_with_a_chunk_missing_is_not_listed(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await index(rule, store, [document(name, 1, sentences(3, name)) for name in "abc"])
    await store.delete([next(id_ for id_ in store.kept if id_.startswith(id_of("b")))[:-1] + "2"])
    assert await listed(store) == [("a", 1), ("c", 1)]


@given(
    st.lists(st.sampled_from(NAMES), unique=True),
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from(NAMES), st.booleans()), max_size=8),
    st.integers(4, 15),
)
@settings(max_examples=150, deadline=None)
def test_what_is_there_all_the_time_is_listed_whatever_is_deleted_or_written_meanwhile(
    before: list[str], changes: list[tuple[int, str, bool]], page_ids: int
) -> None:
    async def scenario() -> None:
        rule, store = pipeline(), MemoryStore(page_ids=page_ids)
        for name in before:
            await index(rule, store, [document(name, 1, sentences(3, name))])
        found: list[tuple[str, int]] = []
        number = 0
        async for page in inventory.documents(store, ""):
            found += map(named, page)
            for at, name, gone in changes:
                if at == number and gone:
                    await rule.delete(Target("store", store), [Deletion(id_of(name))])
                elif at == number:
                    await index(rule, store, [document(name, 2, sentences(2, f"new {name}"))])
            number += 1
        touched = {name for _, name, _ in changes}
        kept = {(name, 1) for name in before if name not in touched}
        untouched = [pair for pair in found if pair[0] not in touched]
        assert set(untouched) == kept
        if 3 * len(touched) <= page_ids:  # as many chunks can be deleted while a page is listed
            assert len(untouched) == len(kept)
        assert {name for name, _ in found} <= {*before, *touched}
        await rule.aclose()

    asyncio.run(scenario())


async def states(store: MemoryStore) -> dict[str, set[HeldChunk]]:
    """All that is met; a document that is met twice fails."""
    found: dict[str, set[HeldChunk]] = {}
    async for lot in inventory.states(store):
        assert 1 <= len(lot) <= 256
        assert not found.keys() & lot.keys()
        found |= {document_id: set(chunks) for document_id, chunks in lot.items()}
    return found


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 6)), max_size=12),
    st.sets(st.integers(0, 60)),
    st.integers(1, 30),
)
@settings(max_examples=100, deadline=None)
def test_every_document_is_met_once_with_all_its_chunks_wherever_they_stand(
    writes: list[tuple[str, int]], gone: set[int], page_ids: int
) -> None:
    async def scenario() -> None:
        rule, store = pipeline(), MemoryStore(page_ids=page_ids)
        for version, (name, count) in enumerate(writes, start=1):
            faulty = FaultyStore(store, fail_at=3, moment="before")  # what was replaced stays
            with contextlib.suppress(Unavailable):
                await index(
                    rule, faulty, [document(name, version, sentences(count, f"v{version}"))]
                )
        await store.delete([id_ for n, id_ in enumerate(store.kept) if n in gone])
        held = await store.held(await store.document_ids())
        assert await states(store) == {id_: set(chunks) for id_, chunks in held.items()}
        await rule.aclose()

    asyncio.run(scenario())


async def test_deletions_meanwhile_neither_hide_nor_repeat_a_document(rule: IndexPipeline) -> None:
    store = MemoryStore(page_ids=8)
    await index(rule, store, [document(name, 1, sentences(3, name)) for name in NAMES])
    met: list[str] = []
    async for lot in inventory.states(store):
        met += lot
        if len(met) == len(lot):
            await rule.delete(Target("store", store), [Deletion(id_of(NAMES[0]))])
    assert sorted(met) == sorted(id_of(name) for name in NAMES[1:])
