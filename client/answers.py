"""What a search asks and what comes back, as frozen values that know nothing of gRPC.

Names and units are those of the contract ``sluice.query.v1``. Translating to and from its messages
is done here and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from common.records import MetadataValue, from_proto
from sluice.query.v1 import query_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RerankMode: TypeAlias = Literal["dense", "fused", "lexical", "cross_encoder"]

_MODES: dict[str, query_pb2.RerankMode.ValueType] = {
    "": query_pb2.RERANK_MODE_UNSPECIFIED,
    "dense": query_pb2.RERANK_MODE_DENSE,
    "fused": query_pb2.RERANK_MODE_FUSED,
    "lexical": query_pb2.RERANK_MODE_LEXICAL,
    "cross_encoder": query_pb2.RERANK_MODE_CROSS_ENCODER,
}


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One question.

    Attributes:
        text: the question; leave it empty to search by ``vector``.
        collection: where to look.
        vector: of the index version's dimension; ranks by meaning alone.
        top_k: hits wanted; 0 leaves it to the server (10).
        candidates: taken from the vector store; 0 leaves it to the server.
        filter: on metadata, e.g. ``lang = "en" AND year >= 2020``.
        rerank: None leaves it to the server.
        alpha: share of meaning in a fused score, 0 to 1; None leaves it to the server, as with all
            weights.
        k1: BM25 term saturation, 0 to 10.
        b: BM25 length normalisation, 0 to 1.
        title_weight: what a word in the title counts beside one in the text, 0 to 100.
        proximity_weight: what words of the query that stand near each other add, 0 to 10.
        at_least: a consistency token: the answer includes that write.
        explain: ask for the parts of each score, the query's terms and the plan.
        index_version: a READY, ACTIVE or RETIRED version to ask; 0 means the active one. Not
            together with ``at_least``.
        max_per_document: hits of one document, at most; 0 means any number.
        keep_duplicates: texts that nearly repeat a better hit stand as hits of their own.
        merge_neighbours: hits that follow each other in a document become one passage.
        cross_encoder_candidates: of ``cross_encoder``: how many it may score; 0 leaves it to the
            server.
    """

    text: str
    collection: str
    vector: Sequence[float] | None = None
    top_k: int = 0
    candidates: int = 0
    filter: str = ""
    rerank: RerankMode | None = None
    alpha: float | None = None
    at_least: str = ""
    explain: bool = False
    index_version: int = 0
    k1: float | None = None
    b: float | None = None
    title_weight: float | None = None
    proximity_weight: float | None = None
    max_per_document: int = 0
    keep_duplicates: bool = False
    merge_neighbours: bool = False
    cross_encoder_candidates: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Characters (code points), half open."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What a score was made of: cosine and BM25, raw and normalised, and the rank by vectors.

    Attributes:
        similarity: cosine, -1 to 1.
        dense: the similarity after normalisation, 0 to 1.
        bm25: with what ``title`` and ``proximity`` added to it.
        lexical: BM25 after normalisation, 0 to 1.
        dense_rank: among the candidates by vectors alone, counted from 1.
        title: what words in the title added to ``bm25``.
        proximity: what words near each other added to it.
        fused: by meaning and words together, 0 to 1.
        cross_encoder: None for what the cross-encoder did not score.
    """

    similarity: float
    dense: float
    bm25: float
    lexical: float
    dense_rank: int
    title: float = 0.0
    proximity: float = 0.0
    fused: float = 0.0
    cross_encoder: float | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Where a hit's text stands once more."""

    chunk_id: str
    document_id: str
    source_uri: str
    title: str
    span: Span


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage of an answer; ``highlights`` are spans of ``text``, ``span`` of the document.

    ``duplicates`` are other places of nearly this text, best first; ``merged_chunk_ids`` the chunks
    that a merged passage was made of, in the order of the text.
    """

    rank: int
    score: float
    document_id: str
    chunk_id: str
    source_uri: str
    title: str
    media_type: str
    document_version: int
    page: int
    span: Span
    text: str
    highlights: tuple[Span, ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    parts: ScoreParts | None = None
    duplicates: tuple[Duplicate, ...] = ()
    merged_chunk_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long one stage took on the server, in milliseconds."""

    stage: str
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the answer was made: weights as they were used for it.

    ``statistics_chunks`` is how many chunks the words' frequencies were counted over: those of the
    index version if ``corpus_statistics``, else the candidates.
    """

    terms: tuple[str, ...]
    rerank: str
    alpha: float
    k1: float
    b: float
    normalisation: str
    candidates: int
    store_filter: str
    title: float = 0.0
    proximity: float = 0.0
    statistics_chunks: int = 0
    corpus_statistics: bool = False


@dataclass(frozen=True, slots=True)
class SearchResponse:
    """An answer, best hit first.

    Attributes:
        hits: the passages.
        index_version: the version that answered.
        generation: how often the collection was switched before.
        degraded: ``rerank_skipped``, ``stale_route``, ``cross_encoder_cut``; empty when the answer
            is whole.
        timings: the server's stages in the order they ran.
        explanation: None unless asked for.
        cross_encoded: candidates that the cross-encoder scored; they come first.
    """

    hits: tuple[Hit, ...]
    index_version: int
    generation: int
    degraded: tuple[str, ...]
    timings: tuple[StageTiming, ...]
    explanation: Explanation | None
    cross_encoded: int = 0

    @property
    def server_ms(self) -> float:
        """What the server's stages took together, in milliseconds."""
        return math.fsum(timing.duration_ms for timing in self.timings)

    def to_json(self) -> dict[str, Any]:
        """The answer as plain values for a JSON object."""
        return asdict(self)


