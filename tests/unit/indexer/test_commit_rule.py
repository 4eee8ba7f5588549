"""The invariants of the commit rule, I1 to I5, against a store that fails at every single call."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InvalidArgument, Unavailable
from indexer.chunking import SentenceChunker
from indexer.document import RejectionCause
from indexer.embedding import EmbedderEmbedding
from indexer.pipeline import Deleted, Deletion, Indexed, Result
from indexer.reconcile import Superseded, complete_heads, current
from indexer.target import Target
from tests.unit.indexer.corpus import (
    CHUNKER,
    EMBEDDER,
    document,
    id_of,
    index,
    outcomes,
    pipeline,
    sentences,
)
from tests.unit.indexer.stores import FaultyStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from indexer.chunking import Chunk
    from indexer.document import Document, Page
    from indexer.pipeline import IndexPipeline

MOMENTS = ["before", "half", "after"]

BEFORE = [
    document("shorter", 1, sentences(7, "old")),
    document("moved", 1, sentences(4, "same"), metadata={"lang": "en", "gone": True}),
    document("same", 1, sentences(3, "same")),
    document("longer", 1, sentences(1, "old")),
]
AFTER = [
    document("shorter", 2, sentences(3, "new")),
    document("moved", 2, sentences(4, "same"), metadata={"lang": "de", "tags": ["a", "b"]}),
    document("same", 1, sentences(3, "same")),
    document("longer", 2, sentences(9, "new")),
    document("fresh", 1, sentences(5, "fresh")),
]


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


async def clean(rule: IndexPipeline, *batches: list[Document]) -> dict[str, object]:
    store = MemoryStore()
    for batch in batches:
        await index(rule, store, batch)
    return store.snapshot()


async def complete_versions(store: MemoryStore, name: str) -> set[int]:
    held = (await store.held([id_of(name)])).get(id_of(name), ())
    return {head.version for head in complete_heads(held)}


async def check_heads(store: MemoryStore) -> None:
    """A head means that its revision is complete, whatever was cut short."""
    for held in (await store.held(await store.heads())).values():
        heads = [chunk for chunk in held if chunk.ordinal == 0]
        assert sorted(map(str, heads)) == sorted(map(str, complete_heads(held)))


async def test_a_batch_is_written_and_acknowledged(rule: IndexPipeline) -> None:
    store = MemoryStore()
    results = await index(rule, store, BEFORE)
    assert [(r.document_id, r.version) for r in results] == [(d.key, 1) for d in BEFORE]
    assert [r.outcome for r in results] == [Indexed(7), Indexed(4), Indexed(3), Indexed(1)]
    assert len(store.kept) == 15


async def test_an_unchanged_batch_writes_nothing(rule: IndexPipeline) -> None:
    store = FaultyStore(MemoryStore())
    await index(rule, store, BEFORE)
    assert store.writes
    store.calls.clear()
    assert outcomes(await index(rule, store, BEFORE)) == ["Unchanged"] * 4
    assert store.calls == ["held"]


async def test_moved_metadata_are_updated_in_place_without_embedding(rule: IndexPipeline) -> None:
    store = FaultyStore(MemoryStore())
    await index(rule, store, [BEFORE[1]])
    store.calls.clear()
    assert outcomes(await index(rule, store, [AFTER[1]])) == ["Unchanged"]
    assert store.calls == ["held", "move"]
    assert isinstance(store.inner, MemoryStore)
    assert store.inner.snapshot() == await clean(rule, [AFTER[1]])


@pytest.mark.parametrize("moment", MOMENTS)
async def test_i1_after_a_crash_at_any_store_call_a_replay_ends_in_the_clean_index(
    rule: IndexPipeline, moment: str
) -> None:
    expected = await clean(rule, AFTER)
    inner = MemoryStore()
    store = FaultyStore(inner)
    for call in itertools.count(1):
        inner = MemoryStore()
        await index(rule, inner, BEFORE)
        store = FaultyStore(inner, fail_at=call, moment=moment)
        try:
            await index(rule, store, AFTER)
        except Unavailable:
            assert store.failed
        else:
            break
        await index(rule, inner, AFTER)
        assert inner.snapshot() == expected, f"call {call} ({store.calls[-1]})"
    assert call >= 9
    assert set(store.calls) == {"held", "move", "write", "delete"}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_i2_while_a_document_is_updated_one_complete_version_is_held(
    rule: IndexPipeline, moment: str
) -> None:
    for call in itertools.count(1):
        inner = MemoryStore()
        await index(rule, inner, BEFORE)
        store = FaultyStore(inner, fail_at=call, moment=moment)
        try:
            await index(rule, store, AFTER)
        except Unavailable:
            pass
        else:
            break
        for name in ("shorter", "moved", "same", "longer"):
            assert await complete_versions(inner, name), f"{name} is lost at call {call}"
        await check_heads(inner)
    assert call >= 9


@pytest.mark.parametrize("moment", MOMENTS)
async def test_i4_a_late_older_version_never_replaces_a_newer_one(
    rule: IndexPipeline, moment: str
) -> None:
    expected = await clean(rule, AFTER)
    inner = MemoryStore()
    store = FaultyStore(inner)
    for call in itertools.count(1):
        inner = MemoryStore()
        await index(rule, inner, BEFORE)
        store = FaultyStore(inner, fail_at=call, moment=moment)
        try:
            await index(rule, store, AFTER)
        except Unavailable:
            newer = {d.key: await complete_versions(inner, d.source_uri[8:]) for d in AFTER}
            late = await index(rule, inner, BEFORE)
            for result in late:
                if max(newer[result.document_id]) > result.version:
                    assert isinstance(result.outcome, Superseded)
        else:
            break
        await index(rule, inner, AFTER)
        assert inner.snapshot() == expected
    late = await index(rule, inner, BEFORE)
    assert outcomes(late) == ["Superseded", "Superseded", "Unchanged", "Superseded"]
    assert inner.snapshot() == expected


async def test_i4_streams_that_carry_the_same_documents_at_once_end_with_the_newest(
    rule: IndexPipeline,
) -> None:
    states = [
        [document(name, version, sentences(version % 3 + 1, f"{name}{version}")) for name in "abc"]
        for version in (3, 1, 5, 2, 4, 5, 1)
    ]
    store = MemoryStore()
    await asyncio.gather(*(index(rule, store, batch) for batch in states))
    assert store.snapshot() == await clean(rule, states[2])


async def test_i5_what_was_acknowledged_is_found_by_a_fresh_read(rule: IndexPipeline) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    class Held(MemoryStore):
        async def delete(self, chunk_ids: object) -> None:
            reached.set()
            await gate.wait()
            await super().delete(chunk_ids)  # type: ignore[arg-type]  # passed through

    store = Held()
    await index(rule, store, [BEFORE[0]])
    task = rule.submit(Target("store", store), [AFTER[0]], asyncio.Event())
    await asyncio.wait_for(reached.wait(), 5)
    assert not task.done()
    assert await complete_versions(store, "shorter") == {1, 2}
    gate.set()
    assert [result.outcome for result in await task] == [Indexed(3)]
    assert await complete_versions(store, "shorter") == {2}
    assert len(store.kept) == 3


async def test_a_newer_version_that_was_not_finished_supersedes_nothing(
    rule: IndexPipeline,
) -> None:
    store = MemoryStore()
    await index(rule, store, [AFTER[0]])
    head = next(id_ for id_ in store.kept if id_.endswith(":0"))
    await store.delete([head])
    assert outcomes(await index(rule, store, [BEFORE[0]])) == ["Indexed"]
    assert store.snapshot() == await clean(rule, [BEFORE[0]])


STATE = st.tuples(st.sampled_from("ab"), st.integers(1, 3))
RUN = st.tuples(
    st.lists(STATE, min_size=1, max_size=2, unique_by=lambda state: state[0]),
    st.integers(0, 6),
    st.sampled_from(MOMENTS),
)


def state(name: str, version: int) -> Document:
    # versions 1 and 2 of "a" differ in metadata only
    text = sentences(2, "a") if name == "a" and version < 3 else sentences(version, f"{version}")
    return document(name, version, text, metadata={"version": version})


@given(st.lists(RUN, max_size=6))
@settings(max_examples=150, deadline=None)
def test_i1_any_crashes_and_any_order_heal_with_one_clean_run(
    runs: list[tuple[list[tuple[str, int]], int, str]],
) -> None:
    async def scenario() -> None:
        rule, store = pipeline(slice_chunks=2), MemoryStore()
        for batch, call, moment in runs:
            faulty = FaultyStore(store, fail_at=call, moment=moment)
            try:
                await index(rule, faulty, [state(*drawn) for drawn in batch])
            except Unavailable:
                assert faulty.failed
        last = [state("a", 3), state("b", 3)]
        await index(rule, store, last)
        assert store.snapshot() == await clean(rule, last)
        await rule.aclose()

    asyncio.run(scenario())


async def test_a_document_larger_than_a_slice_is_complete_only_at_its_end(
    rule: IndexPipeline,
) -> None:
    store = FaultyStore(MemoryStore())
    big = document("big", 1, sentences(30, "big"))
    assert [r.outcome for r in await index(rule, store, [big])] == [Indexed(30)]
    assert store.calls.count("write") == 8
    for call in range(2, 10):
        inner = MemoryStore()
        with pytest.raises(Unavailable):
            await index(rule, FaultyStore(inner, fail_at=call, moment="half"), [big])
        assert not await complete_versions(inner, "big")
        await check_heads(inner)


async def test_a_batch_whose_stream_ended_stops_and_a_replay_heals(rule: IndexPipeline) -> None:
    stop = asyncio.Event()

    class Stopping(MemoryStore):
        async def write(self, chunks: object, vectors: object) -> None:
            stop.set()
            await super().write(chunks, vectors)  # type: ignore[arg-type]  # passed through

    store = Stopping()
    with pytest.raises(Unavailable, match="send it again"):
        await rule.submit(Target("store", store), BEFORE, stop)
    assert len(store.kept) == 4
    await index(rule, store, BEFORE)
    assert store.snapshot() == await clean(rule, BEFORE)


class TestRefusal:
    """An embedder that refuses one text."""

    @pytest.fixture
    async def refusing(self) -> AsyncIterator[IndexPipeline]:
        class Refusing(EmbedderEmbedding):
            def __init__(self) -> None:
                super().__init__(EMBEDDER)

            async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                if any("poison" in text for text in texts):
                    raise InvalidArgument("the model refused the text")
                return await super()._aget_text_embeddings(texts)

        opened = pipeline(embedding=Refusing())
        yield opened
        await opened.aclose()

    @pytest.mark.parametrize("at", [0, 3, 6])
    async def test_only_the_refused_document_is_rejected_and_stays_as_it_was(
        self, refusing: IndexPipeline, at: int
    ) -> None:
        store = MemoryStore()
        await index(refusing, store, BEFORE)
        parts = [f"part {n} is one of seven words." for n in range(7)]
        parts[at] = "poison is in one of seven words."
        batch = [AFTER[0], document("same", 2, " ".join(parts)), AFTER[3]]
        results = await index(refusing, store, batch)
        assert outcomes(results) == ["Indexed", "Rejected", "Indexed"]
        assert getattr(results[1].outcome, "cause", None) is RejectionCause.NOT_EMBEDDABLE
        kept = [AFTER[0], BEFORE[1], BEFORE[2], AFTER[3]]
        assert store.snapshot() == await clean(refusing, kept)


class _Choking(SentenceChunker):
    """A splitter that fails on one text."""

    def chunk(self, content: str, pages: Sequence[Page] = ()) -> list[Chunk]:
        if "poison" in content:
            raise RuntimeError(f"cannot cut {content}")
        return super().chunk(content, pages)


async def test_a_text_that_cannot_be_cut_is_rejected_alone_and_stays_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rule, store = pipeline(chunker=_Choking(CHUNKER.spec, EMBEDDER.token_count)), MemoryStore()
    await index(rule, store, BEFORE)
    results = await index(rule, store, [AFTER[0], document("same", 2, "poison"), AFTER[3]])
    assert outcomes(results) == ["Indexed", "Rejected", "Indexed"]
    assert getattr(results[1].outcome, "cause", None) is RejectionCause.NOT_CHUNKABLE
    kept = [AFTER[0], BEFORE[1], BEFORE[2], AFTER[3]]
    assert store.snapshot() == await clean(rule, kept)
    assert "poison" not in str([vars(record) for record in caplog.records])
    await rule.aclose()


class TestDeletion:
    async def delete(
        self, rule: IndexPipeline, store: MemoryStore, version: int
    ) -> Deleted | Superseded:
        deletion = Deletion(id_of("shorter"), version)
        (outcome,) = await rule.delete(Target("store", store), [deletion])
        return outcome

    async def test_deletes_this_version_and_older_ones(self, rule: IndexPipeline) -> None:
        for version in (0, 1, 2):
            store = MemoryStore()
            await index(rule, store, BEFORE)
            assert await self.delete(rule, store, version) == Deleted(found=True)
            assert store.snapshot() == await clean(rule, BEFORE[1:])
            assert await self.delete(rule, store, version) == Deleted(found=False)

    async def test_a_newer_version_stays(self, rule: IndexPipeline) -> None:
        store = MemoryStore()
        await index(rule, store, AFTER)
        assert await self.delete(rule, store, 1) == Superseded(2)
        assert store.snapshot() == await clean(rule, AFTER)

    async def test_a_deletion_that_fails_half_way_leaves_no_head(self, rule: IndexPipeline) -> None:
        store = MemoryStore()
        await index(rule, store, [BEFORE[0]])
        faulty = FaultyStore(store, fail_at=2, moment="half")
        with pytest.raises(Unavailable):
            await rule.delete(Target("store", faulty), [Deletion(id_of("shorter"))])
        assert store.kept
        assert not await store.heads()
        await self.delete(rule, store, 0)
        assert not store.kept


async def test_batches_that_share_no_document_overlap() -> None:
    """While one batch waits for the store another is written."""
    rule, gate, waiting = pipeline(), asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def write(self, chunks: object, vectors: object) -> None:
            if not waiting.is_set():
                waiting.set()
                await gate.wait()
            await super().write(chunks, vectors)  # type: ignore[arg-type]  # passed through

    store = Slow()
    slow = rule.submit(Target("store", store), [BEFORE[0]], asyncio.Event())
    await asyncio.wait_for(waiting.wait(), 5)
    results: list[Result] = await asyncio.wait_for(index(rule, store, [BEFORE[2]]), 5)
    assert outcomes(results) == ["Indexed"]
    assert not slow.done()
    gate.set()
    await slow
    await rule.aclose()


async def test_current_is_the_newest_complete_revision(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await index(rule, store, [BEFORE[0]])
    with pytest.raises(Unavailable):
        await index(rule, FaultyStore(store, fail_at=3, moment="before"), [AFTER[0]])
    head = current((await store.held([id_of("shorter")]))[id_of("shorter")])
    assert head is not None
    assert head.version == 2
