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

RerankMode: TypeAlias = Literal["dense", "fused", "lexical"]

_MODES: dict[str, query_pb2.RerankMode.ValueType] = {
    "": query_pb2.RERANK_MODE_UNSPECIFIED,
    "dense": query_pb2.RERANK_MODE_DENSE,
    "fused": query_pb2.RERANK_MODE_FUSED,
    "lexical": query_pb2.RERANK_MODE_LEXICAL,
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
        alpha: share of meaning in a fused score, 0 to 1; None leaves it to the server.
        at_least: a consistency token: the answer includes that write.
        explain: ask for the parts of each score, the query's terms and the plan.
        index_version: a READY, ACTIVE or RETIRED version to ask; 0 means the active one. Not
            together with ``at_least``.
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


@dataclass(frozen=True, slots=True)
class Span:
    """Characters (code points), half open."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What a score was made of: cosine and BM25, raw and normalised, and the rank by vectors."""

    similarity: float
    dense: float
    bm25: float
    lexical: float
    dense_rank: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage of an answer; ``highlights`` are spans of ``text``, ``span`` of the document."""

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


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long one stage took on the server, in milliseconds."""

    stage: str
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the answer was made."""

    terms: tuple[str, ...]
    rerank: str
    alpha: float
    k1: float
    b: float
    normalisation: str
    candidates: int
    store_filter: str


@dataclass(frozen=True, slots=True)
class SearchResponse:
    """An answer, best hit first.

    Attributes:
        hits: the passages.
        index_version: the version that answered.
        generation: how often the collection was switched before.
        degraded: ``rerank_skipped``, ``stale_route``; empty when the answer is whole.
        timings: the server's stages in the order they ran.
        explanation: None unless asked for.
    """

    hits: tuple[Hit, ...]
    index_version: int
    generation: int
    degraded: tuple[str, ...]
    timings: tuple[StageTiming, ...]
    explanation: Explanation | None

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
    )
    if query.vector is None:
        request.text = query.text
    else:
        request.vector.values.extend(query.vector)
    if query.alpha is not None:
        request.weights.alpha = query.alpha
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
    )


def _parts(parts: query_pb2.ScoreParts) -> ScoreParts:
    return ScoreParts(parts.similarity, parts.dense, parts.bm25, parts.lexical, parts.dense_rank)


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
    )
