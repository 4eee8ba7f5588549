"""What every vector store must do, shown on Chroma and on the one in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.errors import NotFound
from common.identity import parse_chunk_id
from common.word_parts import WordParts
from indexer.chunking import Chunk
from indexer.document import Document
from indexer.nodes import Attributes, ChunkRecord, chunk_record
from indexer.store import ChromaCatalog, ChromaVectorStore
from tests.unit.indexer.stores import MemoryCatalog, MemoryStore

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
    container_uri: str = "",
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
        container_uri=container_uri,
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


async def pages(store: VectorStore) -> list[str]:
    return [id_ async for page in store.pages() for id_ in page]


async def test_pages_hold_every_chunk(store: VectorStore) -> None:
    assert await pages(store) == []
    written = [*chunks(ONE, A, 3), *chunks(TWO, B, 2)]
    await write(store, written)
    await write(store, written[:2])
    assert sorted(await pages(store)) == sorted(chunk.id for chunk in written)


async def test_chunks_that_are_deleted_or_changed_between_pages_hide_no_other(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.store._PAGE_IDS", 10)
    if isinstance(store, MemoryStore):
        store.page_ids = 10
    first, second, third = (chunks(digit, A, 20, metadata={}) for digit in (ONE, TWO, THREE))
    for written in (first, second, third):
        await write(store, written)
    seen: list[str] = []
    number = 0
    async for page in store.pages():
        assert len(page) <= 10
        seen += page
        if number == 0:
            await store.delete([chunk.id for chunk in [*first[:4], *third[:4]]])
            await store.delete([chunk.id for chunk in second[::5]])
        if number == 1:
            await write(store, [*first[4:6], *chunks(ONE, B, 3)])
            await store.move([(first[7].id, Attributes(2, "file:///x", {}, "file:///c"))])
        number += 1
    kept = [*first[4:], *(c for n, c in enumerate(second) if n % 5), *third[4:]]
    assert {chunk.id for chunk in kept} <= set(seen)


async def test_chunks_and_ids_are_read_as_asked(store: VectorStore) -> None:
    written = [*chunks(ONE, A, 3), *chunks(TWO, B, 2), *chunks(THREE, A, 1)]
    await write(store, written)
    absent = chunks(ONE, B, 1)[0].id
    asked = [written[1].id, absent, written[3].id]
    found = {chunk.id: chunk for chunk in await store.chunks(asked)}
    assert set(found) == {written[1].id, written[3].id}
    assert found[written[1].id] in (await store.held([ONE]))[ONE]
    assert await store.chunks([]) == []
    assert sorted(await store.ids_of([ONE, THREE, "4" * 32])) == sorted(
        chunk.id for chunk in [*written[:3], written[5]]
    )


class TestContained:
    NEW = 2**53 + 1
    CONTAINER = "file:///table é"

    @pytest.fixture(params=["few", "many"], autouse=True)
    def _ways(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "many":
            monkeypatch.setattr("indexer.store._FEW_CHUNKS", 2)

    async def test_a_container_s_chunks_up_to_a_version(self, store: VectorStore) -> None:
        old = chunks(ONE, A, 3, version=self.NEW - 1, container_uri=self.CONTAINER)
        new = chunks(TWO, A, 2, version=self.NEW, container_uri=self.CONTAINER)
        for written in (old, new, chunks(THREE, A, 2), chunks("4" * 32, A, 1, container_uri="c")):
            await write(store, written)

        async def contained(version: int, limit: int = 99) -> set[str]:
            return set(await store.contained(self.CONTAINER, version, limit))

        every = {chunk.id for chunk in [*old, *new]}
        assert await contained(0) == every
        assert await contained(self.NEW) == every
        assert await contained(self.NEW - 1) == {chunk.id for chunk in old}
        assert await contained(self.NEW - 2) == set()
        for version in (0, self.NEW - 1):
            some = await contained(version, 2)
            assert len(some) == 2
            assert some < await contained(version)
        assert await store.contained("file:///absent", 0, 9) == []

    async def test_moving_changes_and_removes_it(self, store: VectorStore) -> None:
        written = chunks(ONE, A, 3, container_uri=self.CONTAINER)
        await write(store, written)
        for container in ("file:///other", "", self.CONTAINER):
            moved = Attributes(2, "file:///x", {}, container)
            await store.move([(chunk.id, moved) for chunk in written])
            (held,) = (await store.held([ONE])).values()
            assert {chunk.container_uri for chunk in held} == {container}
            assert {chunk.attributes for chunk in held} == {moved.digest}
            assert bool(await store.contained(self.CONTAINER, 0, 9)) == (
                container == self.CONTAINER
            )


async def test_words_are_titles_and_texts_of_what_is_held(store: VectorStore) -> None:
    written = chunks(ONE, A, 3)
    await write(store, written)
    found = await store.words([*(chunk.id for chunk in written[1:]), f"{TWO}:{A}:0"])
    assert sorted(found) == [(chunk.id, "Title", chunk.text) for chunk in written[1:]]


async def test_a_store_goes_with_the_tables_of_its_words(chroma: Chroma) -> None:
    catalog = ChromaCatalog(chroma)
    await catalog.create("default.docs.v000001")
    await WordParts(chroma).write("default.docs.v000001", "t", b"table")
    await catalog.create("default.docs.v000002")
    assert len(await chroma.collections()) == 3
    await catalog.delete("default.docs.v000001")
    assert await chroma.collections() == ["default.docs.v000002"]


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
