"""Deleting containers by the commit rule: what goes, what stays, and what a failure leaves."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Unavailable
from common.rpc import Deadline
from indexer import containers
from indexer.containers import ContainerDeleted, ContainerDeletion, delete_containers
from indexer.pipeline import Deleted, Deletion
from indexer.reconcile import current
from indexer.target import Target
from tests.unit.indexer.corpus import document, id_of, index, outcomes, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from indexer.document import Document
    from indexer.pipeline import IndexPipeline
    from indexer.store import VectorStore

TABLE, LOG = "file:///table", "file:///log"
MOMENTS = ["before", "half", "after"]


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


def rows(numbers: range, version: int, *, container: str = TABLE, word: str = "") -> list[Document]:
    name = container.removeprefix("file:///")
    return [
        document(
            f"{name}#row={n}",
            version,
            sentences(n % 3 + 1, word or f"{name}{n}"),
            container=container,
        )
        for n in numbers
    ]


OTHERS = [*rows(range(4), 1, container=LOG), document("table", 1, sentences(2, "no container"))]


async def delete(
    rule: IndexPipeline,
    store: VectorStore,
    *deletions: ContainerDeletion,
    seconds: float = 60,
) -> list[ContainerDeleted]:
    return await delete_containers(rule, Target("store", store), deletions, Deadline.after(seconds))


async def versions(store: MemoryStore) -> dict[str, int]:
    """What is held completely: names and versions."""
    held = await store.held(await store.document_ids())
    heads = [head for chunks in held.values() if (head := current(chunks)) is not None]
    return {head.source_uri.removeprefix("file:///"): head.version for head in heads}


async def clean(rule: IndexPipeline, *batches: Sequence[Document]) -> dict[str, object]:
    store = MemoryStore()
    for batch in batches:
        await index(rule, store, batch)
    return store.snapshot()


async def test_a_sweep_deletes_the_older_versions_of_its_container_alone(
    rule: IndexPipeline,
) -> None:
    store = MemoryStore()
    await index(rule, store, [*rows(range(9), 1), *OTHERS])
    await index(rule, store, rows(range(3, 6), 2))
    assert await delete(rule, store, ContainerDeletion(TABLE, 1)) == [
        ContainerDeleted(6, complete=True)
    ]
    assert store.snapshot() == await clean(rule, rows(range(3, 6), 2), OTHERS)
    assert await delete(rule, store, ContainerDeletion(TABLE, 1)) == [
        ContainerDeleted(0, complete=True)
    ]


@pytest.mark.parametrize("version", [0, 2, 3])
async def test_all_that_is_not_newer_is_deleted_and_0_is_any(
    rule: IndexPipeline, version: int
) -> None:
    store = MemoryStore()
    await index(rule, store, [*rows(range(5), 1), *rows(range(5, 9), 2), *OTHERS])
    assert await delete(
        rule, store, ContainerDeletion("file:///absent"), ContainerDeletion(TABLE, version)
    ) == [ContainerDeleted(0, complete=True), ContainerDeleted(9, complete=True)]
    assert store.snapshot() == await clean(rule, OTHERS)


async def test_another_container_moves_in_place_and_the_old_one_lets_go(
    rule: IndexPipeline,
) -> None:
    store = FaultyStore(MemoryStore())
    before = document("x", 1, sentences(4, "x"), container=TABLE)
    for container in (LOG, ""):
        after = document("x", 1, sentences(4, "x"), container=container)
        await index(rule, store, [before])
        store.calls.clear()
        assert outcomes(await index(rule, store, [after])) == ["Unchanged"]
        assert store.calls == ["held", "move"]
        assert isinstance(store.inner, MemoryStore)
        assert store.inner.snapshot() == await clean(rule, [after])
        assert await delete(rule, store, ContainerDeletion(TABLE)) == [
            ContainerDeleted(0, complete=True)
        ]
        assert store.inner.snapshot() == await clean(rule, [after])


class _Racing(MemoryStore):
    """Somebody else indexes documents right after the container's were looked up."""

    def __init__(self, rule: IndexPipeline, documents: list[Document]) -> None:
        super().__init__()
        self.rule = rule
        self.documents = documents

    async def contained(self, container_uri: str, version: int, limit: int) -> list[str]:
        found = await super().contained(container_uri, version, limit)
        await index(self.rule, self, self.documents)
        return found


async def test_i4_a_document_indexed_anew_meanwhile_stays(rule: IndexPipeline) -> None:
    moved = document("table#row=2", 1, sentences(9, "moved"), container=LOG)
    newer = [*rows(range(1), 2), *rows(range(1, 2), 2, word="new"), moved]
    store = _Racing(rule, newer)
    await index(rule, store, rows(range(9), 1))
    assert await delete(rule, store, ContainerDeletion(TABLE, 1)) == [
        ContainerDeleted(6, complete=True)
    ]
    assert store.snapshot() == await clean(rule, newer)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("version", [0, 1])
