"""Many documents of one file over the wire and on Chroma: indexed, swept, listed and deleted."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import Unavailable
from common.identity import document_id
from common.rpc import Deadline
from indexer.containers import ContainerDeletion, delete_containers
from indexer.store import ChromaVectorStore
from indexer.target import Target
from sluice.collections.v1 import collections_pb2
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2
from tests.unit.indexer.corpus import document as small
from tests.unit.indexer.corpus import id_of, index, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore

if TYPE_CHECKING:
    from common.chroma import Chroma, ChromaCollection
    from tests.integration.indexer.conftest import Running

TABLE, LOG = "hdfs://lake/table.parquet", "hdfs://lake/day.log"

# A document as the tests see it: source URI to (version, container).
Held: TypeAlias = dict[str, tuple[int, str]]


def rows(container: str, numbers: range, version: int) -> list[document_pb2.Document]:
    return [
        document_pb2.Document(
            source_uri=f"{container}#row={n}",
            container_uri=container,
            version=version,
            content=f"row {n} of {container} has words of its own. " * (n % 3 + 1),
        )
        for n in numbers
    ]


async def send(
    running: Running, documents: list[document_pb2.Document], collection: str = "docs"
) -> set[int]:
    """Index in batches; the outcomes."""
    batches = [documents[n : n + 50] for n in range(0, len(documents), 50)]
    return {ack.outcome for ack in await running.send(*batches, collection=collection)}


async def held(running: Running, prefix: str = "", collection: str = "docs") -> Held:
    request = index_pb2.ListDocumentsRequest(collection=collection, source_uri_prefix=prefix)
    listed = [
        document
        async for response in running.index.ListDocuments(request)
        for document in response.documents
    ]
    found = {d.source_uri: (d.version, d.container_uri) for d in listed}
    assert len(found) == len(listed), "a document twice"
    return found


async def delete(
    running: Running, *containers: tuple[str, int], collection: str = "docs", timeout_s: float = 30
) -> list[tuple[str, int, bool]]:
    request = index_pb2.DeleteDocumentsRequest(
        collection=collection,
        containers=[
            index_pb2.ContainerDeletion(container_uri=uri, version=version)
            for uri, version in containers
        ],
    )
    response = await running.index.DeleteDocuments(request, timeout=timeout_s)
    return [(r.container_uri, r.deleted, r.complete) for r in response.container_results]


def expected(container: str, numbers: range, version: int) -> Held:
    return {f"{container}#row={n}": (version, container) for n in numbers}


async def test_two_containers_are_indexed_swept_listed_and_deleted(running: Running) -> None:
    await running.create()
    first = [*rows(TABLE, range(200), 1), *rows(LOG, range(100), 1)]
    alone = document_pb2.Document(source_uri=TABLE, version=1, content="no row but the file")
    assert await send(running, [*first, alone]) == {index_pb2.OUTCOME_INDEXED}
    assert await held(running, f"{LOG}#") == expected(LOG, range(100), 1)
    assert len(await held(running)) == 301

    # The next state has fewer rows; those that stay are moved to its version in place.
    assert await send(running, rows(TABLE, range(40, 190), 2)) == {index_pb2.OUTCOME_UNCHANGED}
    assert await delete(running, (TABLE, 1), ("hdfs://lake/absent", 1)) == [
        (TABLE, 50, True),
        ("hdfs://lake/absent", 0, True),
    ]
    assert await held(running) == {
        TABLE: (1, ""),
        **expected(TABLE, range(40, 190), 2),
        **expected(LOG, range(100), 1),
    }
    assert await delete(running, (LOG, 1), (TABLE, 1)) == [(LOG, 100, True), (TABLE, 0, True)]
    assert await held(running) == {TABLE: (1, ""), **expected(TABLE, range(40, 190), 2)}
    assert await delete(running, (TABLE, 0)) == [(TABLE, 150, True)]
    assert await held(running) == {TABLE: (1, "")}
    collection = await running.chroma.collection("default.docs.v000001")
    assert {m["source_uri"] for m in (await collection.get()).metadatas or []} == {TABLE}


async def test_documents_and_containers_go_in_one_call(running: Running) -> None:
    await running.create()
    await send(running, [*rows(TABLE, range(3), 4), *rows(LOG, range(3), 4)])
    one = document_id(f"{LOG}#row=1")
    response = await running.index.DeleteDocuments(
        index_pb2.DeleteDocumentsRequest(
            collection="docs",
            documents=[index_pb2.DocumentDeletion(document_id=one, version=4)],
            containers=[index_pb2.ContainerDeletion(container_uri=TABLE, version=4)],
        )
    )
    assert [(r.document_id, r.outcome) for r in response.results] == [
        (one, index_pb2.DELETION_OUTCOME_DELETED)
    ]
    assert [(r.deleted, r.complete) for r in response.container_results] == [(3, True)]
    assert set(await held(running)) == {f"{LOG}#row=0", f"{LOG}#row=2"}


async def test_a_large_container_is_deleted_in_steps(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.containers.MAX_DOCUMENTS", 40)
    monkeypatch.setattr("indexer.containers._LOT_DOCUMENTS", 16)
    await running.create()
    await send(running, rows(TABLE, range(100), 1))
    steps = [await delete(running, (TABLE, 1)) for _ in range(3)]
    assert steps == [[(TABLE, 40, False)], [(TABLE, 40, False)], [(TABLE, 20, True)]]
    assert await held(running) == {}


async def test_a_listing_ends_at_its_deadline_and_comes_in_bounded_messages(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.index_service.LISTED_BYTES", 4096)
    monkeypatch.setattr("indexer.store._PAGE_IDS", 64)
    await running.create()
    await send(running, rows(TABLE, range(150), 1))
    request = index_pb2.ListDocumentsRequest(collection="docs")
    responses = [response async for response in running.index.ListDocuments(request)]
    assert sum(len(response.documents) for response in responses) == 150
    assert len(responses) > 4
    assert max(response.ByteSize() for response in responses) <= 4096 + 3 * 150
    monkeypatch.setattr("indexer.index_service.LISTING_TIMEOUT_S", 0.0)
    with pytest.raises(grpc.aio.AioRpcError, match="next page of the listing") as failure:
        async for _ in running.index.ListDocuments(request):
            pass
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def content(collection: ChromaCollection) -> dict[str, object]:
    found = await collection.get(include=("metadatas", "documents"))
    return dict(
        zip(found.ids, zip(found.documents or (), found.metadatas or (), strict=True), strict=True)
    )


@pytest.mark.parametrize("moment", ["before", "half", "after"])
async def test_after_a_failure_at_any_call_a_repeat_ends_in_the_same_index(
    chroma: Chroma, moment: str
) -> None:
    rule = pipeline()
    old = [small(f"{n}", 1, sentences(3, f"{n}"), container=TABLE) for n in range(4)]
    new = [small(f"{n}", 2, sentences(2, f"new {n}"), container=TABLE) for n in range(2)]
    clean = await chroma.create_collection("default.clean.v000001")
    await index(rule, ChromaVectorStore(clean), new)
    collection, store = clean, ChromaVectorStore(clean)
    faulty = FaultyStore(store)
    for call in itertools.count(1):
        collection = await chroma.create_collection(f"default.docs.v{call:06d}")
        store = ChromaVectorStore(collection)
        await index(rule, store, old)
        await index(rule, store, new)
        faulty = FaultyStore(store, fail_at=call, moment=moment)
        sweep, deadline = [ContainerDeletion(TABLE, 1)], Deadline.after(60)
        try:
            await delete_containers(rule, Target("docs", faulty), sweep, deadline)
        except Unavailable:
            assert faulty.failed
        else:
            break
        await delete_containers(rule, Target("docs", store), sweep, deadline)
        assert await content(collection) == await content(clean)
    assert await content(collection) == await content(clean)
    assert faulty.calls == ["contained", "held", "delete"]
    assert set(await store.heads()) == {id_of("0"), id_of("1")}
    await rule.aclose()


@dataclass(frozen=True)
class Index:
    states: list[tuple[int, str, int]]  # number, container, version


@dataclass(frozen=True)
class Sweep:
    container: str
    version: int


@dataclass(frozen=True)
class Delete:
    number: int
    version: int


STATE = st.tuples(st.integers(0, 4), st.sampled_from([TABLE, LOG, ""]), st.integers(1, 3))
STATES = st.lists(STATE, min_size=1, max_size=5, unique_by=lambda state: state[0])
STEPS = st.lists(
    st.one_of(
        st.builds(Index, STATES),
        st.builds(Sweep, st.sampled_from([TABLE, LOG]), st.integers(0, 3)),
        st.builds(Delete, st.integers(0, 4), st.integers(0, 3)),
    ),
    max_size=8,
)
_examples = itertools.count()


@given(STEPS)
@settings(
    max_examples=15,
    deadline=None,
    # Each example has a collection of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_sequence_ends_as_a_dictionary_would(
    running: Running, steps: list[Index | Sweep | Delete]
) -> None:
    name = f"c{next(_examples)}"
    await running.collections.CreateCollection(
        collections_pb2.CreateCollectionRequest(collection=name)
    )
    model: Held = {}
    for step in steps:
        match step:
            case Index(states):
                await send(running, [state(*drawn) for drawn in states], name)
                for number, container, version in states:
                    if model.get(uri(number), (0, ""))[0] <= version:
                        model[uri(number)] = version, container
            case Sweep(container, version):
                ((_, deleted, complete),) = await delete(
                    running, (container, version), collection=name
                )
                gone = [u for u, (v, c) in model.items() if c == container and v <= (version or v)]
                assert (deleted, complete) == (len(gone), True)
                for doomed in gone:
                    del model[doomed]
            case Delete(number, version):
                deletion = index_pb2.DocumentDeletion(
                    document_id=document_id(uri(number)), version=version
                )
                await running.index.DeleteDocuments(
                    index_pb2.DeleteDocumentsRequest(collection=name, documents=[deletion])
                )
                if model.get(uri(number), (0, ""))[0] <= (version or 9):
                    model.pop(uri(number), None)
        assert await held(running, collection=name) == model
    verified = await running.collections.VerifyVersion(
        collections_pb2.VerifyVersionRequest(
            collection=name, index_version=1, expected_documents=len(model)
        )
    )
    assert list(verified.findings) == []


def uri(number: int) -> str:
    return f"file:///{number}"


def state(number: int, container: str, version: int) -> document_pb2.Document:
    # Versions 1 and 2 differ in nothing but their version.
    text = f"document {number} in state {max(version, 2)}. " * number * 4
    return document_pb2.Document(
        source_uri=uri(number),
        container_uri=container,
        version=version,
        content=text or "short",
    )
