"""An index as the indexer leaves it, written step by step so that a test can stop anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common import records
from common.coordination import ChunkingSpec, VersionState
from common.identity import chunk_id, content_digest, document_id, revision, store_collection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.chroma import Chroma, ChromaCollection
    from common.coordination import IndexRegistry, Pointer, VersionRecord
    from common.embedding import Embedder
    from common.records import MetadataValue

CHUNKING = ChunkingSpec("sentence", 256, 32)


@dataclass(frozen=True)
class Document:
    """One state of one document, chunked already."""

    uri: str
    chunks: Sequence[str]
    version: int = 1
    title: str = ""
    pages: Sequence[int] = ()
    metadata: dict[str, MetadataValue] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return document_id(self.uri)

    @property
    def revision(self) -> str:
        return revision(
            content_digest=content_digest("".join(self.chunks)),
            title=self.title,
            media_type="text/plain",
            pages=[(page, 0, 1) for page in self.pages],
            chunking=CHUNKING.fingerprint(),
        )

    @property
    def ids(self) -> list[str]:
        return [chunk_id(self.id, self.revision, n) for n in range(len(self.chunks))]

    def stored(self, ordinal: int) -> dict[str, MetadataValue]:
        start = sum(len(chunk) for chunk in self.chunks[:ordinal])
        paged = {records.PAGE: self.pages[ordinal]} if self.pages else {}
        return {
            records.DOCUMENT_ID: self.id,
            records.SOURCE_URI: self.uri,
            records.TITLE: self.title,
            records.MEDIA_TYPE: "text/plain",
            records.VERSION: self.version,
            records.REVISION: self.revision,
            records.ORDINAL: ordinal,
            records.CHUNK_COUNT: len(self.chunks),
            records.START: start,
            records.END: start + len(self.chunks[ordinal]),
            **paged,
            **self.metadata,
        }


@dataclass(frozen=True)
class WrittenIndex:
    """Writes documents into index versions of one store."""

    chroma: Chroma
    registry: IndexRegistry
    embedder: Embedder

    async def begin(self, collection: str = "docs", tenant: str = "") -> VersionRecord:
        """A new version with an empty store collection."""
        version = await self.registry.begin_version(
            tenant, collection, self.embedder.spec, CHUNKING
        )
        await self.chroma.create_collection(version.store_collection)
        return version

    async def activate(self, version: VersionRecord) -> Pointer:
        await self.registry.set_state(version, VersionState.READY, documents=1, chunks=1)
        pointer, _ = await self.registry.activate(
            version.tenant, version.collection, version.number
        )
        return pointer

    async def holding(self, *documents: Document, collection: str = "docs") -> Pointer:
        """A new active version with these documents."""
        version = await self.begin(collection)
        for document in documents:
            await self.write(document, version=version.number, collection=collection)
        return await self.activate(version)

    async def write(
        self,
        document: Document,
        *,
        ordinals: Sequence[int] | None = None,
        version: int = 1,
        collection: str = "docs",
    ) -> None:
        """Write chunks of a document, all of them if not told which."""
        chosen = list(range(len(document.chunks))) if ordinals is None else list(ordinals)
        texts = [document.chunks[ordinal] for ordinal in chosen]
        store = await self.store(version, collection)
        await store.upsert(
            ids=[document.ids[ordinal] for ordinal in chosen],
            embeddings=await self.embedder.embed_documents(texts),
            documents=texts,
            metadatas=[document.stored(ordinal) for ordinal in chosen],
        )

    async def remove(self, document: Document, *, version: int = 1) -> None:
        await (await self.store(version)).delete(document.ids)

    async def store(self, version: int = 1, collection: str = "docs") -> ChromaCollection:
        return await self.chroma.collection(store_collection("default", collection, version))
