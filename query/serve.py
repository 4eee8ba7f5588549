"""Composition root of the query server: the only place that makes and connects its parts.

Everything opened goes on one exit stack, so it closes in the reverse order, also when a later part
does not open.
"""

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
    Pins,
    Routes,
    advertised,
    open_coordinator,
)
from common.embedding import EmbeddingSettings, open_embedder
from common.requester import requester
from common.rpc import GrpcServer, HealthCondition, ServiceBinding
from common.telemetry import Telemetry, TelemetrySettings
from common.word_parts import WordParts
from query.admission import Admission
from query.chroma_index import ChromaIndex
from query.chunks import ChunkCache
from query.cross_encoder import open_cross_encoder
from query.ordering import Ordering
from query.pinning import PinnedVersions
from query.ranking import ZigReranker
from query.routing import Router
from query.search import Searcher
from query.service import SERVICE, QueryService
from query.settings import QuerySettings
from query.staleness import COORDINATOR, watching_staleness
from query.switching import Switching
from query.word_statistics import FollowedStatistics
from rerank_zig import RerankLibrary
from sluice.query.v1 import query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from common.chroma import Chroma
    from common.coordination import Coordinator
    from common.embedding import Embedder
    from query.cross_encoder import CrossEncoder, CrossEncoderSettings


class QueryConfig(Settings):
    """The sections that the query server reads."""

    coordinator: CoordinatorSettings = CoordinatorSettings()
    chroma: ChromaSettings = ChromaSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    query: QuerySettings = QuerySettings()
    telemetry: TelemetrySettings = TelemetrySettings()


async def open_query(
    stack: AsyncExitStack,
    *,
    query: QuerySettings,
    chroma: Chroma,
    coordinator: Coordinator,
    embedder: Embedder,
) -> list[ServiceBinding]:
    """Make QueryService out of what is open already; what it opens itself goes on the stack.

    Raises:
        ConfigurationError: the cross-encoder that is set cannot be used.
        FailedPrecondition: the native reranker is not built.
        CoordinatorUnavailable: the coordinator does not answer.
    """
    reranker = ZigReranker(
        await asyncio.to_thread(RerankLibrary.load),
        threads=query.rerank.threads,
        store_bytes=query.rerank.term_store_bytes,
    )
    stack.push_async_callback(reranker.aclose)
    pins = await stack.enter_async_context(
        Pins.open(coordinator, f"query server of {requester()}", ttl_s=query.instance_ttl_s)
    )
    pinned = PinnedVersions(pins)
    stack.push_async_callback(pinned.aclose)
    routes = await Routes.open(coordinator)
    stack.push_async_callback(routes.aclose)
    following = HealthCondition()
    await stack.enter_async_context(watching_staleness(routes, following))
    statistics = FollowedStatistics(
        routes, WordParts(chroma), max_bytes=query.word_statistics_bytes
    )
    stack.push_async_callback(statistics.aclose)
    index = ChromaIndex(chroma)
    admission = Admission(running=query.max_searches, waiting=query.max_waiting)
    ordering = Ordering(
        reranker=reranker,
        statistics=statistics,
        reserve_s=query.rerank_reserve_ms / 1_000,
        cross_encoder=await _opened(stack, query.cross_encoder),
        cross_encoder_candidates=query.cross_encoder.candidates if query.cross_encoder else 0,
    )
    searcher = Searcher(
        router=Router(Switching(routes, pinned), IndexRegistry(coordinator), pinned, embedder.spec),
        embedder=embedder,
        candidates=index,
        chunks=index,
        texts=ChunkCache(query.chunk_cache_bytes),
        reranker=reranker,
        ordering=ordering,
        admission=admission,
    )
    service = QueryService(
        searcher,
        defaults=query.rerank.options(),
        deadline_s=query.deadline_s,
        max_stream_searches=query.max_stream_searches,
    )

    def register(server: grpc.aio.Server) -> None:
        query_pb2_grpc.add_QueryServiceServicer_to_server(service, server)

    return [ServiceBinding(SERVICE, register, {COORDINATOR: following}, admission.refusal)]


async def _opened(
    stack: AsyncExitStack, settings: CrossEncoderSettings | None
) -> CrossEncoder | None:
    if settings is None:
        return None
    encoder = await asyncio.to_thread(open_cross_encoder, settings)
    stack.push_async_callback(encoder.aclose)
    return encoder


async def run(
    config: QueryConfig,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set, then drain.

    Args:
        config: every section.
        stop: set it to end.
        on_ready: gets the bound address once requests are answered.

    Raises:
        ConfigurationError: a setting cannot work.
        Unavailable: the vector store or the coordinator does not answer.
    """
    async with AsyncExitStack() as stack:
        telemetry = Telemetry.open("sluice-query", config.telemetry, os.environ)
        stack.push_async_callback(telemetry.aclose)
        chroma = await asyncio.to_thread(open_chroma, config.chroma)
        stack.push_async_callback(chroma.aclose)
        coordinator = open_coordinator(config.coordinator)
        stack.push_async_callback(coordinator.aclose)
        embedder = await asyncio.to_thread(open_embedder, config.embedding)
        stack.push_async_callback(embedder.aclose)
        bindings = await open_query(
            stack, query=config.query, chroma=chroma, coordinator=coordinator, embedder=embedder
        )
        server = await stack.enter_async_context(GrpcServer.open(config.query.server, bindings))
        address = await asyncio.to_thread(
            advertised, "query", config.query.advertise, server.address, config.coordinator
        )
        await stack.enter_async_context(
            IndexRegistry(coordinator).register("query", address, ttl_s=config.query.instance_ttl_s)
        )
        if on_ready is not None:
            on_ready(server.address)
        await stop.wait()
