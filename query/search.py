"""The journey of one query: pin a version, embed, retrieve, put in order, assemble.

A search uses one index version and one query vector from start to end, and its answer holds each
document in one state only. It never waits without bound: one deadline spans all stages, and how
many searches run or wait is bounded.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, cast

from common import records
from common.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from common.telemetry import Stage
from query.chunks import ChunkReader
from query.ordering import Retrieved
from query.search_result import Degradation, Explanation, Hit, ScoreParts, SearchResult
from query.selection import select
from query.trail import FetchingSource, Trail

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from common.embedding import Embedder
    from common.rpc import Deadline
    from query.admission import Admission
    from query.candidates import Candidates, CandidateSource
    from query.chunks import ChunkCache, ChunkSource
    from query.index_version import IndexVersion
    from query.ordering import Ordered, Ordering
    from query.passages import Passage
    from query.ranking import Reranker
    from query.routing import Router
    from query.search_query import SearchQuery

VERSION_GONE_RETRY_MS: Final = 500


class Searcher:
    """Answers queries; ``search`` may run many times at once.

    Args:
        router: pins the index version.
        embedder: embeds query texts.
        candidates: nearest chunks by vector.
        chunks: the chunks' present state.
        texts: the chunks' texts that are kept.
        reranker: knows words, where they stand and which texts are alike.
        ordering: puts candidates in order.
        admission: bounds how many searches run and wait.
    """

    def __init__(
        self,
        *,
        router: Router,
        embedder: Embedder,
        candidates: CandidateSource,
        chunks: ChunkSource,
        texts: ChunkCache,
        reranker: Reranker,
        ordering: Ordering,
        admission: Admission,
    ) -> None:
        self._router = router
        self._embedder = embedder
        self._candidates = candidates
        self._chunks = chunks
        self._texts = texts
        self._reranker = reranker
        self._ordering = ordering
        self._admission = admission

    async def search(self, query: SearchQuery, deadline: Deadline) -> SearchResult:
        """Answer one query.

        Raises:
            InvalidArgument: the vector has another dimension than the index version.
            NotFound: no such collection.
            FailedPrecondition: no active version, or one written with another embedder; no
                cross-encoder here.
            DeadlineExceeded: the deadline passed first.
            Overloaded: too many searches run and wait.
            Unavailable: a dependency does not answer.
        """
        self._ordering.check(query.mode)
        try:
            async with deadline.timeout():
                return await self._search(query, Trail(deadline))
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed during the search; allow more time"
            ) from None

    async def _search(self, query: SearchQuery, trail: Trail) -> SearchResult:
        async with AsyncExitStack() as pins:
            with trail.stage(Stage.SEARCH_ROUTE):
                version = await pins.enter_async_context(self._router.pinned(query, trail.deadline))
                # A version asked for by its number answers whatever is active.
                trail.stale_route = self._router.stale and not query.index_version
            # A wait for a version holds no slot: it needs nothing of this machine.
            async with self._admission.slot():
                return await self._search_pinned(query, version, trail, pins)

    async def _search_pinned(
        self, query: SearchQuery, version: IndexVersion, trail: Trail, pins: AsyncExitStack
    ) -> SearchResult:
        if query.vector is None:
            with trail.stage(Stage.SEARCH_EMBED):
                vector = await self._embedder.embed_query(query.text)
        else:
            vector = query.vector
            if len(vector) != version.embedder.dimension:
                raise InvalidArgument(
                    f"must have {version.embedder.dimension} values, this has {len(vector)}",
                    field="vector",
                )
        try:
            return await self._answer(query, version, vector, trail)
        except NotFound:
            # The version went while it was read, so another is active, or will be soon.
            with trail.stage(Stage.SEARCH_ROUTE):
                fresh = await pins.enter_async_context(
                    self._router.pinned_afresh(query, gone=version)
                )
        try:
            if fresh.number != version.number:
                return await self._answer(query, fresh, vector, trail)
        except NotFound:
            pass
        raise Unavailable(
            f"the records of version {fresh.number} of collection {query.collection} are not in "
            "the vector store; repeat, and rebuild the collection if that does not help",
            retry_after_ms=VERSION_GONE_RETRY_MS,
        )

    async def _answer(
        self, query: SearchQuery, version: IndexVersion, vector: NDArray[np.float32], trail: Trail
    ) -> SearchResult:
        """Answer from one version; retrieve once more if documents moved under the first look."""
        result, moved = await self._attempt(query, version, vector, trail)
        if moved:
            result, _ = await self._attempt(query, version, vector, trail)
        return result

    async def _attempt(
        self, query: SearchQuery, version: IndexVersion, vector: NDArray[np.float32], trail: Trail
    ) -> tuple[SearchResult, bool]:
        with trail.stage(Stage.SEARCH_RETRIEVE, wanted=query.candidate_count) as active:
            found = await self._candidates.candidates(
                version, vector, query.candidate_count, query.matching
            )
            active.set("candidates", len(found.ids))
        reader = ChunkReader(FetchingSource(self._chunks, trail), self._texts)
        ordered = await self._ordering.order(Retrieved(query, version, found, reader, trail))
        with trail.stage(Stage.SEARCH_ASSEMBLE):
            selection = await select(
                reader,
                version,
                found.ids,
                ordered.order,
                query.top_k,
                query.diversity,
                self._reranker.group_duplicates,
            )
            hits = await self._hits(query, found, ordered, selection.selected)
            explanation = self._explain(query, found, ordered) if query.explain else None
        stale = (Degradation.STALE_ROUTE,) if trail.stale_route else ()
        result = SearchResult(
            hits=hits,
            index_version=version.number,
            generation=version.generation,
            degraded=ordered.lacking + stale,
            timings_ms=trail.timings_ms,
            explanation=explanation,
            cross_encoded=len(ordered.cross_encoded),
        )
        return result, selection.moved

    async def _hits(
        self,
        query: SearchQuery,
        found: Candidates,
        ordered: Ordered,
        passages: Sequence[Passage],
    ) -> tuple[Hit, ...]:
        marks: list[list[tuple[int, int]]] = [[] for _ in passages]
        if query.text and passages:
            marks = await self._reranker.highlight(
                query.text, [passage.text for passage in passages]
            )
        return tuple(
            _hit(found, ordered, passage, spans, explain=query.explain)
            for passage, spans in zip(passages, marks, strict=True)
        )

    def _explain(self, query: SearchQuery, found: Candidates, ordered: Ordered) -> Explanation:
        parts = ordered.parts
        return Explanation(
            terms=tuple(self._reranker.terms(query.text)) if query.text else (),
            mode=ordered.mode,
            options=query.options,
            alpha=ordered.alpha,
            candidates=len(found.ids),
            store_filter=found.store_filter,
            statistics_chunks=parts.chunks if parts else 0,
            corpus_statistics=ordered.corpus_statistics,
        )


def _hit(
    found: Candidates,
    ordered: Ordered,
    passage: Passage,
    highlights: list[tuple[int, int]],
    *,
    explain: bool,
) -> Hit:
    head = passage.head
    return Hit(
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        document_version=cast("int", head[records.VERSION]),
        source_uri=cast("str", head[records.SOURCE_URI]),
        title=cast("str", head.get(records.TITLE, "")),
        media_type=cast("str", head.get(records.MEDIA_TYPE, "")),
        span=passage.span,
        page=passage.page,
        text=passage.text,
        metadata=records.user_metadata(head),
        score=float(ordered.scores[passage.index]),
        highlights=tuple(highlights),
        parts=_parts(found, ordered, passage.index) if explain else None,
        duplicates=passage.duplicates,
        merged_chunk_ids=passage.merged,
    )


def _parts(found: Candidates, ordered: Ordered, index: int) -> ScoreParts:
    scores = ordered.parts
    return ScoreParts(
        similarity=float(found.similarities[index]),
        dense=float(scores.dense[index]) if scores else 0.0,
        bm25=float(scores.lexical_raw[index]) if scores else 0.0,
        lexical=float(scores.lexical[index]) if scores else 0.0,
        dense_rank=index + 1,
        title=float(scores.title[index]) if scores else 0.0,
        proximity=float(scores.proximity[index]) if scores else 0.0,
        fused=float(scores.fused[index]) if scores else 0.0,
        cross_encoder=ordered.cross_encoded.get(index),
    )
