"""A query server while etcd is away, and when it is back: over the wire, on a real etcd."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from common.coordination import CoordinatorSettings, VersionState, open_coordinator, pinned
from common.identity import ConsistencyToken, encode_token
from common.rpc import ChannelSettings, GrpcServer, open_channel
from common.telemetry import Telemetry, TelemetrySettings
from query.checks import checks
from query.serve import open_query
from query.service import SERVICE
from query.settings import QueryServerSettings, QuerySettings
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.integration.coordination.waiting import WITHIN_S
from tests.integration.query.written_index import Document, WrittenIndex

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.coordination import Coordinator
    from tests.integration.etcd import Etcd

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STALE = query_pb2.DEGRADATION_STALE_ROUTE
FIRST = Document("file:///first", ["The first version knows of namenodes."])
SECOND = Document("file:///second", ["The second version knows of namenodes too."])
SETTINGS = QuerySettings(server=QueryServerSettings(listen="127.0.0.1:0", drain_s=2))


class Served:
    """A query server, and who asks it."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self._query = query_pb2_grpc.QueryServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def search(self, **fields: Any) -> query_pb2.SearchResponse:
        asked = query_pb2.SearchRequest(**({"collection": "docs", "text": "namenodes"} | fields))
        return await self._query.Search(asked, timeout=10)

    async def health(self, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        return int((await self._health.Check(request, timeout=10)).status)

    def watch(self, service: str) -> Any:
        return self._health.Watch(health_pb2.HealthCheckRequest(service=service))


@pytest.fixture
async def coordinator(own_etcd: Etcd) -> AsyncIterator[Coordinator]:
    """The operator's own connection; the server has another."""
    opened = opened_on(own_etcd)
    yield opened
    await opened.aclose()


def opened_on(etcd: Etcd) -> Coordinator:
    return open_coordinator(
        CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), timeout_ms=2_000)
    )


@pytest.fixture
async def served(index: WrittenIndex, own_etcd: Etcd) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        own = opened_on(own_etcd)
        stack.push_async_callback(own.aclose)
        bindings = await open_query(
            stack,
            query=SETTINGS,
            chroma=index.chroma,
            coordinator=own,
            embedder=index.embedder,
        )
        server = await stack.enter_async_context(GrpcServer.open(SETTINGS.server, bindings))
        channel = await stack.enter_async_context(
            open_channel(server.address, ChannelSettings(max_attempts=1))
        )
        yield Served(server.address, channel)


async def until_told(watch: Any, status: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await watch.read()).status != status:
            pass


def gauge(reader: InMemoryMetricReader) -> float:
    data = reader.get_metrics_data()
    assert data is not None
    [point] = [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "sluice.routes.stale"
        for point in metric.data.data_points
    ]
    assert isinstance(point, NumberDataPoint)
    return float(point.value)


@pytest.fixture
async def metrics() -> AsyncIterator[Callable[[], float]]:
    """Reads the gauge; asked for before ``served``, so that the server counts into it."""
    reader = InMemoryMetricReader()
    async with Telemetry.open("test", TelemetrySettings(), {}, metric_reader=reader):
        yield lambda: gauge(reader)


async def test_searches_go_on_while_etcd_is_away_and_a_move_made_meanwhile_is_caught_up_with(
    metrics: Callable[[], float], index: WrittenIndex, own_etcd: Etcd, served: Served
):
    await index.holding(FIRST)
    second = await index.begin()
    await index.write(SECOND, version=2)
    token = encode_token(ConsistencyToken("default", "docs", 1, 1))
    assert not (await served.search(at_least=token)).degraded
    assert metrics() == 0
    watch, whole = served.watch("coordinator"), served.watch(SERVICE)
    assert (await watch.read()).status == SERVING
    assert (await whole.read()).status == SERVING
    for compacted in (False, True):
        answer = await served.search()
        await asyncio.to_thread(own_etcd.kill)
        await until_told(watch, NOT_SERVING)
        during = await served.search()
        assert (list(during.degraded), during.index_version) == ([STALE], answer.index_version)
        assert during.hits == answer.hits
        assert metrics() == 1
        assert await served.health("coordinator") == NOT_SERVING
        assert [await served.health(name) for name in ("", SERVICE)] == [SERVING, SERVING]
        await asyncio.to_thread(own_etcd.start)
        if compacted:
            pointer = await index.registry.roll_back("", "docs")
            last = (await index.registry.collection("", "docs")).versions[0].mod_revision
            await asyncio.to_thread(own_etcd.etcdctl, "compact", str(last))
        else:
            pointer = await index.activate(second)
        await until_told(watch, SERVING)
        token = encode_token(ConsistencyToken("default", "docs", 0, pointer.generation))
        after = await served.search(at_least=token)
        assert (after.index_version, after.generation) == (pointer.version, pointer.generation)
        assert {hit.source_uri for hit in after.hits} == {(FIRST if compacted else SECOND).uri}
        # Listing again after a compaction, it is behind once more for a moment.
        async with asyncio.timeout(WITHIN_S):
            while (await served.search()).degraded or metrics():
                pass
    whole.cancel()


