"""QueryService on the wire: messages to questions, answers to messages, and nothing else.

On a stream many queries are in progress at once, within a bound; each is answered as it is ready,
and one that fails never ends the stream.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from common import records
from common.errors import InvalidArgument, SluiceError
from common.rpc import Deadline
from common.telemetry import current_trace_id, describe_exception
from query.ranking import RerankMode
from query.search_query import Weights, search_query
from query.search_result import Degradation
from rerank_zig import Normalisation
from sluice.document.v1 import document_pb2
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from query.search import Searcher
    from query.search_result import Explanation, Hit, ScoreParts, SearchResult
    from rerank_zig import FusionOptions

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

logger = logging.getLogger(__name__)

SERVICE: Final = query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name

_MODES: Final = {
    query_pb2.RERANK_MODE_UNSPECIFIED: None,
    query_pb2.RERANK_MODE_DENSE: RerankMode.DENSE,
    query_pb2.RERANK_MODE_FUSED: RerankMode.FUSED,
    query_pb2.RERANK_MODE_LEXICAL: RerankMode.LEXICAL,
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
}


class QueryService(query_pb2_grpc.QueryServiceServicer):
    """Answers ``sluice.query.v1.QueryService``.

    Args:
        searcher: answers queries.
        defaults: weights where a request gives none.
        deadline_s: of a request that brings none, and of each query of a stream, in seconds.
        max_stream_searches: queries of one stream in progress at once.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        defaults: FusionOptions,
        deadline_s: float,
        max_stream_searches: int,
    ) -> None:
        self._searcher = searcher
        self._defaults = defaults
        self._deadline_s = deadline_s
        self._max_stream_searches = max_stream_searches

    async def Search(  # noqa: N802 — the contract's name
        self, request: query_pb2.SearchRequest, context: Context
    ) -> query_pb2.SearchResponse:
        """Answer one query."""
        return await self._search(request, Deadline.of(context, self._deadline_s))

    async def SearchStream(  # noqa: N802 — the contract's name
        self, request_iterator: AsyncIterator[query_pb2.SearchStreamRequest], context: Context
    ) -> AsyncIterator[query_pb2.SearchStreamResponse]:
        """Answer queries as they come, each when it is ready."""
        whole = Deadline.of(context, float("inf"))
        searches: set[asyncio.Task[query_pb2.SearchStreamResponse]] = set()
        reading = asyncio.create_task(_next(request_iterator))
        try:
            while searches or not _ended(reading):
                # Reading stops at the bound, so a client that does not wait is held back.
                waiting: set[asyncio.Task[Any]] = set(searches)
                if len(searches) < self._max_stream_searches and not _ended(reading):
                    waiting.add(reading)
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if reading in done and (request := reading.result()) is not None:
                    searches.add(asyncio.create_task(self._respond(request, whole)))
                    reading = asyncio.create_task(_next(request_iterator))
                for search in searches & done:
                    searches.remove(search)
                    yield search.result()
        finally:
            pending = [reading, *searches]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _respond(
        self, request: query_pb2.SearchStreamRequest, whole: Deadline
    ) -> query_pb2.SearchStreamResponse:
        """Answer one query of a stream; its failure is an answer too."""
        deadline = Deadline(min(whole.at_s, Deadline.after(self._deadline_s).at_s))
        try:
            response = await self._search(request.search, deadline)
        except SluiceError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 — one query's fault must not end the others
            logger.error("unexpected error", extra=describe_exception(error))  # noqa: TRY400 — a traceback would show the message
            failure = SluiceError(f"internal error; trace {current_trace_id()}")
        else:
            return query_pb2.SearchStreamResponse(sequence=request.sequence, response=response)
        return query_pb2.SearchStreamResponse(
            sequence=request.sequence,
            error=query_pb2.SearchError(code=failure.code.value[0], message=failure.message),
        )

    async def _search(
        self, request: query_pb2.SearchRequest, deadline: Deadline
    ) -> query_pb2.SearchResponse:
        kind = request.WhichOneof("query")
        query = search_query(
            defaults=self._defaults,
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
        )
        return _response(await self._searcher.search(query, deadline))


async def _next(
    requests: AsyncIterator[query_pb2.SearchStreamRequest],
) -> query_pb2.SearchStreamRequest | None:
    """The next request; None after the last."""
    return await anext(requests, None)


def _ended(reading: asyncio.Task[query_pb2.SearchStreamRequest | None]) -> bool:
    return reading.done() and reading.result() is None


def _known(meanings: dict[Any, Any], number: int, field: str) -> Any:  # noqa: ANN401 — of either enum
    if number not in meanings:
        raise InvalidArgument(f"{number} is no value of this field", field=field)
    return meanings[number]


def _weights(weights: query_pb2.RerankWeights) -> Weights:
    return Weights(
        alpha=weights.alpha if weights.HasField("alpha") else None,
        k1=weights.k1 if weights.HasField("k1") else None,
        b=weights.b if weights.HasField("b") else None,
        normalisation=_known(_NORMALISATIONS, weights.normalisation, "weights.normalisation"),
    )


def _response(result: SearchResult) -> query_pb2.SearchResponse:
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
    )


def _explanation(explanation: Explanation) -> query_pb2.Explanation:
    options = explanation.options
    return query_pb2.Explanation(
        terms=explanation.terms,
        rerank=_MODE_MESSAGES[explanation.mode],
        alpha=options.alpha,
        k1=options.k1,
        b=options.b,
        normalisation=_NORMALISATION_MESSAGES[options.normalisation],
        candidates=explanation.candidates,
        store_filter=explanation.store_filter,
    )
