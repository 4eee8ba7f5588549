"""Index versions of one sentence a document, and real query servers that search them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.coordination import ChunkingSpec, IndexRegistry, VersionState
from common.embedding import EmbeddingSettings, open_embedder
from common.rpc import GrpcServer
from indexer.embedding import EmbedderEmbedding
from indexer.store import ChromaVectorStore
from query.serve import open_query
from query.settings import QuerySettings
from tests.unit.indexer.corpus import document, index, pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from common.chroma import Chroma
    from common.coordination import Coordinator, VersionRecord
    from common.embedding import Embedder

# Servers of one of them cannot search what was written with the other.
SMALL = open_embedder(EmbeddingSettings(kind="hashing", dimension=64))
LARGE = open_embedder(EmbeddingSettings(kind="hashing", dimension=128))


@dataclass(frozen=True)
class Installation:
    """One store, one coordinator and whatever is opened on them."""

    chroma: Chroma
    coordinator: Coordinator

    @property
    def registry(self) -> IndexRegistry:
        return IndexRegistry(self.coordinator)

    async def version(
        self, words: Iterable[str], embedder: Embedder = SMALL, *, active: bool = False
    ) -> VersionRecord:
        """A READY or active version with a document about each word, called after it."""
        record = await self.registry.begin_version(
            "default", "docs", embedder.spec, ChunkingSpec("sentence", 8, 2)
        )
        store = ChromaVectorStore(await self.chroma.create_collection(record.store_collection))
        rule = pipeline(embedding=EmbedderEmbedding(embedder))
        await index(
            rule, store, [document(word, 1, f"Here they speak of {word}.") for word in words]
        )
        await rule.aclose()
        record = await self.registry.set_state(record, VersionState.READY, documents=1, chunks=1)
        if active:
            await self.registry.activate("default", "docs", record.number)
            record = await self.registry.version("default", "docs", record.number)
        return record

    async def store(self, record: VersionRecord) -> ChromaVectorStore:
        return ChromaVectorStore(await self.chroma.collection(record.store_collection))

    @asynccontextmanager
    async def query_server(
        self, embedder: Embedder = SMALL, *, announced: bool = True
    ) -> AsyncIterator[GrpcServer]:
        """A query server that is announced as long as it runs."""
        settings = QuerySettings.model_validate({"server": {"listen": "127.0.0.1:0"}})
        async with AsyncExitStack() as stack:
            bindings = await open_query(
                stack,
                query=settings,
                chroma=self.chroma,
                coordinator=self.coordinator,
                embedder=embedder,
            )
            server = await stack.enter_async_context(GrpcServer.open(settings.server, bindings))
            if announced:
                await stack.enter_async_context(self.announced(server.address))
            yield server

    @asynccontextmanager
    async def announced(self, address: str) -> AsyncIterator[None]:
        async with self.registry.register("query", address, ttl_s=10):
            yield
