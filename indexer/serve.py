"""Composition root of the indexer: it alone reads the environment and builds the parts."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from common.chroma import ChromaSettings, open_chroma
from common.config import Settings
from common.coordination import (
    Builds,
    CoordinatorSettings,
    IndexRegistry,
    Pins,
    StatisticsRegistry,
    advertised,
    open_coordinator,
)
from common.embedding import EmbeddingSettings, open_embedder
from common.errors import SluiceError
from common.requester import requester
from common.rpc import GrpcServer, ServiceBinding
from common.telemetry import Telemetry, TelemetrySettings, describe_exception
from common.word_parts import WordParts
from indexer.chunking import ChunkingSettings, SentenceChunker, chunking_spec
from indexer.collections_service import CollectionsServicer
from indexer.collector import Collector
from indexer.embedding import EmbedderEmbedding
from indexer.examination import Examination
from indexer.first_version import FirstVersions
from indexer.index_service import IndexServicer
from indexer.pipeline import IndexPipeline
from indexer.query_client import QueryClient
from indexer.settings import IndexerSettings
from indexer.store import ChromaCatalog
from indexer.versions import Versions
from indexer.word_counts import Counter, Counting, Ledgers, Publisher
from rerank_zig import ANALYSIS, RerankLibrary
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from common.chroma import Chroma
    from common.coordination import Coordinator
    from common.embedding import Embedder
    from indexer.settings import WordCountSettings

logger = logging.getLogger(__name__)

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
    coordinator: Coordinator,
    embedder: Embedder,
    holder: str,
    coordinator_settings: CoordinatorSettings | None = None,
) -> list[ServiceBinding]:
    """Build both services of the indexer and begin to collect; the stack closes what they hold.

    Closing waits for the batches under way, so it must come after the server has stopped and
    before Chroma, the coordinator and the embedder are closed.

    Args:
        stack: gets what is opened here.
        indexer: the bounds.
        chunking: how text is cut.
        chroma: keeps the stores.
        coordinator: keeps the records, locks and pins.
        embedder: what text is embedded with.
        holder: this process, told to those whom its pins and locks keep waiting.
        coordinator_settings: of ``coordinator``, for query servers that etcd knows.

    Raises:
        ConfigurationError: the chunking leaves no room in what the embedder reads, or the query
            target is none.
    """
    spec = chunking_spec(chunking, embedder.spec)
    registry, stores = IndexRegistry(coordinator), ChromaCatalog(chroma)
    pins = await stack.enter_async_context(
        Pins.open(coordinator, holder, ttl_s=indexer.instance_ttl_s)
    )
    ask = await stack.enter_async_context(
        QueryClient.open(
            indexer.query_target, indexer.query_channel, coordinator, coordinator_settings
        )
    )
    chunker = await asyncio.to_thread(SentenceChunker, spec, embedder.token_count)
    pipeline = IndexPipeline(
        indexer,
        chunker=chunker,
        embedding=EmbedderEmbedding(embedder),
        tokenizer=embedder.spec.digest,
    )
    stack.push_async_callback(pipeline.aclose)
    counting = await _counting(stack, indexer.word_counts, chroma, coordinator)
    versions = Versions(
        coordinator,
        registry,
        stores,
        pins,
        holder=holder,
        embedder=embedder.spec,
        chunking=spec,
        changed=counting.written if counting else None,
    )
    collector = Collector(coordinator, registry, stores, indexer.retention, holder=holder)
    await stack.enter_async_context(_running(collector.run(), "collector"))
    index = IndexServicer(indexer, pipeline, versions)
    collections = CollectionsServicer(
        registry,
        Builds(coordinator),
        stores,
        versions,
        first_versions=FirstVersions(registry, versions, pins, embedder.spec, spec),
        examination=Examination(
            registry,
            versions,
            ask,
            count_words=counting.bring_up_to_date if counting else None,
        ),
        collector=collector,
        pipeline=pipeline,
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
        bindings = await open_indexer(
            stack,
            indexer=config.indexer,
            chunking=config.chunking,
            chroma=chroma,
            coordinator=coordinator,
            embedder=embedder,
            holder=f"{SERVICE} {requester()}",
            coordinator_settings=config.coordinator,
        )
        server = await stack.enter_async_context(GrpcServer.open(config.indexer.server, bindings))
        address = await asyncio.to_thread(
            advertised, SERVICE, config.indexer.advertise, server.address, config.coordinator
        )
        await stack.enter_async_context(
            IndexRegistry(coordinator).register(
                SERVICE, address, ttl_s=config.indexer.instance_ttl_s
            )
        )
        if on_ready is not None:
            on_ready(server.address)
        await stop.wait()


async def _counting(
    stack: AsyncExitStack, settings: WordCountSettings, chroma: Chroma, coordinator: Coordinator
) -> Counting | None:
    """Begin to count words; None, and a warning, where the native library cannot be used."""
    try:
        library = await asyncio.to_thread(RerankLibrary.load)
    except SluiceError as error:
        logger.warning(
            "words are not counted, so ranking weighs them by the candidates of each query",
            extra=describe_exception(error),
        )
        return None
    ledgers = await asyncio.to_thread(Ledgers, settings.folder, ANALYSIS)
    stack.push_async_callback(ledgers.aclose)
    publisher = Publisher(StatisticsRegistry(coordinator), WordParts(chroma))
    counter = Counter(ChromaCatalog(chroma), ledgers, publisher, library)
    counting = Counting(IndexRegistry(coordinator), counter, ledgers, settings)
    await stack.enter_async_context(_running(counting.run(), "word-counts"))
    return counting


@asynccontextmanager
async def _running(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run what goes on for ever while the context is open; what is cut short goes on later."""
    running = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
