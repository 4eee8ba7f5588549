"""A collections service that answers as a test tells it, over real gRPC, and keeps what it got."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from client.cli import app
from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from sluice.collections.v1 import collections_pb2 as pb
from sluice.collections.v1 import collections_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from google.protobuf.message import Message

    from common.errors import SluiceError


class ToldCollections(collections_pb2_grpc.CollectionsServiceServicer):
    """Gives one answer after the other, of whatever method is asked.

    Args:
        answers: messages, or errors to fail with; more calls than answers are a fault of the test.
    """

    def __init__(self, answers: Iterable[Message | SluiceError]) -> None:
        self.asked: list[Message] = []
        self._answers = iter(answers)

    async def _answer(self, request, _):
        self.asked.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    CreateCollection = ListCollections = DescribeCollection = DeleteCollection = _answer
    BeginVersion = RenewBuild = EndBuild = VerifyVersion = RepairVersion = _answer
    ActivateVersion = RollBackCollection = DeleteVersion = _answer


@asynccontextmanager
async def telling(*answers: Message | SluiceError) -> AsyncIterator[tuple[ToldCollections, str]]:
    """The service and the address where it answers."""
    told = ToldCollections(answers)
    binding = ServiceBinding(
        "sluice.collections.v1.CollectionsService",
        lambda server: collections_pb2_grpc.add_CollectionsServiceServicer_to_server(told, server),
    )
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
    async with GrpcServer.open(settings, [binding]) as server:
        yield told, server.address


async def sluice(*arguments, answers=()):
    """Run `sluice collections …` beside the server; its result and what the server was asked."""
    async with telling(*answers) as (told, address):
        command = ["collections", *arguments, "--target", address]
        return await asyncio.to_thread(CliRunner().invoke, app, command), told.asked


def version(number=7, state=pb.VERSION_STATE_ACTIVE, documents=3, chunks=9, **fields):
    counts = pb.Counts(documents=documents, chunks=chunks)
    message = pb.IndexVersion(number=number, state=state, counts=counts, **fields)
    message.created_at.FromJsonString("2026-01-02T03:04:05Z")
    return message


def fault(name, kind, *, container="", surplus=0):
    return pb.DocumentFault(
        document_id=(name * 32)[:32],
        source_uri=f"doc://{name}",
        container_uri=container,
        kind=kind,
        surplus_chunks=surplus,
    )