async def test_what_needs_the_coordinator_is_unavailable_with_a_delay_and_the_rest_is_not(
    index: WrittenIndex, own_etcd: Etcd, served: Served
):
    await index.holding(FIRST)
    await index.holding(SECOND)
    watch = served.watch("coordinator")
    assert not (await served.search(index_version=1)).degraded
    await asyncio.to_thread(own_etcd.kill)
    known = await served.search(index_version=1)  # read a moment ago, and it answers as it is
    assert (known.index_version, list(known.degraded)) == (1, [])
    await until_told(watch, NOT_SERVING)
    for unknown in ({"index_version": 3}, {"collection": "other"}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.search(**unknown)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    watch.cancel()


async def test_pins_come_back_with_etcd(
    index: WrittenIndex, own_etcd: Etcd, served: Served, coordinator: Coordinator
):
    await index.holding(FIRST)
    await until_pinned_by_the_server(coordinator, 1)
    own_etcd.freeze()
    await asyncio.to_thread(own_etcd.kill)
    await asyncio.to_thread(own_etcd.start)
    await index.holding(SECOND)
    async with asyncio.timeout(WITHIN_S):
        while (await served.search()).index_version != 2:
            pass
    await until_pinned_by_the_server(coordinator, 2)
    async with asyncio.timeout(WITHIN_S):
        while await pinned(coordinator, "", "docs", 1):
            pass


async def until_pinned_by_the_server(coordinator: Coordinator, number: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not (pins := await pinned(coordinator, "", "docs", number)):
            pass
    assert [pin.use for pin in pins] == ["read"]
    assert pins[0].holder.startswith("query server of ")


async def test_a_coordinator_that_does_not_answer_delays_no_search(
    index: WrittenIndex, own_etcd: Etcd, served: Served
):
    await index.holding(FIRST)
    token = encode_token(ConsistencyToken("default", "docs", 1, 1))
    await served.search(at_least=token)
    own_etcd.freeze()
    try:
        async with asyncio.timeout(1):
            assert (await served.search()).index_version == 1
    finally:
        own_etcd.thaw()


async def test_the_doctor_tells_that_a_server_is_cut_off(
    own_etcd: Etcd, served: Served, index: WrittenIndex
):
    announced = f"etcd://{own_etcd.endpoint}/sluice/query"

    async def examined(target: str) -> list[tuple[bool, str, str]]:
        environ = {"SLUICE_CLIENT__QUERY_TARGET": target}
        found = await asyncio.to_thread(lambda: list(checks(file=None, environ=environ)))
        assert found.pop(0).name == "native reranker"
        assert {check.name for check in found} <= {"query routes"}
        return [(check.ok, check.detail, check.cure) for check in found]

    well = [(True, f"{served.address} follows the coordinator", "")]
    async with index.registry.register("query", served.address, ttl_s=10):
        assert await examined(served.address) == await examined(announced) == well
    watch = served.watch("coordinator")
    await asyncio.to_thread(own_etcd.kill)
    await until_told(watch, NOT_SERVING)
    [(ok, detail, cure)] = await examined(served.address)
    assert not ok
    assert detail.startswith(f"{served.address} cannot reach the coordinator")
    assert "start etcd" in cure
    assert not await examined(announced)
    watch.cancel()


def test_the_doctor_says_nothing_of_a_server_that_is_not_there():
    environ = {"SLUICE_CLIENT__QUERY_TARGET": "127.0.0.1:1"}
    assert [check.name for check in checks(file=None, environ=environ)] == ["native reranker"]


async def test_no_answer_mixes_versions_while_they_are_swapped_without_pause(
    index: WrittenIndex, served: Served
):
    """Both versions hold the same document, each its own state of it, and one of its own."""
    shared = ["Namenodes fail over.", "Standby namenodes wait."]
    for number in (1, 2):
        await index.begin()
        state = Document("file:///shared", [f"{text} {number}" for text in shared], version=number)
        own = Document(f"file:///own/{number}", [f"Only namenodes of {number}"])
        for document in (state, own):
            await index.write(document, version=number)
    pointer = await index.activate(await index.registry.version("", "docs", 1))
    await index.registry.set_state(
        await index.registry.version("", "docs", 2), VersionState.READY, documents=1, chunks=1
    )
    answered: dict[int, int] = {}
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answer = await served.search()
            expected = answer.index_version
            assert {hit.text[-1] for hit in answer.hits} == {str(expected)}
            assert len(answer.hits) == 3
            answered[expected] = answered.get(expected, 0) + 1

    token = encode_token(ConsistencyToken("default", "docs", 1, pointer.generation))
    await served.search(at_least=token)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(ask())
        for number in itertools.islice(itertools.cycle((2, 1)), 40):
            pointer, moved = await index.registry.activate("", "docs", number)
            assert moved
            token = encode_token(ConsistencyToken("default", "docs", 0, pointer.generation))
            assert (await served.search(at_least=token)).index_version == number
        stop.set()
    assert set(answered) == {1, 2}
