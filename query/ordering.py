"""Candidates in order: by meaning and words together, then the first ones by a cross-encoder.

Each step is taken only while the deadline leaves time for it, and what was left out is said. It
never waits for statistics and never drops a candidate: which ones may stand in an answer is
`query.selection`'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from common.errors import FailedPrecondition
from common.telemetry import Stage
from query.ranking import RerankMode, Scoring, best_first
from query.search_result import Degradation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from query.candidates import Candidates
    from query.chunks import ChunkReader, ChunkText
    from query.cross_encoder import CrossEncoder
    from query.index_version import IndexVersion
    from query.ranking import Reranker
    from query.search_query import SearchQuery
    from query.trail import Trail
    from rerank_zig import Scores, WordStatistics


class StatisticsSource(Protocol):
    """What is known of the words of index versions."""

    def of(self, version: IndexVersion) -> WordStatistics | None:
        """What is known now, without waiting; None for nothing."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """The candidates of one search, and what it has in hand to look at them.

    Attributes:
        query: what was asked.
        version: the one that they are of.
        found: the candidates.
        reader: reads their texts; those that left the store meanwhile have none, and are not
            selected afterwards.
        trail: of the search.
    """

    query: SearchQuery
    version: IndexVersion
    found: Candidates
    reader: ChunkReader
    trail: Trail

    async def texts(self, ids: Sequence[str]) -> dict[str, ChunkText]:
        """Titles and texts of candidates by id."""
        return await self.reader.texts(self.version, ids)


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Candidates in order.

    Attributes:
        mode: what ordered them, which need not be what was asked for.
        order: their indices, best first.
        scores: shape (n,); descending along ``order``.
        parts: what the scores by meaning and words were made of; None where words were not looked
            at.
        corpus_statistics: whether these came with the index version's statistics.
        cross_encoded: the cross-encoder's scores by candidate.
        lacking: why the order is less than what was asked for.
    """

    mode: RerankMode
    order: list[int]
    scores: NDArray[np.floating[Any]]
    parts: Scores | None = None
    corpus_statistics: bool = False
    cross_encoded: Mapping[int, float] = field(default_factory=dict)
    lacking: tuple[Degradation, ...] = ()

    @property
    def alpha(self) -> float:
        """Share of meaning, 0 to 1: all of it where words had no part."""
        if self.parts is None:
            return 1.0
        return 0.0 if self.mode is RerankMode.LEXICAL else self.parts.alpha