async def test_i1_after_a_failure_at_any_store_call_a_repeat_ends_in_the_same_index(
    rule: IndexPipeline, moment: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_LOT_DOCUMENTS", 4)
    deletions = [ContainerDeletion(TABLE, version), ContainerDeletion(LOG, 1)]
    kept = rows(range(2), 2) if version else []
    expected = await clean(rule, kept, OTHERS[-1:])
    inner = MemoryStore()
    store = FaultyStore(inner)
    for call in itertools.count(1):
        inner = MemoryStore()
        await index(rule, inner, [*rows(range(9), 1), *OTHERS])
        await index(rule, inner, rows(range(2), 2))
        store = FaultyStore(inner, fail_at=call, moment=moment)
        try:
            await delete(rule, store, *deletions)
        except Unavailable:
            assert store.failed
        else:
            break
        heads = await inner.heads()
        assert set(heads) == {id_of(name) for name in await versions(inner)}, "a torn document"
        assert all(result.complete for result in await delete(rule, inner, *deletions))
        assert inner.snapshot() == expected, f"call {call} ({store.calls[-1]})"
    assert inner.snapshot() == expected
    assert set(store.calls) == {"contained", "held", "delete"}
    assert call >= 9


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_sweep_heals_what_a_failed_update_left(rule: IndexPipeline, moment: str) -> None:
    """Whatever was torn, one complete version stays of a document that has a newer one."""
    before, after = rows(range(6), 1), rows(range(6), 2, word="new")
    for call in itertools.count(1):
        store = MemoryStore()
        await index(rule, store, before)
        faulty = FaultyStore(store, fail_at=call, moment=moment)
        try:
            await index(rule, faulty, after)
        except Unavailable:
            pass
        else:
            break
        newest = await versions(store)
        (result,) = await delete(rule, store, ContainerDeletion(TABLE, 1))
        assert result == ContainerDeleted(sum(v == 1 for v in newest.values()), complete=True)
        assert await versions(store) == {n: v for n, v in newest.items() if v == 2}
        assert not await store.contained(TABLE, 1, 1)
        await index(rule, store, after)
        assert store.snapshot() == await clean(rule, after)
    assert call >= 5


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_a_failed_write_left_goes_with_a_deletion_up_to_its_version(
    rule: IndexPipeline, moment: str
) -> None:
    """A version below it leaves the same chunks alone: another indexer may be writing them."""
    left = 0
    for call in itertools.count(1):
        store = MemoryStore()
        await index(rule, store, [*rows(range(3), 1), *OTHERS])
        faulty = FaultyStore(store, fail_at=call, moment=moment)
        try:
            await index(rule, faulty, rows(range(6), 2, word="new"))
        except Unavailable:
            pass
        else:
            break
        await delete(rule, store, ContainerDeletion(TABLE, 1))
        left += len(await store.contained(TABLE, 0, 100))
        assert (await delete(rule, store, ContainerDeletion(TABLE, 2)))[0].complete
        assert store.snapshot() == await clean(rule, OTHERS)
    assert left or moment == "before"


async def test_a_document_half_moved_goes_whole(rule: IndexPipeline) -> None:
    store = MemoryStore()
    before = document("table#row=0", 1, sentences(5, "same"), container=TABLE)
    after = document("table#row=0", 2, sentences(5, "same"), container=TABLE)
    await index(rule, store, [before])
    with pytest.raises(Unavailable):
        await index(rule, FaultyStore(store, fail_at=2, moment="half"), [after])
    assert await delete(rule, store, ContainerDeletion(TABLE, 1)) == [
        ContainerDeleted(1, complete=True)
    ]
    assert not store.kept


class TestBounds:
    async def test_a_call_looks_at_so_many_documents_and_the_next_goes_on(
        self, rule: IndexPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(containers, "MAX_DOCUMENTS", 5)
        monkeypatch.setattr(containers, "_LOT_DOCUMENTS", 2)
        store = MemoryStore()
        await index(rule, store, [*rows(range(8), 1), *OTHERS])
        both = ContainerDeletion(TABLE), ContainerDeletion(LOG)
        assert await delete(rule, store, *both) == [
            ContainerDeleted(5, complete=False),
            ContainerDeleted(0, complete=False),
        ]
        assert await delete(rule, store, *both) == [
            ContainerDeleted(3, complete=True),
            ContainerDeleted(2, complete=False),
        ]
        assert await delete(rule, store, *both) == [
            ContainerDeleted(0, complete=True),
            ContainerDeleted(2, complete=True),
        ]
        assert store.snapshot() == await clean(rule, OTHERS[-1:])

    async def test_a_call_looks_at_so_many_chunks(
        self, rule: IndexPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(containers, "MAX_CHUNKS", 3)
        store = MemoryStore()
        await index(rule, store, rows(range(3), 1))  # tails first: 3 chunks of the last two
        assert await delete(rule, store, ContainerDeletion(TABLE)) == [
            ContainerDeleted(2, complete=False)
        ]
        assert await delete(rule, store, ContainerDeletion(TABLE)) == [
            ContainerDeleted(1, complete=True)
        ]
        assert not store.kept

    async def test_nothing_is_begun_after_the_deadline(self, rule: IndexPipeline) -> None:
        store = FaultyStore(MemoryStore())
        await index(rule, store, rows(range(3), 1))
        store.calls.clear()
        late = await delete(rule, store, ContainerDeletion(TABLE), seconds=-1)
        assert late == [ContainerDeleted(0, complete=False)]
        assert not store.calls


async def test_a_deletion_whose_caller_went_away_ends_before_others_have_its_documents(
    rule: IndexPipeline,
) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def delete(self, chunk_ids: Sequence[str]) -> None:
            reached.set()
            await gate.wait()
            await super().delete(chunk_ids)

    for deleting in ("container", "document"):
        store = Slow()
        await index(rule, store, rows(range(3), 1))
        target = Target("store", store)
        caller = asyncio.ensure_future(
            delete(rule, store, ContainerDeletion(TABLE))
            if deleting == "container"
            else rule.delete(target, [Deletion(d.key) for d in rows(range(3), 1)])
        )
        await asyncio.wait_for(reached.wait(), 5)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        again = rule.submit(target, rows(range(3), 1), asyncio.Event())
        gate.set()
        assert outcomes(await again) == ["Indexed"] * 3, "acknowledged by what was being deleted"
        assert await versions(store) == {f"table#row={n}": 1 for n in range(3)}
        gate.clear()
        reached.clear()


ROW = st.tuples(st.sampled_from("abc"), st.sampled_from([TABLE, LOG, ""]), st.integers(1, 3))
STEP = st.one_of(
    st.tuples(st.just("index"), st.lists(ROW, min_size=1, max_size=3, unique_by=lambda r: r[0])),
    st.tuples(st.just("sweep"), st.tuples(st.sampled_from([TABLE, LOG]), st.integers(0, 3))),
    st.tuples(st.just("delete"), st.tuples(st.sampled_from("abc"), st.integers(0, 3))),
)


@given(st.lists(STEP, max_size=12), st.integers(0, 30), st.sampled_from(MOMENTS))
@settings(max_examples=150, deadline=None)
def test_any_sequence_ends_as_a_dictionary_would(
    steps: list[tuple[str, object]], fail_at: int, moment: str
) -> None:
    """Each step is repeated after a failure."""

    async def scenario() -> None:
        rule, store = pipeline(slice_chunks=2), MemoryStore()
        faulty = FaultyStore(store, fail_at=fail_at, moment=moment)
        model: dict[str, tuple[int, str]] = {}
        for kind, drawn in steps:
            for _ in range(2):
                try:
                    await step(rule, faulty, kind, drawn)
                except Unavailable:
                    continue
                break
            advance(model, kind, drawn)
            held = await store.held(await store.document_ids())
            assert {
                chunk.source_uri.removeprefix("file:///"): (chunk.version, chunk.container_uri)
                for chunks in held.values()
                for chunk in chunks
            } == model
            assert all(current(chunks) is not None for chunks in held.values())
        await rule.aclose()

    asyncio.run(scenario())


async def step(rule: IndexPipeline, store: VectorStore, kind: str, drawn: object) -> None:
    match kind, drawn:
        case "index", list(states):
            await index(
                rule,
                store,
                [
                    document(name, version, sentences(version, name), container=container)
                    for name, container, version in states
                ],
            )
        case "sweep", (str(container), int(version)):
            assert (await delete(rule, store, ContainerDeletion(container, version)))[0].complete
        case "delete", (str(name), int(version)):
            await rule.delete(Target("store", store), [Deletion(id_of(name), version)])


def advance(model: dict[str, tuple[int, str]], kind: str, drawn: object) -> None:
    """The same step on names, with versions and containers."""
    match kind, drawn:
        case "index", list(states):
            for name, container, version in states:
                if model.get(name, (0, ""))[0] <= version:
                    model[name] = version, container
        case "sweep", (container, int(version)):
            for name, (held, where) in list(model.items()):
                if where == container and (not version or held <= version):
                    del model[name]
        case "delete", (str(name), int(version)):
            if name in model and (not version or model[name][0] <= version):
                del model[name]


async def test_a_deletion_by_id_still_tells_what_it_found(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await index(rule, store, rows(range(1), 1))
    target = Target("store", store)
    deletions = [Deletion(id_of("table#row=0"), 1), Deletion(id_of("absent"))]
    assert await rule.delete(target, deletions) == [Deleted(found=True), Deleted(found=False)]
