"""What a channel adds to a call: retries where they are safe, and the trace."""

from __future__ import annotations

import asyncio
import importlib

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from common.errors import NotFound, Overloaded, SluiceError, Unavailable
from common.rpc import ChannelSettings, open_channel
from common.rpc.channel import IDEMPOTENT
from common.telemetry import Stage, current_trace_id, span
from sluice.index.v1 import index_pb2, index_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc


class _Counting:
    """Fails the first calls, then answers."""

    def __init__(self, error: SluiceError, failures: int) -> None:
        self._error = error
        self._failures = failures
        self.calls = 0

    async def __call__(self, _request, _context):
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return query_pb2.SearchResponse(index_version=9)


async def _search(channel: grpc.aio.Channel) -> query_pb2.SearchResponse:
    stub = query_pb2_grpc.QueryServiceStub(channel)
    return await stub.Search(query_pb2.SearchRequest(), timeout=20)


@pytest.mark.parametrize(
    "error",
    [Unavailable("away"), Overloaded("busy", retry_after_ms=20)],
    ids=["unavailable", "pushback"],
)
async def test_search_is_retried(running, error: SluiceError):
    server_side = _Counting(error, failures=2)
    async with running(server_side) as server, open_channel(server.address) as channel:
        assert (await _search(channel)).index_version == 9
    assert server_side.calls == 3


async def test_delete_documents_is_retried(running):
    server_side = _Counting(Unavailable("away"), failures=1)
    async with running(server_side) as server, open_channel(server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        await stub.DeleteDocuments(index_pb2.DeleteDocumentsRequest(), timeout=20)
    assert server_side.calls == 2


async def test_retries_end_after_four_attempts(running):
    server_side = _Counting(Unavailable("away", retry_after_ms=1), failures=100)
    async with running(server_side) as server, open_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _search(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server_side.calls == 4


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no such collection"),
        Overloaded("a repeat is useless"),
        Unavailable("for long", retry_after_ms=60_000),
    ],
    ids=["not-found", "no-pushback", "long-pushback"],
)
async def test_what_a_repeat_cannot_cure_is_not_retried(running, error: SluiceError):
    server_side = _Counting(error, failures=1)
    async with running(server_side) as server, open_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _search(channel)
    assert caught.value.code() is error.code
    assert server_side.calls == 1


async def test_other_methods_are_not_retried(running):
    server_side = _Counting(Unavailable("away"), failures=1)
    async with running(server_side) as server, open_channel(server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        call = stub.IndexDocuments(iter([index_pb2.IndexDocumentsRequest()]), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server_side.calls == 1


def test_retried_methods_exist_in_the_contracts():
    for service, method in IDEMPOTENT:
        package, _, name = service.rpartition(".")
        module = {"grpc.health.v1": "grpc_health.v1.health_pb2"}.get(
            package, f"{package}.{package.split('.')[1]}_pb2"
        )
        descriptor = importlib.import_module(module).DESCRIPTOR.services_by_name[name]
        found = descriptor.methods_by_name[method]
        assert not found.client_streaming
        assert not found.server_streaming


async def _spans(exporter: InMemorySpanExporter, count: int):
    """The finished spans by kind, once there are that many: a server's may end after the answer."""
    async with asyncio.timeout(10):
        while len(exporter.get_finished_spans()) < count:  # noqa: ASYNC110  # exporters set no event
            await asyncio.sleep(0)
    return {finished.kind: finished for finished in exporter.get_finished_spans()}


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_trace_crosses_the_wire(running, telemetry, *, streaming: bool):
    exporter = InMemorySpanExporter()
    telemetry(span_exporter=exporter)
    on_server: list[str] = []

    async def search(_request, _context):
        on_server.append(current_trace_id())
        return query_pb2.SearchResponse()

    async with running(search) as server, open_channel(server.address) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        with span(Stage.CLIENT_SEARCH):
            on_client = current_trace_id()
            if streaming:
                requests = [query_pb2.SearchStreamRequest()]
                assert len([answer async for answer in stub.SearchStream(iter(requests))]) == 1
            else:
                await stub.Search(query_pb2.SearchRequest())
        spans = await _spans(exporter, 3)
    assert on_server == [on_client]
    name = "sluice.query.v1.QueryService/" + ("SearchStream" if streaming else "Search")
    inner, client, served = (
        spans[kind] for kind in (SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.SERVER)
    )
    assert client.name == served.name == name
    assert inner.parent is None
    assert client.parent is not None
    assert served.parent is not None
    assert client.parent.span_id == inner.context.span_id
    assert served.parent.span_id == client.context.span_id
    assert served.parent.is_remote
    assert client.attributes["rpc.response.status_code"] == "OK"
    assert served.attributes["rpc.response.status_code"] == "OK"


async def test_both_sides_tell_how_a_call_failed(running, telemetry):
    exporter = InMemorySpanExporter()
    telemetry(span_exporter=exporter)
    server_side = _Counting(NotFound("no such collection"), failures=1)
    async with running(server_side) as server, open_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await _search(channel)
        spans = await _spans(exporter, 2)
    client, served = spans[SpanKind.CLIENT], spans[SpanKind.SERVER]
    assert client.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert served.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert client.status.status_code is StatusCode.ERROR
    # A wrong request is no fault of the server.
    assert served.status.status_code is StatusCode.UNSET


async def test_callers_metadata_is_kept(running):
    seen = {}

    async def search(_request, context):
        seen.update(context.invocation_metadata())
        return query_pb2.SearchResponse()

    async with running(search) as server, open_channel(server.address) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        await stub.Search(query_pb2.SearchRequest(), metadata=(("x-tenant", "a"),), timeout=10)
    assert seen["x-tenant"] == "a"
    assert "traceparent" in seen


async def test_a_dead_server_is_unavailable_at_once(running):
    async with running() as server:
        address = server.address
    async with open_channel(address, ChannelSettings(max_attempts=1)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _search(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
