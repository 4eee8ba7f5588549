"""Asking a searcher in tests: documents, a question, and an index that moves while it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common.rpc import Deadline
from query.chroma_index import ChromaIndex
from query.search_query import search_query
from rerank_zig import FusionOptions
from tests.integration.query.written_index import Document, WrittenIndex

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import numpy as np
    from numpy.typing import NDArray

    from query.candidates import Candidates
    from query.chunks import StoredChunk
    from query.filter import Expression
    from query.index_version import IndexVersion
    from query.search import Searcher
    from query.search_query import SearchQuery
    from query.search_result import SearchResult

    OpenSearcher = Callable[..., Awaitable[Searcher]]

FAILOVER = Document(
    "hdfs://lake/failover.md",
    ["When the namenode fails, promote the standby.", "Fence the old namenode before."],
    version=7,
    title="Failover",
    pages=[1, 2],
    metadata={"lang": "en", "year": 2024, "tags": ["hdfs"], "draft": False},
)
QUOTA = Document(
    "hdfs://lake/quota.txt",
    ["A directory over its quota refuses writes.", "Raise the quota with care."],
    metadata={"lang": "en", "year": 2020},
)
QUEUES = Document("hdfs://lake/queues.txt", ["Size a queue by its tenants."])
NEWER = replace(FAILOVER, version=8, chunks=["The namenode fails over by itself.", "No fencing."])


class MovingIndex(ChromaIndex):
    """The real index, with something happening right after a retrieval; counts its calls."""

    def __init__(self, index: WrittenIndex, *moves: Callable[[], Awaitable[object]]) -> None:
        super().__init__(index.chroma)
        self._moves = list(moves)
        self.calls: Counter[str] = Counter()

    async def candidates(
        self,
        version: IndexVersion,
        vector: NDArray[np.float32],
        count: int,
        matching: Expression | None,
    ) -> Candidates:
        self.calls["candidates"] += 1
        found = await super().candidates(version, vector, count, matching)
        if self._moves:
            await self._moves.pop(0)()
        return found

    async def stored(
        self, version: IndexVersion, ids: Any, *, texts: bool
    ) -> dict[str, StoredChunk]:
        self.calls["texts"] += texts
        return await super().stored(version, ids, texts=texts)


def asking(text: str | None = "namenode quota queue", **fields: Any) -> SearchQuery:
    fields = {"defaults": FusionOptions(), "collection": "docs", **fields}
    return search_query(text=text, **fields)


async def ask(
    searcher: Searcher, text: str | None = "namenode quota queue", **fields: Any
) -> SearchResult:
    return await searcher.search(asking(text, **fields), Deadline.after(10))


def uris(result: SearchResult) -> list[str]:
    return [hit.source_uri for hit in result.hits]
