"""Composition root of the indexer: it alone reads the environment and builds the parts."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from common.chroma import ChromaSettings, open_chroma
from common.config import Settings
from common.coordination import (
    CoordinatorSettings,
    IndexRegistry,
    advertised,
    open_coordinator,
)
from common.embedding import EmbeddingSettings, open_embedder
from common.rpc import GrpcServer, ServiceBinding
from common.telemetry import Telemetry, TelemetrySettings
from indexer.chunking import ChunkingSettings, SentenceChunker, chunking_spec
from indexer.collections_service import CollectionsServicer
from indexer.embedding import EmbedderEmbedding
from indexer.index_service import IndexServicer
from indexer.pipeline import IndexPipeline
from indexer.settings import IndexerSettings
from indexer.store import ChromaCatalog
from indexer.versions import Versions
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.chroma import Chroma
    from common.embedding import Embedder

SERVICE = "indexer"
INDEX_SERVICE = index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name
COLLECTIONS_SERVICE = collections_pb2.DESCRIPTOR.services_by_name["CollectionsService"].full_name


class IndexerConfig(Settings):
    """Every section that `sluice serve indexer` reads."""

    coordinator: CoordinatorSettings = CoordinatorSettings()
    chroma: ChromaSettings = ChromaSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    indexer: IndexerSettings = IndexerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


async def open_indexer(
    stack: AsyncExitStack,
    *,
    indexer: IndexerSettings,
    chunking: ChunkingSettings,
    chroma: Chroma,
    registry: IndexRegistry,
    embedder: Embedder,
) -> list[ServiceBinding]:
    """Build both services of the indexer; the stack closes what they hold.

    Closing waits for the batches under way, so it must come after the server has stopped and
    before Chroma and the embedder are closed.

    Raises:
        ConfigurationError: the chunking leaves no room in what the embedder reads.
    """
    spec = chunking_spec(chunking, embedder.spec)
    chunker = await asyncio.to_thread(SentenceChunker, spec, embedder.token_count)
    pipeline = IndexPipeline(
        indexer,
        chunker=chunker,
        embedding=EmbedderEmbedding(embedder),
        tokenizer=embedder.spec.digest,
    )
    stack.push_async_callback(pipeline.aclose)
    stores = ChromaCatalog(chroma)
    versions = Versions(registry, stores, embedder=embedder.spec, chunking=spec)
    index = IndexServicer(indexer, pipeline, versions)
    collections = CollectionsServicer(
        registry, stores, versions, embedder=embedder.spec, chunking=spec
    )
    return [
        ServiceBinding(
            INDEX_SERVICE,
            lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(index, server),
        ),
        ServiceBinding(
            COLLECTIONS_SERVICE,
            lambda server: collections_pb2_grpc.add_CollectionsServiceServicer_to_server(
                collections, server
            ),
        ),
    ]


async def run(
    config: IndexerConfig,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set, then drain and close everything in order.

    Raises:
        ConfigurationError: settings that cannot work.
        Unavailable: Chroma or the coordinator does not answer.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Telemetry.open(SERVICE, config.telemetry, os.environ))
        coordinator = open_coordinator(config.coordinator)
        stack.push_async_callback(coordinator.aclose)
        chroma = await asyncio.to_thread(open_chroma, config.chroma)
        stack.push_async_callback(chroma.aclose)
        embedder = await asyncio.to_thread(open_embedder, config.embedding)
        stack.push_async_callback(embedder.aclose)
        registry = IndexRegistry(coordinator)
        bindings = await open_indexer(
            stack,
            indexer=config.indexer,
            chunking=config.chunking,
            chroma=chroma,
            registry=registry,
            embedder=embedder,
        )
        server = await stack.enter_async_context(GrpcServer.open(config.indexer.server, bindings))
        address = await asyncio.to_thread(
            advertised, SERVICE, config.indexer.advertise, server.address, config.coordinator
        )
        await stack.enter_async_context(
            registry.register(SERVICE, address, ttl_s=config.indexer.instance_ttl_s)
        )
        if on_ready is not None:
            on_ready(server.address)
        await stop.wait()
