"""A real server on a free port, whose methods each test writes for itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from common.telemetry import Telemetry, TelemetrySettings
from sluice.index.v1 import index_pb2, index_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.errors import SluiceError

QUERY = "sluice.query.v1.QueryService"
INDEX = "sluice.index.v1.IndexService"
COUNTING = "test.Counting"


class _Query(query_pb2_grpc.QueryServiceServicer):
    """Both methods as the test gives them; SearchStream answers by sequence."""

    def __init__(self, search: Callable[..., Any]) -> None:
        self._search = search

    async def Search(self, request, context):  # noqa: N802  # named by the contract
        return await self._search(request, context)

    async def SearchStream(self, request_iterator, context):  # noqa: N802  # named by the contract
        async for request in request_iterator:
            response = await self._search(request.search, context)
            yield query_pb2.SearchStreamResponse(sequence=request.sequence, response=response)


class _Index(index_pb2_grpc.IndexServiceServicer):
    """ListDocuments by generator, IndexDocuments by the reader's and writer's API."""

    def __init__(self, search: Callable[..., Any]) -> None:
        self._search = search

    async def ListDocuments(self, request, context):  # noqa: N802  # named by the contract
        yield index_pb2.ListDocumentsResponse()
        await self._search(request, context)

    async def IndexDocuments(self, _requests, context):  # type: ignore[override]  # noqa: N802  # the stubs know generators only
        while (request := await context.read()) is not grpc.aio.EOF:
            await self._search(request, context)
            await context.write(index_pb2.IndexDocumentsResponse())

    async def DeleteDocuments(self, request, context):  # noqa: N802  # named by the contract
        await self._search(request, context)
        return index_pb2.DeleteDocumentsResponse()


def _counting(search: Callable[..., Any]) -> grpc.GenericRpcHandler:
    """The fourth kind, stream to unary, which no contract has."""

    async def count(request_iterator, context):
        seen = 0
        async for request in request_iterator:
            await search(request, context)
            seen += 1
        return query_pb2.SearchResponse(index_version=seen)

    handler = grpc.stream_unary_rpc_method_handler(
        count,
        request_deserializer=query_pb2.SearchRequest.FromString,
        response_serializer=query_pb2.SearchResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(COUNTING, {"Count": handler})


async def _answer(_request: object, _context: object) -> query_pb2.SearchResponse:
    return query_pb2.SearchResponse(index_version=7)


@asynccontextmanager
async def _running(
    search: Callable[..., Any] = _answer,
    *,
    refusal: Callable[[], SluiceError | None] | None = None,
    **settings: Any,
) -> AsyncIterator[GrpcServer]:
    bindings = [
        ServiceBinding(
            QUERY,
            lambda server: query_pb2_grpc.add_QueryServiceServicer_to_server(
                _Query(search), server
            ),
            refusal=refusal,
        ),
        ServiceBinding(
            INDEX,
            lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(
                _Index(search), server
            ),
        ),
        ServiceBinding(
            COUNTING, lambda server: server.add_generic_rpc_handlers((_counting(search),))
        ),
    ]
    chosen = ServerSettings(**{"listen": "127.0.0.1:0", "drain_s": 5.0} | settings)
    async with GrpcServer.open(chosen, bindings) as server:
        yield server


@pytest.fixture
def running():
    """``async with running(search, **settings) as server``."""
    return _running


@pytest.fixture
async def telemetry():
    """``telemetry(**options)`` opens; closed with the test, last opened first."""
    opened: list[Telemetry] = []

    def open_telemetry(**options: Any) -> Telemetry:
        settings = TelemetrySettings(**options.pop("settings", {}))
        opened.append(Telemetry.open("test", settings, options.pop("environ", {}), **options))
        return opened[-1]

    yield open_telemetry
    while opened:
        await opened.pop().aclose()
