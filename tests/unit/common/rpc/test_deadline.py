from __future__ import annotations

import asyncio

import pytest

from common.errors import DeadlineExceeded
from common.rpc import Deadline, open_channel
from sluice.query.v1 import query_pb2, query_pb2_grpc


def test_a_passed_deadline_names_the_stage_not_begun():
    deadline = Deadline.after(-1.0)
    assert deadline.remaining_s() == 0.0
    with pytest.raises(DeadlineExceeded, match="before reranking"):
        deadline.check("reranking")


def test_time_runs_down_and_never_restarts():
    deadline = Deadline.after(50.0)
    deadline.check("anything")
    first = deadline.remaining_s()
    assert 49.0 < first <= 50.0
    assert deadline.remaining_s() <= first


async def test_timeout_ends_what_waits():
    with pytest.raises(TimeoutError):
        async with Deadline.after(0.01).timeout():
            await asyncio.Event().wait()


@pytest.mark.parametrize(("client_s", "low", "high"), [(30.0, 25.0, 31.0), (None, 4.0, 5.0)])
async def test_the_clients_deadline_or_the_default(running, client_s, low, high):
    seen: list[float] = []

    async def search(_request, context):
        seen.append(Deadline.of(context, 5.0).remaining_s())
        return query_pb2.SearchResponse()

    async with running(search) as server, open_channel(server.address) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        await stub.Search(query_pb2.SearchRequest(), timeout=client_s)
    assert low < seen[0] <= high
