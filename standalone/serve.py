"""The composition root of ``sluice up``: every service in one process, on one port.

Opens the store, the coordinator and the embedder once and hands them to the services. The data
directory belongs to one process at a time; the coordinator's lock on it refuses a second one.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
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
from common.errors import ConfigurationError
from common.requester import requester
from common.rpc import GrpcServer, ServerSettings
from common.telemetry import TelemetrySettings
from indexer.chunking import ChunkingSettings
from indexer.serve import open_indexer
from indexer.settings import IndexerSettings
from query.serve import open_query
from query.settings import QuerySettings

if TYPE_CHECKING:
    from collections.abc import Callable


class UpSettings(Settings):
    """Where the one process keeps its data and listens."""

    data_dir: Path = Path("sluice-data")
    server: ServerSettings = ServerSettings()


class UpConfig(Settings):
    """The sections that ``sluice up`` reads."""

    chunking: ChunkingSettings = ChunkingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    indexer: IndexerSettings = IndexerSettings()
    query: QuerySettings = QuerySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    up: UpSettings = UpSettings()


async def run(
    config: UpConfig, *, stop: asyncio.Event, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until ``stop`` is set; ``on_ready`` gets the address once requests are taken.

    Raises:
        ConfigurationError: the data directory cannot be made or is in use, the port is taken, the
            model is missing.
    """
    data_dir = config.up.data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"up.data_dir: cannot make {data_dir} ({error.strerror}); name a folder that this user"
            " may write"
        ) from error
    async with AsyncExitStack() as stack:
        settings = CoordinatorSettings(kind="embedded", path=data_dir / "coordinator.db")
        coordinator = open_coordinator(settings)
        stack.push_async_callback(coordinator.aclose)
        chroma = await asyncio.to_thread(
            open_chroma, ChromaSettings(mode="embedded", path=data_dir / "chroma")
        )
        stack.push_async_callback(chroma.aclose)
        embedder = await asyncio.to_thread(open_embedder, config.embedding)
        stack.push_async_callback(embedder.aclose)
        bindings = [
            *await open_indexer(
                stack,
                indexer=_kept_in(data_dir, config.indexer),
                chunking=config.chunking,
                chroma=chroma,
                coordinator=coordinator,
                embedder=embedder,
                holder=f"sluice up, {requester()}",
            ),
            *await open_query(
                stack,
                query=config.query,
                chroma=chroma,
                coordinator=coordinator,
                embedder=embedder,
            ),
        ]
        server = await stack.enter_async_context(GrpcServer.open(config.up.server, bindings))
        # The indexer finds the query service as it does in a cluster: announced, once it listens.
        await stack.enter_async_context(
            IndexRegistry(coordinator).register(
                "query",
                advertised("query", config.query.advertise, server.address, settings),
                ttl_s=config.query.instance_ttl_s,
            )
        )
        if on_ready is not None:
            on_ready(server.address)
        await stop.wait()


def _kept_in(data_dir: Path, settings: IndexerSettings) -> IndexerSettings:
    """The indexer's settings, with what it counted in the data directory unless told otherwise."""
    counts = settings.word_counts
    if counts.folder is not None:
        return settings
    kept = counts.model_copy(update={"folder": data_dir / "word_counts"})
    return settings.model_copy(update={"word_counts": kept})
