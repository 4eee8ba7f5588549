"""The seam to the vector store, as the indexer uses it, and Chroma behind it.

A store knows the layout of records and the order in which they become durable: a head, the chunk of
ordinal 0, is written and moved after everything else and deleted before it. So at any moment a head
in the store means that its revision is complete. It decides nothing: ``indexer.reconcile`` does.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

from common import records
from common.identity import parse_chunk_id
from common.word_parts import words_collection
from indexer.nodes import Attributes, ChunkRecord, attributes_digest, moved
from indexer.reconcile import HeldChunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from common.chroma import Chroma, ChromaCollection
    from common.records import MetadataValue

T = TypeVar("T")

# Documents asked for at once, records read at once and ids read at once.
_FILTER_DOCUMENTS = 256
_PAGE_RECORDS = 4096
_PAGE_IDS = 20_000
# Chunks of a container up to which reading them all is cheaper than a filter on the version.
_FEW_CHUNKS = 1000


class ChunkWords(NamedTuple):
    """What of a chunk has words; both are fixed with its id."""

    id: str
    title: str
    text: str


class VectorStore(Protocol):
    """The chunks of one index version. What a method has returned from is durable."""

    async def held(self, document_ids: Sequence[str]) -> Mapping[str, tuple[HeldChunk, ...]]:
        """What is held of these documents; those of which nothing is held are left out."""
        ...

    async def write(self, chunks: Sequence[ChunkRecord], vectors: NDArray[np.float32]) -> None:
        """Write chunks that are not held: heads only once the others are durable.

        Of a chunk that is held, text and vector are replaced; whether metadata that it has no more
        stay is the store's own affair (Chroma merges them).

        Args:
            chunks: n records of different ids.
            vectors: shape (n, dimension).
        """
        ...

    async def move(self, changes: Sequence[tuple[str, Attributes]]) -> None:
        """Give chunks, by id, another version and metadata: heads last, as in ``write``.

        Chunks that are not held are left out.
        """
        ...

    async def delete(self, chunk_ids: Sequence[str]) -> None:
        """Delete chunks, heads first; those that are not held are fine."""
        ...

    async def heads(self) -> list[str]:
        """Ids of the documents that have a head, each once, read at one moment."""
        ...

    async def document_ids(self) -> list[str]:
        """Ids of all documents of which anything is held, each once."""
        ...

    def pages(self) -> AsyncGenerator[list[str], None]:
        """Ids of all chunks, at most 20,000 at a time, in no promised order.

        A chunk that is there all the time is never left out, whatever is deleted meanwhile; it may
        then come twice. Chunks written meanwhile may be missed.
        """
        ...

    async def chunks(self, chunk_ids: Sequence[str]) -> list[HeldChunk]:
        """What is held of these at most 1,000 chunks, in no promised order."""
        ...

    async def words(self, chunk_ids: Sequence[str]) -> list[ChunkWords]:
        """Titles and texts of those of these at most 1,000 chunks that are held, in no order."""
        ...

    async def ids_of(self, document_ids: Sequence[str]) -> list[str]:
        """Ids of all chunks held of these at most 1,000 documents, read at one moment."""
        ...

    async def contained(self, container_uri: str, version: int, limit: int) -> list[str]:
        """Ids of at most ``limit`` chunks of a container, of this version or older; 0 is any."""
        ...

    async def count(self) -> int:
        """Number of chunks."""
        ...


class StoreCatalog(Protocol):
    """The stores of all index versions, by ``VersionRecord.store_collection``."""

    async def create(self, name: str) -> VectorStore:
        """Open a store; make it if it is not there."""
        ...

    async def open(self, name: str) -> VectorStore:
        """Open a store that is there; NotFound otherwise."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a store and the tables of its words; one that is not there is fine."""
        ...


class ChromaCatalog:
    """Stores kept by Chroma, a collection each."""

    def __init__(self, chroma: Chroma) -> None:
        self._chroma = chroma

    async def create(self, name: str) -> VectorStore:
        """Open a store; make it if it is not there."""
        return ChromaVectorStore(await self._chroma.create_collection(name))

    async def open(self, name: str) -> VectorStore:
        """Open a store that is there; NotFound otherwise."""
        return ChromaVectorStore(await self._chroma.collection(name))

    async def delete(self, name: str) -> None:
        """Delete a store and the tables of its words; one that is not there is fine."""
        await self._chroma.delete_collection(words_collection(name))
        await self._chroma.delete_collection(name)


