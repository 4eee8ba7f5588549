"""etcd is away for a minute: queries go on, swaps are refused, and then all goes on."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.load import CLIENTS, COLLECTION, build_two_versions, querying
from bench.swap import connected, swap
from common.coordination import IndexRegistry, open_coordinator
from common.rpc import ChannelSettings, open_channel
from tests.cluster import running_cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import grpc

    from tests.cluster import Cluster

OUTAGE_S = 60.0
ANSWER_S = 5.0
CHANNEL = ChannelSettings()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, "indexer", "query-1", "query-2", "query-3") as running:
        running.configure(client={"target": running.services["indexer"].address})
        yield running


@pytest.mark.timeout(300)
async def test_a_minute_without_etcd_costs_no_query_and_no_later_swap(cluster):
    async with AsyncExitStack() as stack:
        indexer, servers = await stack.enter_async_context(connected(cluster))
        await build_two_versions(indexer)
        channels = [open_channel(server.address, CHANNEL) for server in cluster.named("query")]
        for channel in channels:
            stack.push_async_callback(channel.close)
        coordinator = await stack.enter_async_context(
            aclosing(open_coordinator(cluster.coordinator))
        )
        registry = IndexRegistry(coordinator)

        async def coordinator_is(status: str) -> bool:
            return await health(channels, "coordinator") == {status}

        async def all_are_announced() -> bool:
            announced = {instance.address for instance in await registry.instances("query")}
            return announced == {server.address for server in cluster.named("query")}

        seen = await stack.enter_async_context(querying(servers))
        assert await coordinator_is("SERVING")
        began = time.monotonic()
        await asyncio.to_thread(cluster.etcd.stop)
        await until(lambda: coordinator_is("NOT_SERVING"))
        queries, stale = seen.queries, seen.stale
        refused = await asyncio.to_thread(
            cluster.sluice, "collections", "activate", COLLECTION, "1"
        )
        assert refused.returncode == 1
        assert f"etcd at {cluster.etcd.endpoint} does not answer" in refused.stderr
        await asyncio.sleep(OUTAGE_S - (time.monotonic() - began))  # the length is the point
        assert await coordinator_is("NOT_SERVING")
        assert await health(channels, "") == {"SERVING"}
        queries, stale = seen.queries - queries, seen.stale - stale
        # Those that were under way when the first of both was read may have begun before.
        assert queries > OUTAGE_S
        assert queries - stale <= CLIENTS

        await asyncio.to_thread(cluster.etcd.start)
        await until(lambda: coordinator_is("SERVING"))
        await swap(cluster, indexer, 1)
        await until(all_are_announced)
        await seen.more(CLIENTS)
        stale = seen.stale
        await seen.more(10 * CLIENTS)
        assert seen.stale == stale
    assert (seen.failures, seen.mixed, seen.went_back) == ([], 0, 0)


async def health(channels: Sequence[grpc.aio.Channel], service: str) -> set[str]:
    """What the servers behind the channels say of a service."""
    request = health_pb2.HealthCheckRequest(service=service)
    stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    told = [await stub.Check(request, timeout=ANSWER_S) for stub in stubs]
    return {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) for answer in told}
