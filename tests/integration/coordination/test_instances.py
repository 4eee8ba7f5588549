"""Following the instances of a service, on both coordinators."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from common.coordination import Coordinator, IndexRegistry, Instances, Put
from tests.integration.coordination.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.etcd import Etcd


@contextlib.asynccontextmanager
async def opened(coordinator: Coordinator) -> AsyncIterator[Instances]:
    instances = await Instances.open(coordinator, "indexer")
    try:
        yield instances
    finally:
        await instances.aclose()


def addresses(instances: Instances) -> set[str]:
    return {instance.address for instance in instances.running}


async def test_those_that_come_and_go_are_followed(coordinator: Coordinator) -> None:
    registry = IndexRegistry(coordinator)
    async with registry.register("indexer", "a:1", ttl_s=60), opened(coordinator) as instances:
        assert addresses(instances) == {"a:1"}
        async with (
            registry.register("indexer", "b:1", ttl_s=60),
            registry.register("query", "c:1", ttl_s=60),
            asyncio.timeout(20),
        ):
            await instances.wait_for(lambda: addresses(instances) == {"a:1", "b:1"})
        await until(lambda: addresses(instances) == {"a:1"})
        ids = [instance.id for instance in instances.running]
        assert ids == [one.id for one in await registry.instances("indexer")]


async def test_one_whose_lease_ended_is_gone(coordinator: Coordinator) -> None:
    lease = await coordinator.grant_lease(1)
    async with IndexRegistry(coordinator).register("indexer", "a:1", ttl_s=60):
        (entry,) = (await coordinator.list("instances/indexer/")).entries
    async with opened(coordinator) as instances:
        await coordinator.transact([], [Put(entry.key, entry.value, lease.id)])
        await until(lambda: addresses(instances) == {"a:1"})
        await until(lambda: not instances.running)


async def test_what_cannot_be_read_is_passed_over(coordinator: Coordinator) -> None:
    await coordinator.transact([], [Put("instances/indexer/x", b"\xff")])
    async with opened(coordinator) as instances:
        await coordinator.transact([], [Put("instances/indexer/y", b"{}")])
        async with IndexRegistry(coordinator).register("indexer", "a:1", ttl_s=60):
            await until(lambda: addresses(instances) == {"a:1"})


async def test_the_last_known_are_kept_while_etcd_is_down(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    registry = IndexRegistry(on_own_etcd)
    async with registry.register("indexer", "a:1", ttl_s=60), opened(on_own_etcd) as instances:
        await asyncio.to_thread(own_etcd.kill)
        await until(lambda: not on_own_etcd.healthy)
        assert addresses(instances) == {"a:1"}
        await asyncio.to_thread(own_etcd.start)
        await until(lambda: on_own_etcd.healthy)
        async with registry.register("indexer", "b:1", ttl_s=60):
            await until(lambda: addresses(instances) == {"a:1", "b:1"})
