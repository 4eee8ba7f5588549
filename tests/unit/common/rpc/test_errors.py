"""Errors and malformed messages, in every kind of RPC, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TypeAlias

import grpc
import pytest
from google.rpc import (
    error_details_pb2,
    status_pb2,
)

from common.errors import InvalidArgument, Overloaded, SluiceError, Unavailable
from common.rpc import (
    ChannelSettings,
    GrpcServer,
    ServerSettings,
    ServiceBinding,
    open_channel,
    translate_rpc_error,
)
from sluice.index.v1 import index_pb2, index_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc

PRIVATE = "the quick brown document"
# Field 2 (collection), two bytes that are no UTF-8.
NOT_UTF8 = b"\x12\x02\xff\xfe"
TRUNCATED = b"\x12\x7f"
Raw: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
RawStream: TypeAlias = grpc.aio.StreamStreamMultiCallable[bytes, bytes]
ONCE = ChannelSettings(max_attempts=1)


async def _invoke(address: str, kind: str) -> None:
    """One RPC of that kind, run to its end."""
    async with open_channel(address, ONCE) as channel:
        index = index_pb2_grpc.IndexServiceStub(channel)
        query = query_pb2_grpc.QueryServiceStub(channel)
        requests = [query_pb2.SearchStreamRequest(sequence=1)]
        if kind == "unary_unary":
            await query.Search(query_pb2.SearchRequest(), timeout=10)
        elif kind == "unary_stream":
            async for _ in index.ListDocuments(index_pb2.ListDocumentsRequest(), timeout=10):
                pass
        elif kind == "stream_unary":
            method = channel.stream_unary(
                "/test.Counting/Count",
                request_serializer=query_pb2.SearchRequest.SerializeToString,
                response_deserializer=query_pb2.SearchResponse.FromString,
            )
            await method(iter([query_pb2.SearchRequest()]), timeout=10)
        elif kind == "stream_stream":
            async for _ in query.SearchStream(iter(requests), timeout=10):
                pass
        else:
            async for _ in index.IndexDocuments(
                iter([index_pb2.IndexDocumentsRequest()]), timeout=10
            ):
                pass


KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream", "reader_writer")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_rpc_succeeds_and_reports_errors(running, kind: str):
    failures: list[Exception] = []

    async def search(_request, _context):
        if failures:
            raise failures[0]
        return query_pb2.SearchResponse()

    async with running(search) as server:
        await _invoke(server.address, kind)
        failures.append(Overloaded("too much; wait", retry_after_ms=1500))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _invoke(server.address, kind)
    translated = translate_rpc_error(caught.value)
    assert type(translated) is Overloaded
    assert translated.message == "too much; wait"
    assert translated.retry_after_ms == 1500


async def test_retry_delay_is_a_standard_retry_info(running):
    async def search(_request, _context):
        raise Unavailable("away", retry_after_ms=2500)

    async with running(search) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _invoke(server.address, "unary_unary")
    metadata = dict(caught.value.trailing_metadata())
    raw = metadata["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert status.message == caught.value.details()
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 2500
    # Longer than a library may wait silently: it is the caller's turn.
    assert metadata["grpc-retry-pushback-ms"] == "-1"


@pytest.mark.parametrize("kind", KINDS)
async def test_unexpected_exception_hides_its_message(running, telemetry, capfd, caplog, kind):
    async def search(_request, _context):
        try:
            os.environ[PRIVATE]
        except KeyError as error:
            raise ValueError(PRIVATE) from error

    telemetry()
    async with running(search) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _invoke(server.address, kind)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    details = caught.value.details()
    assert details is not None
    assert details.startswith("internal error; trace ")
    written = capfd.readouterr().err
    assert PRIVATE not in written
    assert PRIVATE not in caplog.text  # as a handler that is not ours formats it
    lines = [json.loads(line) for line in written.splitlines()]
    (error,) = [line for line in lines if line["level"] == "error"]
    assert error["error_type"] == "ValueError"
    assert error["trace_id"] == details.rpartition(" ")[2]
    places = error["traceback"]
    assert any(place.endswith(" search") for place in places)
    assert places.index("KeyError") < places.index("ValueError")


async def test_timeout_becomes_deadline_exceeded(running):
    async def search(_request, _context):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with running(search) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _invoke(server.address, "unary_unary")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    details = caught.value.details()
    assert details is not None
    assert "allow more time" in details


async def test_a_method_the_servicer_leaves_out_is_unimplemented():
    bare = query_pb2_grpc.QueryServiceServicer()  # type: ignore[abstract]  # that is the case
    binding = ServiceBinding(
        "sluice.query.v1.QueryService",
        lambda server: query_pb2_grpc.add_QueryServiceServicer_to_server(bare, server),
    )
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=1.0)
    async with GrpcServer.open(settings, [binding]) as server:
        for kind in ("unary_unary", "stream_stream"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _invoke(server.address, kind)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_no_contract_has_is_unimplemented(running):
    async with running() as server, open_channel(server.address) as channel:
        method: Raw = channel.unary_unary("/sluice.query.v1.QueryService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    translated = translate_rpc_error(caught.value)
    assert type(translated) is SluiceError
    assert translated.message.startswith("UNIMPLEMENTED: ")


async def test_cancellation_reaches_the_servicer(running):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def search(_request, _context):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(search) as server, open_channel(server.address) as channel:
        call = query_pb2_grpc.QueryServiceStub(channel).Search(query_pb2.SearchRequest())
        waiting = asyncio.ensure_future(call)
        async with asyncio.timeout(10):
            await begun.wait()
            call.cancel()
            await cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize("raw", [NOT_UTF8, TRUNCATED], ids=["not-utf8", "truncated"])
async def test_malformed_unary_request_is_the_callers_fault(running, raw: bytes):
    async with running() as server, open_channel(server.address) as channel:
        method: Raw = channel.unary_unary("/sluice.query.v1.QueryService/Search")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(raw, timeout=10)
    translated = translate_rpc_error(caught.value)
    assert type(translated) is InvalidArgument
    assert translated.message.startswith(
        "request: is not a valid sluice.query.v1.SearchRequest message"
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("/sluice.query.v1.QueryService/SearchStream", "sluice.query.v1.SearchStreamRequest"),
        ("/sluice.index.v1.IndexService/IndexDocuments", "sluice.index.v1.IndexDocumentsRequest"),
    ],
    ids=["iterator", "reader"],
)
async def test_malformed_message_in_a_stream_is_the_callers_fault(running, method, message):
    async with running() as server, open_channel(server.address) as channel:
        # The first message is good and gets its answer; the second is cut short.
        raw: RawStream = channel.stream_stream(method)
        call = raw(iter([b"", b"\x12\x7f"]), timeout=10)
        assert await call.read() is not grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = caught.value.details()
    assert details is not None
    assert details.startswith(f"request: is not a valid {message} message")


async def test_a_long_message_is_cut_to_what_headers_carry(running):
    async def search(_request, _context):
        raise Overloaded("ä" * 20_000, retry_after_ms=1)

    async with running(search) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _invoke(server.address, "unary_unary")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = caught.value.details()
    assert details is not None
    assert details.startswith("äää")
    assert details.endswith("ä…")
    assert len(details.encode()) <= 1536


async def test_what_has_no_room_is_refused_before_it_is_read(running):
    full = [Overloaded("no room; repeat later", retry_after_ms=70)]
    called = []

    async def search(_request, _context):
        called.append(1)
        return query_pb2.SearchResponse()

    async with (
        running(search, refusal=lambda: full[0] if full else None) as server,
        open_channel(server.address, ONCE) as channel,
    ):
        raw: Raw = channel.unary_unary("/sluice.query.v1.QueryService/Search")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(TRUNCATED, timeout=10)
        error = translate_rpc_error(caught.value)
        assert isinstance(error, Overloaded)
        assert (error.message, error.retry_after_ms) == ("no room; repeat later", 70)
        # A stream answers each of its requests by itself, and other services have their own room.
        await _invoke(server.address, "stream_stream")
        await _invoke(server.address, "unary_stream")
        assert len(called) == 2
        full.clear()
        await _invoke(server.address, "unary_unary")
        assert len(called) == 3
