"""Messages of QueryService to questions, and answers to messages: every field, both ways.

Decides nothing: what is wrong with a value is found where a question is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from common import records
from common.errors import InvalidArgument
from query.ranking import RerankMode
from query.search_query import Weights, search_query
from query.search_result import Degradation
from rerank_zig import Normalisation
from sluice.document.v1 import document_pb2
from sluice.query.v1 import query_pb2

if TYPE_CHECKING:
    from query.duplicates import Duplicate
    from query.search_query import SearchQuery
    from query.search_result import Explanation, Hit, ScoreParts, SearchResult
    from rerank_zig import FusionOptions

_MODES: Final = {
    query_pb2.RERANK_MODE_UNSPECIFIED: None,
    query_pb2.RERANK_MODE_DENSE: RerankMode.DENSE,
    query_pb2.RERANK_MODE_FUSED: RerankMode.FUSED,
    query_pb2.RERANK_MODE_LEXICAL: RerankMode.LEXICAL,
    query_pb2.RERANK_MODE_CROSS_ENCODER: RerankMode.CROSS_ENCODER,
}
_NORMALISATIONS: Final = {
    query_pb2.NORMALISATION_UNSPECIFIED: None,
    query_pb2.NORMALISATION_MIN_MAX: Normalisation.MIN_MAX,
    query_pb2.NORMALISATION_THEORETICAL: Normalisation.THEORETICAL,
}
_MODE_MESSAGES: Final = {mode: number for number, mode in _MODES.items() if mode}
_NORMALISATION_MESSAGES: Final = {kind: number for number, kind in _NORMALISATIONS.items() if kind}
_DEGRADATION_MESSAGES: Final = {
    Degradation.RERANK_SKIPPED: query_pb2.DEGRADATION_RERANK_SKIPPED,
    Degradation.STALE_ROUTE: query_pb2.DEGRADATION_STALE_ROUTE,
    Degradation.CROSS_ENCODER_CUT: query_pb2.DEGRADATION_CROSS_ENCODER_CUT,
}


def question(request: query_pb2.SearchRequest, defaults: FusionOptions) -> SearchQuery:
    """The question that a message asks.

    Args:
        request: as it came.
        defaults: weights where the request gives none.

    Raises:
        InvalidArgument: names the field.
    """
    kind = request.WhichOneof("query")
    return search_query(
        defaults=defaults,
        tenant=request.tenant,
        collection=request.collection,
        text=request.text if kind == "text" else None,
        vector=request.vector.values if kind == "vector" else None,
        top_k=request.top_k,
        candidate_count=request.candidate_count,
        filter_text=request.filter,
        mode=_known(_MODES, request.rerank, "rerank"),
        weights=_weights(request.weights),
        at_least=request.at_least,
        explain=request.explain,
        index_version=request.index_version,
        max_per_document=request.max_per_document,
        keep_duplicates=request.keep_duplicates,
        merge_neighbours=request.merge_neighbours,
        cross_encoder_candidates=request.cross_encoder_candidates,
    )


def answer(result: SearchResult) -> query_pb2.SearchResponse:
    """The message that an answer is sent as."""
    return query_pb2.SearchResponse(
        hits=[_hit(rank, hit) for rank, hit in enumerate(result.hits, start=1)],
        index_version=result.index_version,
        generation=result.generation,
        degraded=[_DEGRADATION_MESSAGES[reason] for reason in result.degraded],
        timings=[
            query_pb2.StageTiming(stage=stage, duration_ms=duration)
            for stage, duration in result.timings_ms.items()
        ],
        explanation=_explanation(result.explanation) if result.explanation else None,
        cross_encoded=result.cross_encoded,
    )


def _known(meanings: dict[Any, Any], number: int, field: str) -> Any:  # noqa: ANN401 — of either enum
    if number not in meanings:
        raise InvalidArgument(f"{number} is no value of this field", field=field)
    return meanings[number]


def _weights(weights: query_pb2.RerankWeights) -> Weights:
    given = {
        name: getattr(weights, name)
        for name in ("alpha", "k1", "b", "title", "proximity")
        if weights.HasField(name)
    }
    return Weights(
        **given,
        normalisation=_known(_NORMALISATIONS, weights.normalisation, "weights.normalisation"),
    )


def _hit(rank: int, hit: Hit) -> query_pb2.Hit:
    return query_pb2.Hit(
        rank=rank,
        chunk_id=hit.chunk_id,
        document_id=hit.document_id,
        document_version=hit.document_version,
        source_uri=hit.source_uri,
        title=hit.title,
        media_type=hit.media_type,
        span=_span(hit.span),
        page=hit.page,
        text=hit.text,
        metadata={key: records.to_proto(value) for key, value in hit.metadata.items()},
        score=hit.score,
        highlights=[_span(span) for span in hit.highlights],
        parts=_parts(hit.parts) if hit.parts else None,
        duplicates=[_duplicate(duplicate) for duplicate in hit.duplicates],
        merged_chunk_ids=hit.merged_chunk_ids,
    )


def _duplicate(duplicate: Duplicate) -> query_pb2.Duplicate:
    return query_pb2.Duplicate(
        chunk_id=duplicate.chunk_id,
        document_id=duplicate.document_id,
        source_uri=duplicate.source_uri,
        title=duplicate.title,
        span=_span(duplicate.span),
    )


def _span(span: tuple[int, int]) -> document_pb2.CharacterSpan:
    return document_pb2.CharacterSpan(start=span[0], end=span[1])


def _parts(parts: ScoreParts) -> query_pb2.ScoreParts:
    return query_pb2.ScoreParts(
        similarity=parts.similarity,
        dense=parts.dense,
        bm25=parts.bm25,
        lexical=parts.lexical,
        dense_rank=parts.dense_rank,
        title=parts.title,
        proximity=parts.proximity,
        fused=parts.fused,
        cross_encoder=parts.cross_encoder,
    )


def _explanation(explanation: Explanation) -> query_pb2.Explanation:
    options = explanation.options
    return query_pb2.Explanation(
        terms=explanation.terms,
        rerank=_MODE_MESSAGES[explanation.mode],
        alpha=explanation.alpha,
        k1=options.k1,
        b=options.b,
        normalisation=_NORMALISATION_MESSAGES[options.normalisation],
        candidates=explanation.candidates,
        store_filter=explanation.store_filter,
        title=options.title,
        proximity=options.proximity,
        statistics_chunks=explanation.statistics_chunks,
        corpus_statistics=explanation.corpus_statistics,
    )
