"""A real store, a real coordinator, the native reranker; words are embedded by hashing."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from common.chroma import ChromaSettings, open_chroma
from common.coordination import CoordinatorSettings, IndexRegistry, Pins, Routes, open_coordinator
from common.embedding import EmbeddingSettings, open_embedder
from query.admission import Admission
from query.chroma_index import ChromaIndex
from query.chunks import ChunkCache
from query.ordering import Ordering
from query.pinning import PinnedVersions
from query.ranking import ZigReranker
from query.routing import Router
from query.search import Searcher
from query.switching import Switching
from rerank_zig import RerankLibrary
from tests.integration.etcd import Etcd
from tests.integration.query.written_index import WrittenIndex

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from common.chroma import Chroma
    from common.coordination import Coordinator
    from query.index_version import IndexVersion


class NoStatistics:
    """Nothing is known of any version's words."""

    def of(self, _version: IndexVersion) -> None:
        return None


@pytest.fixture
async def chroma(tmp_path: Path) -> AsyncIterator[Chroma]:
    store = open_chroma(ChromaSettings(mode="embedded", path=tmp_path / "chroma"))
    yield store
    await store.aclose()


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Coordinator]:
    opened = open_coordinator(CoordinatorSettings(kind="embedded", path=tmp_path / "coordinator"))
    yield opened
    await opened.aclose()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One etcd for all tests that leave it running; each test has a prefix of its own."""
    with Etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[Etcd]:
    """An etcd that the test may kill, freeze or compact."""
    with Etcd(tmp_path / "etcd") as running:
        yield running


@pytest.fixture
def index(chroma: Chroma, coordinator: Coordinator) -> WrittenIndex:
    embedder = open_embedder(EmbeddingSettings(kind="hashing"))
    return WrittenIndex(chroma, IndexRegistry(coordinator), embedder)


@pytest.fixture
async def open_searcher(
    index: WrittenIndex, coordinator: Coordinator
) -> AsyncIterator[Callable[..., Any]]:
    """Opens searchers over the index; a test may put its own part in the place of one."""
    async with AsyncExitStack() as stack:

        async def opened(**parts: Any) -> Searcher:
            pins = await stack.enter_async_context(Pins.open(coordinator, "a test", ttl_s=10))
            pinned = PinnedVersions(pins)
            stack.push_async_callback(pinned.aclose)
            routes = await Routes.open(coordinator)
            stack.push_async_callback(routes.aclose)
            reranker = ZigReranker(
                RerankLibrary.load(), threads=2, store_bytes=parts.pop("store_bytes", 2**20)
            )
            stack.push_async_callback(reranker.aclose)
            source = parts.pop("source", ChromaIndex(index.chroma))
            embedder = parts.pop("embedder", index.embedder)
            registry = parts.pop("registry", index.registry)
            keep = {"keep_s": parts.pop("keep_s")} if "keep_s" in parts else {}
            ordering = Ordering(
                reranker=reranker,
                statistics=parts.pop("statistics", NoStatistics()),
                reserve_s=parts.pop("reserve_s", 0.0),
                cross_encoder=parts.pop("cross_encoder", None),
                cross_encoder_candidates=50,
            )
            standard: dict[str, Any] = {
                "router": Router(
                    Switching(routes, pinned), registry, pinned, embedder.spec, **keep
                ),
                "embedder": embedder,
                "candidates": source,
                "chunks": source,
                "texts": ChunkCache(2**20),
                "reranker": reranker,
                "ordering": ordering,
                "admission": Admission(running=4, waiting=4),
            }
            return Searcher(**(standard | parts))

        yield opened
