"""Which server gets a call, and what becomes of calls to servers that cannot take them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from common.coordination import IndexRegistry
from common.discovery import Fleet, Retry, Unconnected, balanced, open_fleet
from common.errors import (
    ConfigurationError,
    CoordinatorUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Overloaded,
    SluiceError,
    Unavailable,
)
from common.rpc import ChannelSettings
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.integration.coordination.waiting import until
from tests.integration.discovery.conftest import QUERY
from tests.integration.discovery.query_node import SERVICE, QueryNode

if TYPE_CHECKING:
    from client.client import SluiceClient
    from common.coordination import CoordinatorSettings

NOWHERE = "127.0.0.1:1"
REQUEST = query_pb2.SearchRequest(collection="docs", text="why")
QUICK = Retry(max_attempts=3, first_delay_s=0.01, max_delay_s=0.02)


def stub(fleet: Fleet, *, repeat: bool, retry: Retry = QUICK):
    return query_pb2_grpc.QueryServiceStub(balanced(fleet, retry, repeat=repeat))


@pytest.fixture
async def fleet(coordinator):
    async with Fleet.open("", ChannelSettings(), coordinator, service=SERVICE) as opened:
        yield opened


async def test_calls_go_round_evenly(nodes: list[QueryNode], client: SluiceClient):
    for _ in range(90):
        await client.search(QUERY)
    assert [node.calls for node in nodes] == [30, 30, 30]


async def test_concurrent_calls_are_spread_evenly(nodes: list[QueryNode], client: SluiceClient):
    await asyncio.gather(*(client.search(QUERY) for _ in range(300)))
    assert all(90 <= node.calls <= 110 for node in nodes)


async def test_a_slow_server_gets_no_more_than_it_answers(
    nodes: list[QueryNode], client: SluiceClient
):
    slow, *quick = nodes
    slow.may_answer.clear()
    searches = [asyncio.create_task(client.search(QUERY)) for _ in range(3)]
    async with asyncio.timeout(20):
        await until(lambda: slow.calls == 1 and sum(one.done() for one in searches) == 2)
        for _ in range(30):
            assert (await client.search(QUERY)).index_version != slow.number
        assert slow.calls == 1
        slow.may_answer.set()
        await asyncio.gather(*searches)
    assert sum(node.calls for node in quick) == 32


async def test_an_unavailable_server_is_asked_once_and_then_passed_over(
    nodes: list[QueryNode], client: SluiceClient
):
    nodes[0].failures = [Unavailable("its store is away") for _ in range(100)]
    began = time.monotonic()
    for _ in range(20):
        assert (await client.search(QUERY)).index_version != nodes[0].number
    # A turn for every two seconds that this took; it takes far less than one.
    assert 1 <= nodes[0].calls <= 1 + (time.monotonic() - began) // 2
    nodes[0].failures = []
    async with asyncio.timeout(20):
        while (await client.search(QUERY)).index_version != nodes[0].number:
            pass  # it is passed over for a short time only


async def test_each_server_has_one_turn_a_round_and_rounds_are_bounded(
    nodes: list[QueryNode], fleet: Fleet
):
    for node in nodes:
        node.failures = [Unavailable("its store is away") for _ in range(100)]
    with pytest.raises(Unavailable, match="its store is away"):
        await stub(fleet, repeat=True).Search(REQUEST, timeout=20)
    assert [node.calls for node in nodes] == [QUICK.max_attempts] * 3


async def test_servers_in_trouble_do_not_get_many_times_their_load(
    nodes: list[QueryNode], fleet: Fleet
):
    query, calls = stub(fleet, repeat=True), 200
    for node in nodes:
        node.failures = [Unavailable("its store is away") for _ in range(1_000)]
    for _ in range(calls // 20):
        searches = [query.Search(REQUEST, timeout=20) for _ in range(20)]
        failed = await asyncio.gather(*searches, return_exceptions=True)
        assert {type(failure) for failure in failed} == {Unavailable}
    # Nine times as many but for the bound.
    assert calls <= sum(node.calls for node in nodes) < 1.5 * calls
    for node in nodes:
        node.failures = []
    await asyncio.gather(*(query.Search(REQUEST, timeout=20) for _ in range(100)))
    nodes[0].failures = [Unavailable("its store is away") for _ in range(1_000)]
    fleet._passed_over_until_s.clear()
    for _ in range(30):  # what one server cannot do is done by the others again
        assert (await query.Search(REQUEST, timeout=20)).index_version != nodes[0].number


async def test_an_answer_too_large_is_asked_for_once(nodes: list[QueryNode], coordinator):
    for node in nodes:
        node.padding = 2_000
    request = query_pb2.SearchRequest(collection="docs", text="why " * 1_000)
    bounded = ChannelSettings(max_message_bytes=1_024)
    async with Fleet.open("", bounded, coordinator, service=SERVICE) as small:
        with pytest.raises(InvalidArgument, match="max_message_bytes"):
            await stub(small, repeat=True).Search(REQUEST, timeout=20)
        assert sum(node.calls for node in nodes) == 1
        with pytest.raises(InvalidArgument, match="max_message_bytes"):
            await stub(small, repeat=True).Search(request, timeout=20)
        assert sum(node.calls for node in nodes) == 1


async def test_an_overloaded_server_is_not_waited_for_while_others_have_room(
    nodes: list[QueryNode], client: SluiceClient
):
    for node in nodes[:2]:
        node.failures = [Overloaded("full", retry_after_ms=60_000)]
    async with asyncio.timeout(5):
        for _ in range(3):
            assert (await client.search(QUERY)).index_version


async def test_where_all_are_overloaded_the_delay_they_ask_for_is_kept(
    nodes: list[QueryNode], client: SluiceClient
):
    for node in nodes:
        node.failures = [Overloaded("full", retry_after_ms=300)]
    began = time.monotonic()
    assert (await client.search(QUERY)).index_version
    assert time.monotonic() - began >= 0.3
    assert sum(node.calls for node in nodes) == 4


async def test_no_pause_goes_beyond_the_deadline(nodes: list[QueryNode], client: SluiceClient):
    for node in nodes:
        node.failures = [Overloaded("full", retry_after_ms=1_500) for _ in range(100)]
    began = time.monotonic()
    with pytest.raises(Overloaded, match="full"):
        await client.search(QUERY, timeout_s=1.0)
    assert time.monotonic() - began < 1.0


async def test_what_another_server_cannot_cure_is_not_repeated(
    nodes: list[QueryNode], client: SluiceClient
):
    for node in nodes:
        node.failures = [NotFound("no such collection")]
    with pytest.raises(NotFound):
        await client.search(QUERY)
    assert sum(node.calls for node in nodes) == 1


async def test_what_is_not_safe_to_repeat_is_sent_once(nodes: list[QueryNode], fleet: Fleet):
    for node in nodes:
        node.failures = [Unavailable("it may have been done")]
    with pytest.raises(Unavailable, match="it may have been done"):
        await stub(fleet, repeat=False).Search(REQUEST, timeout=20)
    assert sum(node.calls for node in nodes) == 1


async def test_what_was_not_sent_goes_on_in_any_case(coordinator, fleet: Fleet):
    node = QueryNode(1)
    registry = IndexRegistry(coordinator)
    async with registry.register(SERVICE, NOWHERE, ttl_s=60), node.serving(coordinator):
        for repeat in (False, True):
            for _ in range(5):
                fleet._passed_over_until_s.clear()
                answer = await stub(fleet, repeat=repeat).Search(REQUEST, timeout=20)
                assert answer.index_version == 1


async def test_what_a_server_answered_is_told_rather_than_that_another_was_not_there(
    coordinator, fleet: Fleet
):
    node = QueryNode(1)
    node.failures = [Unavailable("its store is away") for _ in range(100)]
    registry = IndexRegistry(coordinator)
    async with registry.register(SERVICE, NOWHERE, ttl_s=60), node.serving(coordinator):
        for _ in range(6):  # either one may be the last to be tried
            fleet._passed_over_until_s.clear()
            with pytest.raises(Unavailable, match="its store is away"):
                await stub(fleet, repeat=True).Search(REQUEST, timeout=20)


async def test_nobody_there_names_each_that_was_tried(coordinator, settings):
    registry = IndexRegistry(coordinator)
    other = "127.0.0.1:2"
    async with (
        registry.register(SERVICE, NOWHERE, ttl_s=60),
        registry.register(SERVICE, other, ttl_s=60),
        open_fleet("etcd:///sluice/query", ChannelSettings(), settings, service="") as fleet,
    ):
        for repeat in (False, True):
            with pytest.raises(Unconnected) as caught:
                await stub(fleet, repeat=repeat).Search(REQUEST, timeout=20)
            assert caught.value.message.startswith(f"no server answers at {NOWHERE}, {other}; ")
            assert "/sluice/v1/instances/query/" in caught.value.message


async def test_none_announced_names_the_prefix_and_what_to_start(coordinator, client: SluiceClient):
    with pytest.raises(Unavailable) as caught:
        await client.search(QUERY)
    assert "no query server is announced under /sluice/v1/instances/query/" in caught.value.message
    assert "`sluice serve query`" in caught.value.message
    async with QueryNode(7).serving(coordinator), asyncio.timeout(20):
        while True:
            try:
                assert (await client.search(QUERY)).index_version == 7
            except Unavailable:
                await asyncio.sleep(0.01)  # the news is under way
            else:
                break


async def test_etcd_away_at_the_first_call_is_said_at_once(etcd, client: SluiceClient):
    await asyncio.to_thread(etcd.kill)
    with pytest.raises(CoordinatorUnavailable, match=etcd.endpoint):
        # Repeating it would take three pauses of the second that etcd's error asks for.
        await asyncio.wait_for(client.search(QUERY), 2.9)


@pytest.mark.parametrize(
    ("timeout_s", "failure"), [(0.5, DeadlineExceeded), (20, CoordinatorUnavailable)]
)
async def test_an_etcd_that_hangs_keeps_no_call_beyond_its_deadline_and_none_for_another(
    etcd,
    client: SluiceClient,
    settings: CoordinatorSettings,
    timeout_s: float,
    failure: type[SluiceError],
):
    coordinator = client._queries._coordinator
    assert coordinator is not None
    await coordinator.get("x")  # connected, so that only an answer is missing
    await asyncio.to_thread(etcd.freeze)
    try:
        began = time.monotonic()
        calls = [client.search(QUERY, timeout_s=timeout_s) for _ in range(8)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        # One after the other would take eight times as long as etcd is waited for.
        assert time.monotonic() - began < min(timeout_s, settings.timeout_ms / 1_000) + 1
    finally:
        await asyncio.to_thread(etcd.thaw)
    assert {type(one) for one in failures} == {failure}
    assert "etcd" in str(failures[0])


async def test_whoever_can_wait_asks_etcd_again_within_bounds(etcd, coordinator):
    await asyncio.to_thread(etcd.kill)
    async with Fleet.open(NOWHERE, ChannelSettings(), coordinator, service=SERVICE) as fleet:
        began = time.monotonic()
        retry = Retry(max_attempts=3, first_delay_s=0.2, max_delay_s=0.2)
        with pytest.raises(CoordinatorUnavailable):
            await asyncio.wait_for(fleet.call(lambda _: asyncio.sleep(0), retry), 20)
        # Each failure is followed by the pause that etcd's error asks for, but the last.
        assert time.monotonic() - began >= 2 * retry.max_delay_s


async def test_a_fleet_without_a_coordinator_is_one_address(settings):
    with pytest.raises(ConfigurationError, match="coordinator"):
        async with Fleet.open("etcd:///sluice/query", ChannelSettings(), None, service=""):
            pass
    async with open_fleet(NOWHERE, ChannelSettings(), settings, service=SERVICE) as fleet:
        assert await fleet.addresses() == (NOWHERE,)
        assert not fleet.is_followed
