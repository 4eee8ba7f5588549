"""An answer, before it becomes a message: hits, the version that gave them, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.records import MetadataValue
    from query.ranking import RerankMode
    from rerank_zig import FusionOptions


class Degradation(Enum):
    """Why an answer is less than it could be."""

    RERANK_SKIPPED = "rerank_skipped"
    STALE_ROUTE = "stale_route"


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What a score was made of.

    Attributes:
        similarity: cosine, -1 to 1.
        dense: the similarity after normalisation, 0 to 1; 0 where nothing was normalised.
        bm25: the words' score, from 0.
        lexical: BM25 after normalisation, 0 to 1.
        dense_rank: rank among the candidates by vectors alone, counted from 1.
    """

    similarity: float
    dense: float
    bm25: float
    lexical: float
    dense_rank: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk of an answer; spans count characters, half open.

    Attributes:
        span: where the text stands in its document.
        page: the page it begins on; 0 for sources without pages.
        highlights: words of the query in the text, ascending.
        parts: None unless asked to explain.
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


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the answer was made: what ran, which need not be what was asked for."""

    terms: tuple[str, ...]
    mode: RerankMode
    options: FusionOptions
    candidates: int
    store_filter: str


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
    """

    hits: tuple[Hit, ...]
    index_version: int
    generation: int
    degraded: tuple[Degradation, ...]
    timings_ms: Mapping[str, float]
    explanation: Explanation | None
