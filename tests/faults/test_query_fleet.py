"""Of three query servers one is killed and one drained under load: no call of a client fails."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import pytest

from bench.load import CLIENTS, build_two_versions, querying
from client.client import SluiceClient
from common.coordination import IndexRegistry, open_coordinator
from tests.cluster import LEASED, running_cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster import Cluster, Served

QUERY = LEASED | {"instance_ttl_s": 6}
# It is renewed every third of its length, so of a server that ends more than this is left.
LEASE_LEFT_S = 6 * 2 / 3
# etcd looks for ended leases every half second.
LEASE_GONE_S = 6 + 2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    services = ("indexer", "query-1", "query-2", "query-3")
    with running_cluster(tmp_path, *services, query=QUERY) as running:
        yield running


@pytest.mark.timeout(300)
async def test_a_killed_and_a_drained_query_server_cost_no_call(cluster):
    killed, drained, left = (cluster.services[f"query-{number}"] for number in (1, 2, 3))
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(
            aclosing(open_coordinator(cluster.coordinator))
        )
        registry = IndexRegistry(coordinator)

        async def seconds_until_announced(*servers: Served) -> float:
            wanted = {server.address for server in servers}

            async def are_announced() -> bool:
                return {one.address for one in await registry.instances("query")} == wanted

            began = time.monotonic()
            await until(are_announced)
            return time.monotonic() - began

        sluice = await stack.enter_async_context(
            SluiceClient(
                cluster.services["indexer"].address,
                query_target="etcd:///sluice/query",
                coordinator=cluster.coordinator,
            )
        )
        await build_two_versions(sluice)
        seen = await stack.enter_async_context(querying([sluice]))
        await seen.more(20 * CLIENTS)
        assert all(len(server.lines("rpc")) > CLIENTS for server in (killed, drained, left))
        killed.kill()
        assert await seconds_until_announced(drained, left) < LEASE_GONE_S
        draining = asyncio.create_task(asyncio.to_thread(drained.drain))
        assert await seconds_until_announced(left) < LEASE_LEFT_S
        await draining
        await seen.more(20 * CLIENTS)
    assert (seen.failures, seen.mixed) == ([], 0)
