"""Every error of Sluice crosses the wire and comes back as itself, or as its nearest ancestor.

A status code is all that tells classes apart on the wire, so a class that shares its parent's code
comes back as the most general class of that code.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import grpc
import pytest

from common.errors import (
    ConfigurationError,
    CoordinatorUnavailable,
    EmbedderMismatch,
    FailedPrecondition,
    InvalidArgument,
    SluiceError,
    Unavailable,
)
from common.rpc import (
    ChannelSettings,
    GrpcServer,
    ServerSettings,
    ServiceBinding,
    open_channel,
    translate_rpc_error,
)
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

# What cannot be told apart by its status code.
GENERALISED: dict[type[SluiceError], type[SluiceError]] = {
    EmbedderMismatch: FailedPrecondition,
    CoordinatorUnavailable: Unavailable,
    ConfigurationError: InvalidArgument,
}


def _tree(root: type[SluiceError]) -> Iterator[type[SluiceError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


ERRORS = [kind for kind in _tree(SluiceError) if kind.__module__ == SluiceError.__module__]


class _Failing(query_pb2_grpc.QueryServiceServicer):
    def __init__(self, error: SluiceError) -> None:
        self._error = error

    async def Search(self, _request, _context):  # noqa: N802  # named by the contract
        raise self._error

    async def SearchStream(self, request_iterator, _context):  # noqa: N802  # named by the contract
        async for request in request_iterator:
            if request.sequence > 1:
                raise self._error
            yield query_pb2.SearchStreamResponse(sequence=request.sequence)


def test_the_tree_was_found_whole():
    assert len(ERRORS) == len(set(ERRORS))
    assert {EmbedderMismatch, CoordinatorUnavailable, ConfigurationError} < set(ERRORS)


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("delay_ms", [None, 1500])
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_error_crosses_the_wire(kind: type[SluiceError], delay_ms, *, streaming: bool):
    error = kind("what happened; what to do next")
    # Some classes take no delay of their own; any may carry one.
    error.retry_after_ms = delay_ms
    binding = ServiceBinding(
        "sluice.query.v1.QueryService",
        lambda server: query_pb2_grpc.add_QueryServiceServicer_to_server(_Failing(error), server),
    )
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=1.0)
    async with (
        GrpcServer.open(settings, [binding]) as server,
        open_channel(server.address, ChannelSettings(max_attempts=1)) as channel,
    ):
        stub = query_pb2_grpc.QueryServiceStub(channel)
        if streaming:
            requests = [query_pb2.SearchStreamRequest(sequence=number) for number in (1, 2)]
            call = stub.SearchStream(iter(requests), timeout=10)
            responses = aiter(call)
            assert (await anext(responses)).sequence == 1
            failing: Awaitable[object] = anext(responses)
        else:
            failing = stub.Search(query_pb2.SearchRequest(), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await failing
    assert caught.value.code() is kind.code
    translated = translate_rpc_error(caught.value)
    assert type(translated) is GENERALISED.get(kind, kind)
    assert translated.message == "what happened; what to do next"
    assert translated.retry_after_ms == delay_ms


def test_every_class_can_be_made_from_its_message_alone():
    for kind in ERRORS:
        parameters = list(inspect.signature(kind).parameters.values())[1:]
        assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters)