class ChromaVectorStore:
    """One Chroma collection. Not LlamaIndex's class of this name: see docs/adr/0004."""

    def __init__(self, collection: ChromaCollection) -> None:
        self._collection = collection

    async def held(self, document_ids: Sequence[str]) -> Mapping[str, tuple[HeldChunk, ...]]:
        """What is held of these documents: one read for 256 documents of 16 chunks each."""
        found: dict[str, list[HeldChunk]] = defaultdict(list)
        for wanted in batched(document_ids, _FILTER_DOCUMENTS):
            where = {records.DOCUMENT_ID: {"$in": wanted}}
            offset = 0
            while True:
                page = await self._collection.get(where=where, limit=_PAGE_RECORDS, offset=offset)
                for id_, metadata in zip(page.ids, page.metadatas or (), strict=True):
                    found[parse_chunk_id(id_).document_id].append(held_chunk(id_, metadata))
                offset += len(page.ids)
                if len(page.ids) < _PAGE_RECORDS:
                    break
        return {document_id: tuple(chunks) for document_id, chunks in found.items()}

    async def write(self, chunks: Sequence[ChunkRecord], vectors: NDArray[np.float32]) -> None:
        """Write chunks that are not held: heads only once the others are durable."""
        for part in heads_last([chunk.ordinal for chunk in chunks]):
            if part:
                await self._collection.upsert(
                    ids=[chunks[index].id for index in part],
                    embeddings=vectors[part],
                    documents=[chunks[index].text for index in part],
                    metadatas=[chunks[index].metadata for index in part],
                )

    async def move(self, changes: Sequence[tuple[str, Attributes]]) -> None:
        """Give chunks, by id, another version and metadata: heads last, as in ``write``."""
        for part in heads_last([parse_chunk_id(id_).ordinal for id_, _ in changes]):
            for some in batched(part, _PAGE_RECORDS):
                attributes = dict(changes[index] for index in some)
                page = await self._collection.get(ids=list(attributes))
                metadatas = [
                    moved(id_, stored, attributes[id_])
                    for id_, stored in zip(page.ids, page.metadatas or (), strict=True)
                ]
                if page.ids:
                    await self._collection.update_metadata(page.ids, metadatas)

    async def delete(self, chunk_ids: Sequence[str]) -> None:
        """Delete chunks, heads first; those that are not held are fine."""
        others, heads = heads_last([parse_chunk_id(id_).ordinal for id_ in chunk_ids])
        for part in (heads, others):
            if part:
                await self._collection.delete([chunk_ids[index] for index in part])

    async def heads(self) -> list[str]:
        """Ids of the documents that have a head, each once, read at one moment."""
        page = await self._collection.get(where={records.ORDINAL: 0}, include=())
        return list(dict.fromkeys(parse_chunk_id(id_).document_id for id_ in page.ids))

    async def document_ids(self) -> list[str]:
        """Ids of all documents of which anything is held, each once."""
        found: dict[str, None] = {}
        async with aclosing(self.pages()) as pages:
            async for ids in pages:
                found.update(dict.fromkeys(parse_chunk_id(id_).document_id for id_ in ids))
        return list(found)

    async def pages(self) -> AsyncGenerator[list[str], None]:
        """Ids of all chunks in pages, from the newest to the oldest.

        Chroma keeps the order in which records were first written, and a deletion moves those
        behind it to the front. Read from the end, none can so pass from what is still to be read
        into what has been read; read from the front, a page's worth of deletions hides a page.
        """
        end = await self.count()
        while end:
            start = max(0, end - _PAGE_IDS)
            yield (await self._collection.get(include=(), limit=end - start, offset=start)).ids
            end = start

    async def chunks(self, chunk_ids: Sequence[str]) -> list[HeldChunk]:
        """What is held of these at most 1,000 chunks, in no promised order."""
        page = await self._collection.get(ids=chunk_ids)
        return [held_chunk(*record) for record in zip(page.ids, page.metadatas or (), strict=True)]

    async def words(self, chunk_ids: Sequence[str]) -> list[ChunkWords]:
        """Titles and texts of those of these at most 1,000 chunks that are held, in no order."""
        page = await self._collection.get(ids=chunk_ids, include=("documents", "metadatas"))
        rows = zip(page.ids, page.metadatas or (), page.documents or (), strict=True)
        # A record of another's may have no text and no metadata at all.
        return [
            ChunkWords(id_, str((metadata or {}).get(records.TITLE, "")), text or "")
            for id_, metadata, text in rows
        ]

    async def ids_of(self, document_ids: Sequence[str]) -> list[str]:
        """Ids of all chunks held of these at most 1,000 documents, read at one moment."""
        where = {records.DOCUMENT_ID: {"$in": list(document_ids)}}
        return (await self._collection.get(where=where, include=())).ids

    async def contained(self, container_uri: str, version: int, limit: int) -> list[str]:
        """Ids of at most ``limit`` chunks of a container, of this version or older; 0 is any.

        Chroma answers a comparison by collecting all records of the collection that pass it, so
        a small container is read instead: that costs by its own size.
        """
        whole = {records.CONTAINER: container_uri}
        get = self._collection.get
        if not version:
            return (await get(where=whole, include=(), limit=limit)).ids
        if (await get(where=whole, include=(), limit=1, offset=_FEW_CHUNKS)).ids:
            old = {"$and": [whole, {records.VERSION: {"$lte": version}}]}
            return (await get(where=old, include=(), limit=limit)).ids
        page = await get(where=whole, limit=limit)
        versions = [cast("int", metadata[records.VERSION]) for metadata in page.metadatas or ()]
        found = [id_ for id_, held in zip(page.ids, versions, strict=True) if held <= version]
        return found[:limit]

    async def count(self) -> int:
        """Number of chunks."""
        return await self._collection.count()


def held_chunk(chunk_id: str, metadata: Mapping[str, MetadataValue]) -> HeldChunk:
    """What a stored record says of itself."""
    parts = parse_chunk_id(chunk_id)
    source_uri = str(metadata[records.SOURCE_URI])
    container = str(metadata.get(records.CONTAINER, ""))
    return HeldChunk(
        id=chunk_id,
        revision=parts.revision,
        ordinal=parts.ordinal,
        version=cast("int", metadata[records.VERSION]),
        chunk_count=cast("int", metadata[records.CHUNK_COUNT]),
        source_uri=source_uri,
        attributes=attributes_digest(source_uri, container, records.user_metadata(metadata)),
        container_uri=container,
    )


def heads_last(ordinals: Sequence[int]) -> tuple[list[int], list[int]]:
    """Indices of the chunks that are no heads, then those of the heads."""
    others = [index for index, ordinal in enumerate(ordinals) if ordinal]
    return others, [index for index, ordinal in enumerate(ordinals) if not ordinal]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
