"""Servers that die, drain and lose etcd while clients call without pause: no call fails."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, cast

import pytest

from client.client import SluiceClient
from common.errors import NotFound, Unavailable
from common.rpc import open_channel
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.integration.coordination.waiting import until
from tests.integration.discovery.conftest import QUERY, Load, node_processes
from tests.integration.discovery.query_node import QueryNode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from client.answers import SearchQuery
    from common.coordination import CoordinatorSettings
    from tests.integration.etcd import Etcd

READY = b"sluice query is ready on "


@pytest.mark.parametrize("etcd_away", [False, True], ids=["etcd-there", "etcd-away"])
async def test_one_killed_and_one_drained_under_load(
    etcd: Etcd, client: SluiceClient, *, etcd_away: bool
):
    async with node_processes(etcd, 3) as processes:
        addresses = set(processes)
        dead, draining, _ = processes
        load = Load(client)
        async with load.running():
            await load.more(300)
            assert set(load.answered) == {1, 2, 3}
            if etcd_away:
                await asyncio.to_thread(etcd.kill)
                await load.more(300)
            processes[dead].kill()
            await processes[dead].wait()
            await load.more(300)
            processes[draining].send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(processes[draining].wait(), 30) == 0
            seen = dict(load.answered)
            await load.more(300)
            fleet = client._queries
            if etcd_away:
                assert set(await fleet.addresses()) == addresses  # the last known ones
                await asyncio.to_thread(etcd.start)
            # The dead one leaves with its lease, the drained one left at once.
            await until(lambda: set(fleet._current()) == addresses - {dead, draining})
            await load.more(100)
    assert load.failed == []
    assert load.answered[3] > seen[3]
    assert (load.answered[1], load.answered[2]) == (seen[1], seen[2])


async def test_a_draining_server_answers_all_it_was_sent(
    coordinator, settings: CoordinatorSettings
):
    """Also what is not safe to repeat, and calls of clients that know nothing of etcd."""
    staying, leaving = QueryNode(1), QueryNode(2)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(staying.serving(coordinator))
        going = AsyncExitStack()
        await going.enter_async_context(leaving.serving(coordinator, drain_s=10))
        client = await stack.enter_async_context(
            SluiceClient("etcd:///sluice/query", coordinator=settings)
        )
        fleet = client._queries
        # As begin_version is called: nothing is repeated.
        client._query = query_pb2_grpc.QueryServiceStub(client._balanced(fleet))
        load = Load(client)
        async with load.running():
            await load.more(200)
            await going.aclose()
            await load.more(200)
            assert await fleet.addresses() == (staying.address,)
    assert load.failed == []
    assert set(load.answered) == {1, 2}


async def test_a_call_between_withdrawing_and_stopping_is_answered(coordinator):
    node = QueryNode(1)
    going = AsyncExitStack()
    await going.enter_async_context(node.serving(coordinator, drain_s=10))
    snapshot = await coordinator.list("instances/")
    watch = coordinator.watch("instances/", after_revision=snapshot.revision)
    async with asyncio.timeout(20), aclosing(aiter(watch)) as changes:
        leaving = asyncio.create_task(going.aclose())
        assert (await anext(changes)).value is None  # withdrawn
        # A client that learns of it only later, and has no connection yet.
        async with open_channel(node.address) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            answer = await stub.Search(query_pb2.SearchRequest(), timeout=10)
        assert answer.index_version == 1
        assert not leaving.done()
        await leaving


async def test_a_query_server_withdraws_before_it_stops(
    etcd: Etcd, coordinator, client: SluiceClient, tmp_path: Path
):
    """The real one: nothing that it was sent is lost when it is told to end."""
    file = tmp_path / "sluice.yaml"
    file.write_text(
        f"""
coordinator: {{kind: etcd, endpoints: ["{etcd.endpoint}"]}}
chroma: {{mode: embedded, path: {tmp_path}/chroma}}
embedding: {{kind: hashing}}
query: {{server: {{listen: "127.0.0.1:0"}}}}
"""
    )
    client._query = query_pb2_grpc.QueryServiceStub(client._balanced(client._queries))
    command = "from client.cli import main; main(['serve', 'query', '--config', '{}'])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", command.format(file)), stderr=PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60), QueryNode(1).serving(coordinator):
            while not (line := await process.stderr.readline()).startswith(READY):
                assert line, "the server ended before it was ready"
            load = Load(client)
            async with load.running():
                await load.more(50)
                process.send_signal(signal.SIGTERM)
                await process.communicate()
                ended = len(load.failed)
                await load.more(50)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # The collection is known to nobody, and the real server said so to all it was asked.
    assert {type(error) for error in load.failed} == {NotFound}
    assert 0 < ended == len(load.failed)
    assert load.answered[1] > 50


async def test_a_stream_goes_to_a_server_that_is_there_and_ends_with_it(
    etcd: Etcd, client: SluiceClient
):
    asked: asyncio.Queue[SearchQuery] = asyncio.Queue()

    async def queries():
        while True:
            yield await asked.get()

    async with node_processes(etcd, 3) as processes:
        dead, *others = processes.values()
        dead.kill()  # still announced
        await dead.wait()
        for _ in range(6):
            asked.put_nowait(QUERY)
            stream = cast("AsyncGenerator[Any]", client.search_stream(queries()))
            _, answer = await anext(stream)
            assert answer.index_version in {2, 3}
            await stream.aclose()
        asked.put_nowait(QUERY)
        stream = cast("AsyncGenerator[Any]", client.search_stream(queries()))
        await anext(stream)
        for process in others:
            process.kill()
        with pytest.raises(Unavailable):
            await anext(stream)
