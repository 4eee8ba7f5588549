"""What every vector store must do, shown on Chroma and on the one in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.errors import NotFound
from common.identity import parse_chunk_id
from indexer.chunking import Chunk
from indexer.document import Document
from indexer.nodes import Attributes, ChunkRecord, chunk_record
from indexer.store import ChromaCatalog, ChromaVectorStore
from tests.unit.indexer.stores import MemoryCatalog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.chroma import Chroma
    from common.records import MetadataValue
    from indexer.store import StoreCatalog, VectorStore

ONE, TWO, THREE = (digit * 32 for digit in "123")
A, B = "a" * 16, "b" * 16
METADATA: dict[str, MetadataValue] = {
    "lang": "en",
    "year": 2020,
    "weight": 0.5,
    "zero": -0.0,
    "draft": False,
    "tags": ["b", "a", "b"],
}


@pytest.fixture(params=["chroma", "memory"])
def catalog(request: pytest.FixtureRequest) -> StoreCatalog:
    if request.param == "memory":
        return MemoryCatalog()
    chroma: Chroma = request.getfixturevalue("chroma")
    return ChromaCatalog(chroma)


@pytest.fixture
async def store(catalog: StoreCatalog) -> VectorStore:
    return await catalog.create("default.docs.v000001")


def chunks(
    document_id: str,
    revision: str,
    count: int,
    *,
    version: int = 1,
    metadata: Mapping[str, MetadataValue] = METADATA,
) -> list[ChunkRecord]:
    document = Document(
        document_id=document_id,
        source_uri=f"file:///{document_id}",
        version=version,
        media_type="text/plain",
        title="Title",
        content="",
        content_digest="",
        metadata=metadata,
        pages=(),
    )
    return [
        chunk_record(document, revision, Chunk(n, f"text {n} 🙂\x00", n, n + 9, n + 1), count)
        for n in range(count)
    ]


async def write(store: VectorStore, written: list[ChunkRecord]) -> None:
    vectors = np.random.default_rng(7).random((len(written), 8), np.float32)
    await store.write(written, vectors)


async def ids(store: VectorStore, *document_ids: str) -> set[str]:
    held = await store.held(document_ids)
    return {chunk.id for found in held.values() for chunk in found}


async def test_what_is_written_is_held(store: VectorStore) -> None:
    written = chunks(ONE, A, 3, version=2**53 + 1)
    await write(store, written)
    await write(store, chunks(TWO, A, 1))
    held = await store.held([ONE, THREE])
    assert set(held) == {ONE}
    attributes = Attributes(2**53 + 1, f"file:///{ONE}", METADATA)
    found = sorted(held[ONE], key=lambda chunk: chunk.ordinal)
    assert [chunk.id for chunk in found] == [chunk.id for chunk in written]
    for ordinal, chunk in enumerate(found):
        assert (chunk.revision, chunk.ordinal, chunk.chunk_count) == (A, ordinal, 3)
        assert (chunk.version, chunk.source_uri) == (2**53 + 1, f"file:///{ONE}")
        assert chunk.attributes == attributes.digest
    assert await store.count() == 4
    assert await store.held([]) == {}


async def test_writing_replaces_chunks_of_equal_id(store: VectorStore) -> None:
    await write(store, chunks(ONE, A, 2, version=1))
    await write(store, chunks(ONE, A, 2, version=2))
    assert {chunk.version for chunk in (await store.held([ONE]))[ONE]} == {2}
    assert await store.count() == 2


async def test_moving_changes_version_and_metadata_of_these_chunks_only(
    store: VectorStore,
) -> None:
    await write(store, chunks(ONE, A, 3))
    absent = chunks(TWO, A, 1)[0].id
    moved = Attributes(9, "file:///elsewhere", {"lang": "de", "new": True})
    some = [chunk.id for chunk in chunks(ONE, A, 3)[:2]]
    await store.move([(id_, moved) for id_ in [*some, absent]])
    held = {chunk.id: chunk for chunk in (await store.held([ONE]))[ONE]}
    for id_, chunk in held.items():
        if id_ in some:
            assert (chunk.version, chunk.source_uri) == (9, "file:///elsewhere")
            assert chunk.attributes == moved.digest
        else:
            assert (chunk.version, chunk.source_uri) == (1, f"file:///{ONE}")
    assert await store.count() == 3
    # moved and written anew are one and the same
    await store.move([(chunks(ONE, A, 3)[2].id, moved)])
    before = {chunk.attributes for chunk in (await store.held([ONE]))[ONE]}
    assert before == {moved.digest}


async def test_deleting_removes_these_chunks_and_takes_absent_ones(store: VectorStore) -> None:
    await write(store, chunks(ONE, A, 3))
    await write(store, chunks(ONE, B, 2))
    old = [chunk.id for chunk in chunks(ONE, A, 3)]
    await store.delete(old)
    assert await ids(store, ONE) == {chunk.id for chunk in chunks(ONE, B, 2)}
    await store.delete(old)
    await store.delete([])
    assert await store.count() == 2


async def test_heads_and_documents_are_told_apart(store: VectorStore) -> None:
    await write(store, chunks(ONE, A, 2))
    await write(store, chunks(ONE, B, 1))
    await write(store, chunks(TWO, A, 3)[1:])
    assert await store.heads() == [ONE]
    assert sorted(await store.document_ids()) == [ONE, TWO]


async def test_many_documents_and_many_chunks_are_held_in_full(store: VectorStore) -> None:
    documents = [f"{n:032x}" for n in range(600)]
    small: list[ChunkRecord] = [
        chunk for document_id in documents for chunk in chunks(document_id, A, 1, metadata={})
    ]
    await write(store, small)
    await write(store, chunks(ONE, A, 4500, metadata={}))
    held = await store.held([*documents, ONE])
    assert len(held) == 601
    assert len(held[ONE]) == 4500
    assert {parse_chunk_id(chunk.id).ordinal for chunk in held[ONE]} == set(range(4500))


async def test_a_catalog_opens_what_it_made_and_forgets_what_it_deleted(
    catalog: StoreCatalog,
) -> None:
    with pytest.raises(NotFound):
        await catalog.open("default.docs.v000001")
    await write(await catalog.create("default.docs.v000001"), chunks(ONE, A, 1))
    assert await (await catalog.create("default.docs.v000001")).count() == 1
    assert await (await catalog.open("default.docs.v000001")).count() == 1
    await catalog.delete("default.docs.v000001")
    await catalog.delete("default.docs.v000001")
    with pytest.raises(NotFound):
        await catalog.open("default.docs.v000001")


class TestOrder:
    """Heads become durable last and go first, each in a request of its own."""

    async def test_on_chroma(self, chroma: Chroma, monkeypatch: pytest.MonkeyPatch) -> None:
        collection = await chroma.create_collection("default.docs.v000001")
        requests: list[tuple[str, list[int]]] = []
        for name in ("upsert", "update_metadata", "delete"):
            original = getattr(collection, name)

            async def recorded(
                *args: object, _name: str = name, _call: object = original, **kwargs: object
            ) -> None:
                wanted = kwargs["ids"] if "ids" in kwargs else args[0]
                assert isinstance(wanted, list)
                requests.append((_name, sorted(parse_chunk_id(id_).ordinal for id_ in wanted)))
                assert callable(_call)
                await _call(*args, **kwargs)

            monkeypatch.setattr(collection, name, recorded)
        store = ChromaVectorStore(collection)
        written = chunks(ONE, A, 3) + chunks(TWO, A, 2)
        await write(store, written)
        await store.move([(c.id, Attributes(2, "file:///x", {})) for c in written])
        await store.delete([chunk.id for chunk in written])
        assert requests == [
            ("upsert", [1, 1, 2]),
            ("upsert", [0, 0]),
            ("update_metadata", [1, 1, 2]),
            ("update_metadata", [0, 0]),
            ("delete", [0, 0]),
            ("delete", [1, 1, 2]),
        ]
