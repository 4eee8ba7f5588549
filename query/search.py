"""The journey of one query: pin a version, embed, retrieve, fetch, rerank, assemble.

A search uses one index version and one query vector from start to end, and its answer holds each
document in one state only. It never waits without bound: one deadline spans all stages, and how
many searches run or wait is bounded.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from common import records
from common.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from common.telemetry import Stage, span
from query.ranking import RerankMode, best_first
from query.search_result import Degradation, Explanation, Hit, ScoreParts, SearchResult
from query.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from common.embedding import Embedder
    from common.rpc import Deadline
    from common.telemetry import ActiveSpan
    from query.admission import Admission
    from query.candidates import Candidates, CandidateSource
    from query.chunks import ChunkReader, ChunkSource
    from query.index_version import IndexVersion
    from query.ranking import Reranker
    from query.routing import Router
    from query.search_query import SearchQuery
    from query.selection import Selected
    from rerank_zig import Scores

VERSION_GONE_RETRY_MS: Final = 500


@dataclass(slots=True)
class _Trail:
    """What one search has been through so far."""

    deadline: Deadline
    timings_ms: dict[str, float] = field(default_factory=dict)
    stale_route: bool = False

    @contextmanager
    def stage(self, stage: Stage, **attributes: float) -> Iterator[ActiveSpan]:
        """A span and its timing; DeadlineExceeded if there is no time left to begin."""
        name = stage.value.rpartition(".")[2]
        self.deadline.check(name)
        active = span(stage, **attributes)
        try:
            with active:
                yield active
        finally:
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + active.duration_ms


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """Candidates in order, with the texts read on the way (UTF-8, by id)."""

    mode: RerankMode
    skipped: bool
    order: list[int]
    scores: NDArray[np.float32]
    parts: Scores | None
    texts: dict[str, bytes]


class Searcher:
    """Answers queries; ``search`` may run many times at once.

    Args:
        router: pins the index version.
        embedder: embeds query texts.
        candidates: nearest chunks by vector.
        chunks: the chunks' present state.
        reader: the chunks' texts.
        reranker: scores candidates.
        admission: bounds how many searches run and wait.
        rerank_reserve_s: with less time left than this, reranking is skipped.
    """

    def __init__(
        self,
        *,
        router: Router,
        embedder: Embedder,
        candidates: CandidateSource,
        chunks: ChunkSource,
        reader: ChunkReader,
        reranker: Reranker,
        admission: Admission,
        rerank_reserve_s: float,
    ) -> None:
        self._router = router
        self._embedder = embedder
        self._candidates = candidates
        self._chunks = chunks
        self._reader = reader
        self._reranker = reranker
        self._admission = admission
        self._rerank_reserve_s = rerank_reserve_s

    async def search(self, query: SearchQuery, deadline: Deadline) -> SearchResult:
        """Answer one query.

        Raises:
            InvalidArgument: the vector has another dimension than the index version.
            NotFound: no such collection.
            FailedPrecondition: no active version, or one written with another embedder.
            DeadlineExceeded: the deadline passed first.
            Overloaded: too many searches run and wait.
            Unavailable: a dependency does not answer.
        """
        try:
            async with deadline.timeout():
                return await self._search(query, _Trail(deadline))
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed during the search; allow more time"
            ) from None

    async def _search(self, query: SearchQuery, trail: _Trail) -> SearchResult:
        async with AsyncExitStack() as pins:
            with trail.stage(Stage.SEARCH_ROUTE):
                version = await pins.enter_async_context(self._router.pinned(query, trail.deadline))
                # A version asked for by its number answers whatever is active.
                trail.stale_route = self._router.stale and not query.index_version
            # A wait for a version holds no slot: it needs nothing of this machine.
            async with self._admission.slot():
                return await self._search_pinned(query, version, trail, pins)

    async def _search_pinned(
        self, query: SearchQuery, version: IndexVersion, trail: _Trail, pins: AsyncExitStack
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
        self, query: SearchQuery, version: IndexVersion, vector: NDArray[np.float32], trail: _Trail
    ) -> SearchResult:
        """Answer from one version; retrieve once more if documents moved under the first look."""
        result, moved = await self._attempt(query, version, vector, trail)
        if moved:
            result, _ = await self._attempt(query, version, vector, trail)
        return result

    async def _attempt(
        self, query: SearchQuery, version: IndexVersion, vector: NDArray[np.float32], trail: _Trail
    ) -> tuple[SearchResult, bool]:
        with trail.stage(Stage.SEARCH_RETRIEVE, wanted=query.candidate_count) as active:
            found = await self._candidates.candidates(
                version, vector, query.candidate_count, query.matching
            )
            active.set("candidates", len(found.ids))
        ranking = await self._rank(query, version, found, trail)
        with trail.stage(Stage.SEARCH_ASSEMBLE):
            selection = await select(self._chunks, version, found.ids, ranking.order, query.top_k)
            texts = ranking.texts
            unread = [
                found.ids[chosen.index]
                for chosen in selection.selected
                if found.ids[chosen.index] not in texts
            ]
            if unread:
                texts = texts | await self._reader.read(version, unread)
            chosen = [item for item in selection.selected if found.ids[item.index] in texts]
            moved = selection.moved or len(chosen) < len(selection.selected)
            hits = await self._hits(query, found, ranking, chosen, texts)
        degraded = []
        if ranking.skipped:
            degraded.append(Degradation.RERANK_SKIPPED)
        if trail.stale_route:
            degraded.append(Degradation.STALE_ROUTE)
        result = SearchResult(
            hits=hits,
            index_version=version.number,
            generation=version.generation,
            degraded=tuple(degraded),
            timings_ms=trail.timings_ms,
            explanation=self._explain(query, found, ranking) if query.explain else None,
        )
        return result, moved

    async def _rank(
        self, query: SearchQuery, version: IndexVersion, found: Candidates, trail: _Trail
    ) -> _Ranking:
        """Order the candidates; by vectors alone if the deadline is too near for more."""
        wants_words = query.mode is not RerankMode.DENSE
        texts: dict[str, bytes] = {}
        if not wants_words or self._in_time(trail):
            with trail.stage(Stage.SEARCH_FETCH) as active:
                ids = found.ids if wants_words else found.ids[: query.top_k]
                texts = await self._reader.read(version, ids)
                active.set("texts", len(texts))
        if not wants_words or not found.ids or not self._in_time(trail):
            return _Ranking(
                mode=RerankMode.DENSE if found.ids else query.mode,
                skipped=wants_words and bool(found.ids),
                order=list(range(len(found.ids))),
                scores=found.similarities,
                parts=None,
                texts=texts,
            )
        with trail.stage(Stage.SEARCH_RERANK, candidates=len(found.ids)):
            # A chunk that left the store meanwhile has no text; it is not selected afterwards.
            parts = await self._reranker.score(
                query.text,
                [texts.get(chunk_id, b"") for chunk_id in found.ids],
                found.similarities,
                query.options,
            )
        scores = parts.fused if query.mode is RerankMode.FUSED else parts.lexical_raw
        return _Ranking(query.mode, False, best_first(scores), scores, parts, texts)  # noqa: FBT003 — skipped

    def _in_time(self, trail: _Trail) -> bool:
        return trail.deadline.remaining_s() >= self._rerank_reserve_s

    async def _hits(
        self,
        query: SearchQuery,
        found: Candidates,
        ranking: _Ranking,
        chosen: Sequence[Selected],
        texts: dict[str, bytes],
    ) -> tuple[Hit, ...]:
        bodies = [texts[found.ids[item.index]].decode() for item in chosen]
        marks: list[list[tuple[int, int]]] = [[] for _ in bodies]
        if query.text and bodies:
            marks = await self._reranker.highlight(query.text, bodies)
        return tuple(
            _hit(found, ranking, item, body, spans, explain=query.explain)
            for item, body, spans in zip(chosen, bodies, marks, strict=True)
        )

    def _explain(self, query: SearchQuery, found: Candidates, ranking: _Ranking) -> Explanation:
        return Explanation(
            terms=tuple(self._reranker.terms(query.text)) if query.text else (),
            mode=ranking.mode,
            options=query.options,
            candidates=len(found.ids),
            store_filter=found.store_filter,
        )


def _hit(
    found: Candidates,
    ranking: _Ranking,
    item: Selected,
    text: str,
    highlights: list[tuple[int, int]],
    *,
    explain: bool,
) -> Hit:
    chunk, head = item.chunk, item.head
    return Hit(
        chunk_id=found.ids[item.index],
        document_id=item.id.document_id,
        document_version=cast("int", head[records.VERSION]),
        source_uri=cast("str", head[records.SOURCE_URI]),
        title=cast("str", head.get(records.TITLE, "")),
        media_type=cast("str", head.get(records.MEDIA_TYPE, "")),
        span=(cast("int", chunk[records.START]), cast("int", chunk[records.END])),
        page=cast("int", chunk.get(records.PAGE, 0)),
        text=text,
        metadata=records.user_metadata(head),
        score=float(ranking.scores[item.index]),
        highlights=tuple(highlights),
        parts=_parts(found, ranking.parts, item.index) if explain else None,
    )


def _parts(found: Candidates, scores: Scores | None, index: int) -> ScoreParts:
    return ScoreParts(
        similarity=float(found.similarities[index]),
        dense=float(scores.dense[index]) if scores else 0.0,
        bm25=float(scores.lexical_raw[index]) if scores else 0.0,
        lexical=float(scores.lexical[index]) if scores else 0.0,
        dense_rank=index + 1,
    )
