"""QueryService on the wire: a message in, a message out, and nothing decided in between.

On a stream many queries are in progress at once, within a bound; each is answered as it is ready,
and one that fails never ends the stream.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from common.errors import SluiceError
from common.rpc import Deadline
from common.telemetry import current_trace_id, describe_exception
from query.messages import answer, question
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from query.search import Searcher
    from rerank_zig import FusionOptions

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

logger = logging.getLogger(__name__)

SERVICE: Final = query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name


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
        query = question(request, self._defaults)
        return answer(await self._searcher.search(query, deadline))


async def _next(
    requests: AsyncIterator[query_pb2.SearchStreamRequest],
) -> query_pb2.SearchStreamRequest | None:
    """The next request; None after the last."""
    return await anext(requests, None)


def _ended(reading: asyncio.Task[query_pb2.SearchStreamRequest | None]) -> bool:
    return reading.done() and reading.result() is None