def to_request(query: SearchQuery, tenant: str) -> query_pb2.SearchRequest:
    """The question as the contract carries it."""
    request = query_pb2.SearchRequest(
        tenant=tenant,
        collection=query.collection,
        top_k=query.top_k,
        candidate_count=query.candidates,
        filter=query.filter,
        rerank=_MODES[query.rerank or ""],
        at_least=query.at_least,
        explain=query.explain,
        index_version=query.index_version,
        max_per_document=query.max_per_document,
        keep_duplicates=query.keep_duplicates,
        merge_neighbours=query.merge_neighbours,
        cross_encoder_candidates=query.cross_encoder_candidates,
    )
    if query.vector is None:
        request.text = query.text
    else:
        request.vector.values.extend(query.vector)
    weights = {
        "alpha": query.alpha,
        "k1": query.k1,
        "b": query.b,
        "title": query.title_weight,
        "proximity": query.proximity_weight,
    }
    for name, weight in weights.items():
        if weight is not None:
            setattr(request.weights, name, weight)
    return request


def to_response(message: query_pb2.SearchResponse) -> SearchResponse:
    """The answer out of the contract."""
    return SearchResponse(
        hits=tuple(_hit(hit) for hit in message.hits),
        index_version=message.index_version,
        generation=message.generation,
        degraded=tuple(
            query_pb2.Degradation.Name(reason).removeprefix("DEGRADATION_").lower()
            for reason in message.degraded
        ),
        timings=tuple(StageTiming(t.stage, t.duration_ms) for t in message.timings),
        explanation=_explanation(message.explanation) if message.HasField("explanation") else None,
        cross_encoded=message.cross_encoded,
    )


def _hit(hit: query_pb2.Hit) -> Hit:
    return Hit(
        rank=hit.rank,
        score=hit.score,
        document_id=hit.document_id,
        chunk_id=hit.chunk_id,
        source_uri=hit.source_uri,
        title=hit.title,
        media_type=hit.media_type,
        document_version=hit.document_version,
        page=hit.page,
        span=Span(hit.span.start, hit.span.end),
        text=hit.text,
        highlights=tuple(Span(span.start, span.end) for span in hit.highlights),
        metadata={key: from_proto(value) for key, value in sorted(hit.metadata.items())},
        parts=_parts(hit.parts) if hit.HasField("parts") else None,
        duplicates=tuple(map(_duplicate, hit.duplicates)),
        merged_chunk_ids=tuple(hit.merged_chunk_ids),
    )


def _duplicate(place: query_pb2.Duplicate) -> Duplicate:
    return Duplicate(
        chunk_id=place.chunk_id,
        document_id=place.document_id,
        source_uri=place.source_uri,
        title=place.title,
        span=Span(place.span.start, place.span.end),
    )


def _parts(parts: query_pb2.ScoreParts) -> ScoreParts:
    return ScoreParts(
        similarity=parts.similarity,
        dense=parts.dense,
        bm25=parts.bm25,
        lexical=parts.lexical,
        dense_rank=parts.dense_rank,
        title=parts.title,
        proximity=parts.proximity,
        fused=parts.fused,
        cross_encoder=parts.cross_encoder if parts.HasField("cross_encoder") else None,
    )


def _explanation(told: query_pb2.Explanation) -> Explanation:
    normalisation = query_pb2.Normalisation.Name(told.normalisation)
    return Explanation(
        terms=tuple(told.terms),
        rerank=query_pb2.RerankMode.Name(told.rerank).removeprefix("RERANK_MODE_").lower(),
        alpha=told.alpha,
        k1=told.k1,
        b=told.b,
        normalisation=normalisation.removeprefix("NORMALISATION_").lower(),
        candidates=told.candidates,
        store_filter=told.store_filter,
        title=told.title,
        proximity=told.proximity,
        statistics_chunks=told.statistics_chunks,
        corpus_statistics=told.corpus_statistics,
    )
