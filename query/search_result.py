"""An answer, before it becomes a message: hits, the version that gave them, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.records import MetadataValue
    from query.duplicates import Duplicate
    from query.ranking import RerankMode
    from rerank_zig import FusionOptions


class Degradation(Enum):
    """Why an answer is less than it could be."""

    RERANK_SKIPPED = "rerank_skipped"
    STALE_ROUTE = "stale_route"
    CROSS_ENCODER_CUT = "cross_encoder_cut"


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What a score was made of.

    Attributes:
        similarity: cosine, -1 to 1.
        dense: the similarity after normalisation, 0 to 1; 0 where nothing was normalised.
        bm25: the words' score, from 0.
        lexical: BM25 after normalisation, 0 to 1.
        dense_rank: rank among the candidates by vectors alone, counted from 1.
        title: what words in the title added to ``bm25``.
        proximity: what words near each other added to ``bm25``.
        fused: meaning and words together, 0 to 1; 0 where words were not looked at.
        cross_encoder: the cross-encoder's score; None where it gave none.
    """

    similarity: float
    dense: float
    bm25: float
    lexical: float
    dense_rank: int
    title: float
    proximity: float
    fused: float
    cross_encoder: float | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk of an answer, or a passage merged of several; spans count characters, half open.

    Attributes:
        span: where the text stands in its document.
        page: the page it begins on; 0 for sources without pages.
        score: greater is better, within one answer: what its mode orders by, and for what the
            cross-encoder scored 1 to 2, so that it stands above the rest.
        highlights: words of the query in the text, ascending.
        parts: None unless asked to explain.
        duplicates: other places where nearly this text stands, best first.
        merged_chunk_ids: of a passage, the chunks it was merged of, in the order of the text.
    """

    chunk_id: str
    document_id: str
    document_version: int
    source_uri: str
    title: str
    media_type: str
    span: tuple[int, int]
    page: int
    text: str
    metadata: Mapping[str, MetadataValue]
    score: float
    highlights: tuple[tuple[int, int], ...]
    parts: ScoreParts | None
    duplicates: tuple[Duplicate, ...] = ()
    merged_chunk_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the answer was made: what ran, which need not be what was asked for.

    Attributes:
        alpha: share of meaning in what ordered the candidates, 0 to 1.
        statistics_chunks: chunks that words' frequencies were counted over.
        corpus_statistics: whether these are the version's, not the candidates themselves.
    """

    terms: tuple[str, ...]
    mode: RerankMode
    options: FusionOptions
    alpha: float
    candidates: int
    store_filter: str
    statistics_chunks: int
    corpus_statistics: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """An answer.

    Attributes:
        hits: best first.
        index_version: number of the version that answered.
        generation: how often the collection was switched before; 0 of a version that was asked for
            by its number and is not the one active here.
        degraded: empty when the answer is whole.
        timings_ms: milliseconds by stage, in the order they ran; a repeated stage is summed.
        explanation: None unless asked to explain.
        cross_encoded: candidates that the cross-encoder scored.
    """

    hits: tuple[Hit, ...]
    index_version: int
    generation: int
    degraded: tuple[Degradation, ...]
    timings_ms: Mapping[str, float]
    explanation: Explanation | None
    cross_encoded: int = 0
