"""A query server that answers at once with its own number, announced in etcd; also as a process.

    python -m tests.integration.discovery.query_node ENDPOINT NUMBER

It is opened and stopped as the real services are: announced last, withdrawn first.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from common.coordination import CoordinatorSettings, IndexRegistry, open_coordinator
from common.rpc import GrpcServer, ServerSettings, ServiceBinding, run_until_signal
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.coordination import Coordinator

SERVICE = "query"
TTL_S = 2
READY = b"sluice query is ready on "


class QueryNode(query_pb2_grpc.QueryServiceServicer):
    """Answers with its number as the index version, after what a test puts in the way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = ""
        self.calls = 0
        self.padding = 0
        self.failures: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def Search(self, request, context):  # noqa: ARG002, N802  # named by the contract
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        await self.may_answer.wait()
        hits = [query_pb2.Hit(text="x" * self.padding)] if self.padding else []
        return query_pb2.SearchResponse(index_version=self.number, hits=hits)

    async def SearchStream(self, requests, context):  # noqa: ARG002, N802  # as above
        self.calls += 1
        async for request in requests:
            response = query_pb2.SearchResponse(index_version=self.number)
            yield query_pb2.SearchStreamResponse(sequence=request.sequence, response=response)

    @asynccontextmanager
    async def serving(self, coordinator: Coordinator, **server: object) -> AsyncIterator[None]:
        binding = ServiceBinding(
            "sluice.query.v1.QueryService",
            lambda made: query_pb2_grpc.add_QueryServiceServicer_to_server(self, made),
        )
        settings = ServerSettings.model_validate({"listen": "127.0.0.1:0", "drain_s": 0} | server)
        async with GrpcServer.open(settings, [binding]) as opened:
            self.address = opened.address
            registry = IndexRegistry(coordinator)
            async with registry.register(SERVICE, self.address, ttl_s=TTL_S):
                yield


async def serve(
    endpoint: str, number: int, stop: asyncio.Event, on_ready: Callable[[str], None]
) -> None:
    settings = CoordinatorSettings(kind="etcd", endpoints=(endpoint,), timeout_ms=500)
    coordinator = open_coordinator(settings)
    node = QueryNode(number)
    async with node.serving(coordinator, drain_s=10):
        on_ready(node.address)
        await stop.wait()
    await coordinator.aclose()


if __name__ == "__main__":
    ENDPOINT, NUMBER = sys.argv[1:]
    run_until_signal(SERVICE, lambda stop, ready: serve(ENDPOINT, int(NUMBER), stop, ready))
