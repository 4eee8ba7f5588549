"""Each fault, made in Chroma itself by deleting and writing chunks, is found as what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from common import records
from common.identity import chunk_id
from indexer import store as stores
from indexer.faults import Fault, FaultKind
from indexer.store import ChromaVectorStore
from indexer.verification import verify
from tests.unit.indexer.broken_documents import FAULTS, record, write
from tests.unit.indexer.corpus import document, id_of, index, pipeline, sentences

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from common.chroma import Chroma, ChromaCollection
    from common.records import MetadataValue
    from indexer.pipeline import IndexPipeline

NAMES = ["a", "b", "c"]
OTHER = "f" * 16


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


@pytest.fixture
async def collection(chroma: Chroma, rule: IndexPipeline) -> ChromaCollection:
    """Three whole documents of three chunks."""
    made = await chroma.create_collection("default.docs.v000002")
    documents = [document(name, 1, sentences(3, name), container="file:///box") for name in NAMES]
    await index(rule, ChromaVectorStore(made), documents)
    return made


async def ids(collection: ChromaCollection, name: str = "b") -> list[str]:
    return sorted(await ChromaVectorStore(collection).ids_of([id_of(name)]))


async def copy(
    collection: ChromaCollection, source: str, id_: str, **changed: MetadataValue
) -> None:
    """Write a chunk anew under another id, its metadata changed."""
    found = await collection.get(ids=[source])
    assert found.metadatas is not None
    await collection.upsert(
        ids=[id_],
        embeddings=np.ones((1, 16), np.float32),
        documents=["a secret text"],
        metadatas=[found.metadatas[0] | changed],
    )


async def behead(collection: ChromaCollection) -> None:
    await collection.delete((await ids(collection))[:1])


async def take_a_tail(collection: ChromaCollection) -> None:
    await collection.delete((await ids(collection))[1:2])


async def add_a_headless_chunk(collection: ChromaCollection) -> None:
    first = (await ids(collection))[0]
    await copy(collection, first, chunk_id(id_of("b"), OTHER, 1), **{records.VERSION: 2})


async def add_an_ordinal_beyond_the_last(collection: ChromaCollection) -> None:
    last = (await ids(collection))[2]
    await copy(collection, last, last[:-1] + "3")


async def add_a_newer_complete_revision(collection: ChromaCollection) -> None:
    first = (await ids(collection))[0]
    changed: dict[str, MetadataValue] = {records.VERSION: 2, records.CHUNK_COUNT: 1}
    changed[records.CONTAINER] = "file:///new"
    await copy(collection, first, chunk_id(id_of("b"), OTHER, 0), **changed)


async def change_the_metadata_of_one_chunk(collection: ChromaCollection) -> None:
    await collection.update_metadata((await ids(collection))[2:], [{"year": 2020}])


async def change_the_version_of_the_tails(collection: ChromaCollection) -> None:
    await collection.update_metadata((await ids(collection))[1:], [{records.VERSION: 2}] * 2)


def fault(kind: FaultKind, surplus: int = 0, container: str = "file:///box") -> Fault:
    return Fault(id_of("b"), "file:///b", container, kind, surplus)


@pytest.mark.parametrize(
    ("harm", "expected", "complete", "chunks"),
    [
        (behead, fault(FaultKind.INCOMPLETE, 2), 2, 8),
        (take_a_tail, fault(FaultKind.INCOMPLETE), 2, 8),
        (add_a_headless_chunk, fault(FaultKind.SURPLUS, 1), 3, 10),
        (add_an_ordinal_beyond_the_last, fault(FaultKind.SURPLUS, 1), 3, 10),
        (add_a_newer_complete_revision, fault(FaultKind.SURPLUS, 3, "file:///new"), 3, 10),
        (change_the_metadata_of_one_chunk, fault(FaultKind.DIVERGED), 3, 9),
        (change_the_version_of_the_tails, fault(FaultKind.DIVERGED), 3, 9),
    ],
)
async def test_each_fault_is_found_with_its_source_and_nothing_else_is(
    collection: ChromaCollection,
    harm: Callable[[ChromaCollection], Awaitable[None]],
    expected: Fault,
    complete: int,
    chunks: int,
) -> None:
    store = ChromaVectorStore(collection)
    clean = await verify(store, record(), expected_documents=3)
    assert clean.verdict.passed
    assert (clean.documents, clean.chunks, clean.faults) == (3, 9, ())
    await harm(collection)
    found = await verify(store, record())
    assert found.faults == (expected,)
    assert (found.documents, found.chunks) == (complete, chunks)
    assert found.verdict.findings == (str(expected),)
    assert not found.verdict.passed


@pytest.mark.parametrize("page_ids", [1, 4, 20_000])
async def test_what_crashes_leave_is_found_whatever_the_pages(
    chroma: Chroma, rule: IndexPipeline, page_ids: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_PAGE_IDS", page_ids)
    store = ChromaVectorStore(await chroma.create_collection("default.docs.v000003"))
    await write(rule, store)
    found = await verify(store, record(), expected_documents=5)
    assert sorted(found.faults, key=str) == sorted(FAULTS.values(), key=str)
    assert (found.documents, found.chunks) == (5, await store.count())