class Ordering:
    """Puts candidates in order; ``order`` may run many times at once.

    Args:
        reranker: scores by meaning and words.
        statistics: of index versions.
        reserve_s: with less time left than this, no further step is taken: it is for assembling.
        cross_encoder: None refuses the mode that needs it.
        cross_encoder_candidates: how many it may score where a query does not say.
    """

    def __init__(
        self,
        *,
        reranker: Reranker,
        statistics: StatisticsSource,
        reserve_s: float,
        cross_encoder: CrossEncoder | None,
        cross_encoder_candidates: int,
    ) -> None:
        self._reranker = reranker
        self._statistics = statistics
        self._reserve_s = reserve_s
        self._cross_encoder = cross_encoder
        self._cross_encoder_candidates = cross_encoder_candidates

    def check(self, mode: RerankMode) -> None:
        """Refuse a mode that this server has not; FailedPrecondition."""
        if mode is RerankMode.CROSS_ENCODER and self._cross_encoder is None:
            raise FailedPrecondition(
                "this query server has no cross-encoder; set query.cross_encoder.folder to the "
                "folder of one, or ask for fused"
            )

    async def order(self, retrieved: Retrieved) -> Ordered:
        """Order candidates; by vectors alone if the deadline is too near for more.

        Raises:
            FailedPrecondition: as ``check``.
            NotFound: the version is no longer there.
            DeadlineExceeded: the deadline passed.
            Unavailable: the store does not answer.
        """
        mode, found = retrieved.query.mode, retrieved.found
        self.check(mode)
        if not found.ids:
            return Ordered(mode, [], found.similarities)
        ordered = Ordered(RerankMode.DENSE, list(range(len(found.ids))), found.similarities)
        if mode is RerankMode.DENSE:
            return ordered
        statistics = self._statistics.of(retrieved.version)
        parts = await self._score(retrieved, statistics) if self._left_s(retrieved) >= 0 else None
        if parts is None:
            skipped = (Degradation.RERANK_SKIPPED,)
            cut = (Degradation.CROSS_ENCODER_CUT,) if mode is RerankMode.CROSS_ENCODER else ()
            return replace(ordered, lacking=skipped + cut)
        scores = parts.lexical_raw if mode is RerankMode.LEXICAL else parts.fused
        ordered = Ordered(
            mode, best_first(scores), scores, parts, corpus_statistics=statistics is not None
        )
        if mode is RerankMode.CROSS_ENCODER and self._cross_encoder is not None:
            return await self._cross_encode(retrieved, ordered, self._cross_encoder)
        return ordered

    async def _score(
        self, retrieved: Retrieved, statistics: WordStatistics | None
    ) -> Scores | None:
        """Score by the words kept; read what is not, keep it and score again.

        None: reading took the time that was left.
        """
        query, found = retrieved.query, retrieved.found
        scoring = Scoring(query.text, found.ids, found.similarities, query.options, statistics)
        with retrieved.trail.stage(Stage.SEARCH_RERANK, candidates=len(found.ids)):
            scores, unkept = await self._reranker.score(scoring)
            if not unkept:
                return scores
            chunks = await retrieved.texts(unkept)
            gone = set(unkept) - chunks.keys()
            if self._left_s(retrieved) < 0:
                return None
            scores, unkept = await self._reranker.score(scoring, chunks)
            if gone.issuperset(unkept):
                return scores
            # They do not fit, or others drove them out: read the rest too and score by the texts.
            chunks |= await retrieved.texts(
                [id_ for id_ in found.ids if id_ not in chunks and id_ not in gone]
            )
            if self._left_s(retrieved) < 0:
                return None
            return await self._reranker.score_texts(scoring, chunks)

    async def _cross_encode(
        self, retrieved: Retrieved, ordered: Ordered, encoder: CrossEncoder
    ) -> Ordered:
        """Put the first candidates in the cross-encoder's order, as many as there is time for."""
        query, ids = retrieved.query, retrieved.found.ids
        wanted = query.cross_encoder_candidates or self._cross_encoder_candidates
        first = ordered.order[:wanted]
        scores = np.empty(0, np.float32)
        if self._left_s(retrieved) > 0:
            with retrieved.trail.stage(Stage.SEARCH_CROSS_ENCODE, wanted=len(first)) as active:
                chunks = await retrieved.texts([ids[index] for index in first])
                first = [index for index in first if ids[index] in chunks]
                left_s = self._left_s(retrieved)
                if left_s > 0:
                    texts = [_passage(chunks[ids[index]]) for index in first]
                    scores = await encoder.score(query.text, texts, budget_s=left_s)
                active.set("scored", len(scores))
        led = _led_by(ordered, first[: len(scores)], scores)
        if len(scores) == len(first):
            return led
        return replace(led, lacking=(Degradation.CROSS_ENCODER_CUT,))

    def _left_s(self, retrieved: Retrieved) -> float:
        """Seconds left for ordering; negative when the reserve has begun."""
        return retrieved.trail.deadline.remaining_s() - self._reserve_s


def _led_by(ordered: Ordered, first: Sequence[int], scores: NDArray[np.float32]) -> Ordered:
    """The same order, but before it the candidates ``first`` in that of their own scores.

    Those become 1.5 + tanh(score / 2) / 2, a logistic function from 1 to 2: over the rest, whose
    fused scores are at most 1, so that scores still descend.
    """
    led = set(first)
    order = [first[place] for place in best_first(scores)]
    order += [index for index in ordered.order if index not in led]
    mixed = ordered.scores.astype(np.float64)
    mixed[list(first)] = 1.5 + np.tanh(scores.astype(np.float64) / 2) / 2
    return replace(
        ordered,
        order=order,
        scores=mixed,
        cross_encoded=dict(zip(first, scores.tolist(), strict=True)),
    )


def _passage(chunk: ChunkText) -> str:
    """What a cross-encoder reads of a chunk: the title, where there is one, and the text."""
    text = chunk.text.decode()
    return f"{chunk.title.decode()}\n{text}" if chunk.title else text
