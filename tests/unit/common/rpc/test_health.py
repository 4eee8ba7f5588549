"""Conditions beside the services: told to who asks and to who watches, and to nobody else."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.rpc import GrpcServer, HealthCondition, ServerSettings, ServiceBinding, open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = "test.Service"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@asynccontextmanager
async def serving(**conditions: HealthCondition) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    """A server of one service with these conditions, asked for its health."""
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=1)
    binding = ServiceBinding(SERVICE, lambda _: None, conditions)
    async with AsyncExitStack() as closing, GrpcServer.open(settings, [binding]) as server:
        channel = await closing.enter_async_context(open_channel(server.address))
        yield health_pb2_grpc.HealthStub(channel)


def about(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


async def status(health: health_pb2_grpc.HealthStub, service: str) -> int:
    answer: Any = await health.Check(about(service), timeout=10)
    return int(answer.status)


async def test_a_condition_has_a_name_of_its_own_and_leaves_the_services_as_they_are():
    lake, lock = HealthCondition(), HealthCondition(holds=False)
    async with serving(lake=lake, lock=lock) as health:
        assert await status(health, "lake") == SERVING
        assert await status(health, "lock") == NOT_SERVING
        lake.tell(holds=False)
        lock.tell(holds=True)
        assert await status(health, "lake") == NOT_SERVING
        assert await status(health, "lock") == SERVING
        assert [await status(health, name) for name in ("", SERVICE)] == [SERVING, SERVING]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status(health, "river")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watchers_are_told_of_each_change_and_of_the_end():
    lake = HealthCondition()
    async with asyncio.timeout(20):
        async with serving(lake=lake, lock=HealthCondition()) as health:
            watches = {name: health.Watch(about(name)) for name in ("lake", "lock", "", "river")}

            async def told(name: str) -> int:
                return int((await watches[name].read()).status)

            async def rest(name: str) -> list[int]:
                statuses = []
                while (answer := await watches[name].read()) is not grpc.aio.EOF:
                    statuses.append(int(answer.status))
                return statuses

            first = {name: await told(name) for name in watches}
            assert first == {"lake": SERVING, "lock": SERVING, "": SERVING, "river": UNKNOWN}
            for holds in (False, True, False, True):
                lake.tell(holds=holds)
                lake.tell(holds=holds)  # the same once more is no change
                assert await told("lake") == (SERVING if holds else NOT_SERVING)
            ends = {name: asyncio.create_task(rest(name)) for name in watches}
        # Nothing but the end was told to those who watch something else.
        ended = {name: await end for name, end in ends.items()}
        assert ended == {
            "lake": [NOT_SERVING],
            "lock": [NOT_SERVING],
            "": [NOT_SERVING],
            "river": [],
        }


async def test_a_change_while_a_watcher_is_being_told_is_not_missed():
    lake = HealthCondition()
    async with asyncio.timeout(20), serving(lake=lake) as health:
        watch = health.Watch(about("lake"))
        assert (await watch.read()).status == SERVING
        for _ in range(50):
            lake.tell(holds=False)
            lake.tell(holds=True)
        lake.tell(holds=False)
        while (await watch.read()).status != NOT_SERVING:
            pass
        assert await status(health, "lake") == NOT_SERVING
