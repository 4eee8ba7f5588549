"""Requests follow every move of a pointer, what they read stays pinned; on both coordinators."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from common.coordination import CoordinatorSettings, Pins, Routes, open_coordinator, pinned
from common.errors import DeadlineExceeded
from common.telemetry import Telemetry, TelemetrySettings
from query.pinning import PinnedVersions
from query.switching import Switching
from tests.integration.coordination.waiting import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from common.coordination import Coordinator
    from query.pinning import ReadPins
    from tests.integration.query.written_index import WrittenIndex

    Opened = Callable[..., Awaitable[Switching]]

_prefixes = itertools.count()


@pytest.fixture(params=["embedded", "etcd"])
async def coordinator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coordinator]:
    if request.param == "embedded":
        settings = CoordinatorSettings(kind="embedded", path=tmp_path / "coordinator")
    else:
        endpoint = request.getfixturevalue("etcd").endpoint
        prefix = f"/switching/{next(_prefixes)}"
        settings = CoordinatorSettings(kind="etcd", endpoints=(endpoint,), prefix=prefix)
    opened = open_coordinator(settings)
    yield opened
    await opened.aclose()


@pytest.fixture
async def open_switching(coordinator: Coordinator) -> AsyncIterator[Opened]:
    """Opens what follows the pointers; a test may give its own pins."""
    async with AsyncExitStack() as stack:

        async def opened(pins: ReadPins | None = None, **options: Any) -> Switching:
            if pins is None:
                pins = await stack.enter_async_context(Pins.open(coordinator, "a test", ttl_s=10))
            held = PinnedVersions(pins)
            stack.push_async_callback(held.aclose)
            routes = await Routes.open(coordinator)
            stack.push_async_callback(routes.aclose)
            return Switching(routes, held, **options)

        yield opened


class Withheld:
    """Pins that come when the test says so, and not before."""

    def __init__(self) -> None:
        self.come = asyncio.Event()
        self.asked: list[tuple[str, int]] = []

    async def read(self, _tenant: str, _collection: str, number: int) -> None:
        self.asked.append(("read", number))
        await self.come.wait()

    async def let_go(self, _tenant: str, _collection: str, number: int) -> None:
        self.asked.append(("let go", number))


def serving(switching: Switching, collection: str = "docs") -> tuple[int, int] | None:
    """Version and generation that a search would get now."""
    held = switching.current("", collection)
    return (held.version.number, held.version.generation) if held else None


async def pins_of(coordinator: Coordinator, *numbers: int) -> list[int]:
    return [number for number in numbers if await pinned(coordinator, "default", "docs", number)]


async def until_pinned(coordinator: Coordinator, *numbers: int) -> None:
    """Wait until exactly these are pinned, of the versions there may be."""
    async with asyncio.timeout(WITHIN_S):
        while await pins_of(coordinator, *range(1, 6)) != list(numbers):
            pass


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(one) for one in caplog.records if one.getMessage() == "a version is served"]


async def test_what_is_active_at_the_start_serves_at_once_and_is_pinned(
    index: WrittenIndex, coordinator: Coordinator, open_switching: Opened
):
    await index.holding()
    switching = await open_switching()
    assert serving(switching) == (1, 1)
    assert serving(switching, "other") is None
    await until_pinned(coordinator, 1)


async def test_a_move_is_followed_and_the_old_version_stays_until_its_last_search_ended(
    index: WrittenIndex, coordinator: Coordinator, open_switching: Opened
):
    await index.holding()
    switching = await open_switching()
    await until_pinned(coordinator, 1)
    first = switching.current("", "docs")
    assert first is not None
    with first.used() as before, first.used():
        await index.holding()
        await until(lambda: serving(switching) == (2, 2))
        assert before.number == 1
        await until_pinned(coordinator, 1, 2)
        await index.holding()
        await until(lambda: serving(switching) == (3, 3))
        # The second had no search; the first has two.
        await until_pinned(coordinator, 1, 3)
    await until_pinned(coordinator, 3)


async def test_the_pin_stands_before_the_switch(index: WrittenIndex, open_switching: Opened):
    pins = Withheld()
    await index.holding()
    switching = await open_switching(pins, pin_within_s=60)
    await index.holding()
    await until(lambda: ("read", 2) in pins.asked)
    assert serving(switching) == (1, 1)
    pins.come.set()
    await until(lambda: serving(switching) == (2, 2))
    await until(lambda: ("let go", 1) in pins.asked)


async def test_a_pin_that_does_not_come_delays_the_switch_no_longer_than_told(
    index: WrittenIndex, open_switching: Opened
):
    pins = Withheld()
    await index.holding()
    switching = await open_switching(pins)
    await index.holding()
    began_s = asyncio.get_running_loop().time()
    await until(lambda: serving(switching) == (2, 2))
    assert asyncio.get_running_loop().time() - began_s < 1
    assert pins.asked == [("read", 1), ("read", 2)]
    pins.come.set()
    await until(lambda: ("let go", 1) in pins.asked)


async def test_every_move_of_a_burst_is_served_in_order_though_no_pin_comes(
    index: WrittenIndex,
    open_switching: Opened,
    caplog: pytest.LogCaptureFixture,
):
    versions = [await index.begin() for _ in range(5)]
    await index.activate(versions[0])
    switching = await open_switching(Withheld(), pin_within_s=60)
    with caplog.at_level(logging.INFO, "query"):
        for version in versions[1:]:
            await index.activate(version)
        await until(lambda: serving(switching) == (4, 4))  # the next one is there: it cannot wait
        held = await switching.at_least("", "docs", 5, WITHIN_S)
    assert held is switching.current("", "docs")
    assert serving(switching) == (5, 5)
    assert [line["generation"] for line in told(caplog)] == [2, 3, 4, 5]


async def test_one_line_a_move_says_how_long_it_took(
    index: WrittenIndex,
    open_switching: Opened,
    caplog: pytest.LogCaptureFixture,
):
    reader = InMemoryMetricReader()
    await index.holding()
    async with Telemetry.open("test", TelemetrySettings(), {}, metric_reader=reader):
        with caplog.at_level(logging.INFO, "query"):
            switching = await open_switching()
            assert not told(caplog)
            pointer = await index.holding()
            await index.holding(collection="other")
            await until(lambda: serving(switching) == (2, 2))
            await until(lambda: serving(switching, "other") == (1, 1))
        lag = measured(reader, "sluice.routes.switch_lag")
    since_ms = (datetime.now(UTC) - pointer.activated_at).total_seconds() * 1_000
    [docs, other] = sorted(told(caplog), key=lambda line: line["collection"])
    assert 0 < docs["lag_ms"] < since_ms
    assert other["lag_ms"] > 0
    fields = ("tenant", "collection", "index_version", "generation", "levelname")
    assert [docs[name] for name in fields] == ["default", "docs", 2, 2, "INFO"]
    assert [other[name] for name in fields] == ["default", "other", 1, 1, "INFO"]
    assert lag.count == 2
    assert lag.sum == pytest.approx(docs["lag_ms"] + other["lag_ms"], abs=0.01)


def measured(reader: InMemoryMetricReader, name: str) -> Any:
    """The one point of a metric."""
    data = reader.get_metrics_data()
    assert data is not None
    [point] = [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]
    return point


async def test_a_collection_whose_pointer_goes_is_served_no_more_but_to_those_who_read_it(
    index: WrittenIndex, coordinator: Coordinator, open_switching: Opened
):
    await index.holding()
    switching = await open_switching()
    held = switching.current("", "docs")
    assert held is not None
    with held.used() as version:
        await index.registry.delete_collection("", "docs")
        await until(lambda: serving(switching) is None)
        assert version.number == 1
        await until_pinned(coordinator, 1)
    await until_pinned(coordinator)
    await index.holding()
    await until(lambda: serving(switching) == (2, 1))


async def test_a_move_that_is_coming_is_overtaken_by_the_end_of_the_collection(
    index: WrittenIndex, open_switching: Opened
):
    pins = Withheld()
    await index.holding()
    switching = await open_switching(pins, pin_within_s=60)
    await index.holding()
    await until(lambda: ("read", 2) in pins.asked)
    await index.registry.delete_collection("", "docs")
    await until(lambda: serving(switching) is None)
    pins.come.set()
    await until(lambda: {("let go", 1), ("let go", 2)} <= set(pins.asked))
    assert serving(switching) is None


async def test_who_waits_for_a_generation_does_not_wait_for_its_pin(
    index: WrittenIndex, open_switching: Opened
):
    await index.holding()
    switching = await open_switching(Withheld(), pin_within_s=60)
    waiting = asyncio.create_task(switching.at_least("", "docs", 2, WITHIN_S))
    await index.holding()
    held = await waiting
    assert held is not None
    assert held.version.number == 2
    with pytest.raises(DeadlineExceeded, match=r"docs is at generation 2 and did not reach .* 3"):
        await switching.at_least("", "docs", 3, 0.05)
