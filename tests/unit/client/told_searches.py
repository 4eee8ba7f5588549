"""A query service that answers as a test tells it, beside such a collections service, over gRPC."""

from __future__ import annotations

from contextlib import asynccontextmanager

from client.client import SluiceClient
from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from sluice.collections.v1 import collections_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.unit.client.told_collections import ToldCollections


class ToldSearches(query_pb2_grpc.QueryServiceServicer):
    """Gives one answer after the other, the last for ever; an error is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def Search(self, request, _):  # noqa: N802  # named by the contract
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def SearchStream(self, requests, _):  # noqa: N802  # likewise
        async for _ in requests:
            raise NotImplementedError
        yield query_pb2.SearchStreamResponse()


@asynccontextmanager
async def serving(collections, searches):
    told = ToldCollections(collections)
    bindings = [
        ServiceBinding(
            "sluice.collections.v1.CollectionsService",
            lambda server: collections_pb2_grpc.add_CollectionsServiceServicer_to_server(
                told, server
            ),
        ),
        ServiceBinding(
            "sluice.query.v1.QueryService",
            lambda server: query_pb2_grpc.add_QueryServiceServicer_to_server(searches, server),
        ),
    ]
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
    async with (
        GrpcServer.open(settings, bindings) as server,
        SluiceClient(server.address) as client,
    ):
        yield client, told
