"""Word statistics are published by compare-and-swap, followed, and gone with their version."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    Coordinator,
    IndexRegistry,
    Put,
    Routes,
    StatisticsRegistry,
    VersionState,
    WordStatisticsRecord,
    keys,
)
from tests.integration.coordination.versions import CHUNKING
from tests.integration.coordination.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.coordination import VersionRecord
    from common.embedding import EmbedderSpec

PLACE = ("default", "docs", 1)
STATISTICS = WordStatisticsRecord(
    *PLACE,
    table="first",
    chunks=3,
    terms=2,
    text_words=9,
    title_words=1,
    parts=1,
    digest="ab" * 32,
    counted_at=datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
    analysis=1,
)


@pytest.fixture
def registry(coordinator: Coordinator) -> IndexRegistry:
    return IndexRegistry(coordinator)


@pytest.fixture
def statistics(coordinator: Coordinator) -> StatisticsRegistry:
    return StatisticsRegistry(coordinator)


@pytest.fixture
async def version(registry: IndexRegistry, embedder: EmbedderSpec) -> VersionRecord:
    return await registry.begin_version("", "docs", embedder, CHUNKING)


@asynccontextmanager
async def following(coordinator: Coordinator) -> AsyncIterator[Routes]:
    routes = await Routes.open(coordinator)
    try:
        yield routes
    finally:
        await routes.aclose()


async def publish(statistics: StatisticsRegistry, record: WordStatisticsRecord) -> bool:
    seen = await statistics.see(*PLACE)
    assert seen is not None
    return await statistics.publish(seen, record)


async def test_what_is_published_is_read_back_with_its_version(
    registry: IndexRegistry, statistics: StatisticsRegistry, version: VersionRecord
) -> None:
    seen = await statistics.see("", "docs", 1)
    assert seen is not None
    assert (seen.version, seen.published, seen.revision) == (version, None, 0)
    assert await statistics.publish(seen, STATISTICS)
    again = await statistics.see(*PLACE)
    assert again is not None
    assert again.published == STATISTICS
    assert again.revision > 0
    state = await registry.collection("", "docs")
    assert (state.versions, state.statistics) == ((version,), (STATISTICS,))
    assert (await registry.all_collections())[0].statistics == (STATISTICS,)


async def test_of_two_that_count_the_one_that_began_first_loses(
    statistics: StatisticsRegistry, version: VersionRecord
) -> None:
    del version
    early = await statistics.see(*PLACE)
    assert early is not None
    assert await publish(statistics, STATISTICS)
    later = replace(STATISTICS, table="second")
    assert await publish(statistics, later)
    assert not await statistics.publish(early, replace(STATISTICS, table="early"))
    seen = await statistics.see(*PLACE)
    assert seen is not None
    assert seen.published == later


async def test_nothing_is_published_of_a_version_that_is_going(
    registry: IndexRegistry, statistics: StatisticsRegistry, version: VersionRecord
) -> None:
    seen = await statistics.see(*PLACE)
    assert seen is not None
    failed = await registry.set_state(version, VersionState.FAILED)
    assert not await statistics.publish(seen, STATISTICS)
    assert await statistics.see(*PLACE) is None
    await registry.delete_version(failed)
    assert not await statistics.publish(seen, STATISTICS)
    assert await statistics.see(*PLACE) is None


async def test_statistics_go_with_their_version(
    coordinator: Coordinator,
    registry: IndexRegistry,
    statistics: StatisticsRegistry,
    version: VersionRecord,
) -> None:
    await publish(statistics, STATISTICS)
    await registry.delete_version(await registry.set_state(version, VersionState.FAILED))
    assert await coordinator.get(keys.statistics_key(*PLACE)) is None


async def test_statistics_go_with_their_collection_and_no_other(
    coordinator: Coordinator,
    registry: IndexRegistry,
    statistics: StatisticsRegistry,
    version: VersionRecord,
    embedder: EmbedderSpec,
) -> None:
    del version
    await publish(statistics, STATISTICS)
    await registry.begin_version("", "docs-2", embedder, CHUNKING)
    other = await statistics.see("", "docs-2", 1)
    assert other is not None
    await statistics.publish(other, replace(STATISTICS, collection="docs-2"))
    await registry.delete_collection("", "docs", versions={1})
    assert await coordinator.get(keys.statistics_key(*PLACE)) is None
    assert await coordinator.get(keys.statistics_key("", "docs-2", 1)) is not None


async def test_statistics_that_cannot_be_read_are_as_none_and_can_be_replaced(
    coordinator: Coordinator,
    registry: IndexRegistry,
    statistics: StatisticsRegistry,
    version: VersionRecord,
) -> None:
    await coordinator.transact([], [Put(keys.statistics_key(*PLACE), b"{")])
    state = await registry.collection("", "docs")
    assert (state.versions, state.statistics) == ((version,), ())
    assert await publish(statistics, STATISTICS)
    assert (await registry.collection("", "docs")).statistics == (STATISTICS,)


async def test_statistics_alone_are_no_collection(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await coordinator.transact([], [Put(keys.statistics_key(*PLACE), b"{}")])
    assert await registry.all_collections() == ()


async def test_routes_follow_statistics(
    coordinator: Coordinator,
    registry: IndexRegistry,
    statistics: StatisticsRegistry,
    version: VersionRecord,
) -> None:
    await publish(statistics, STATISTICS)
    async with following(coordinator) as routes:
        assert routes.statistics(PLACE) == STATISTICS
        told: list[tuple[str, str, int]] = []
        routes.on_statistics(told.append)
        second = replace(STATISTICS, table="second")
        await publish(statistics, second)
        await until(lambda: routes.statistics(PLACE) == second)
        await coordinator.transact([], [Put(keys.statistics_key(*PLACE), b"[")])
        await publish(statistics, replace(STATISTICS, table="third"))
        await until(lambda: len(told) == 2)
        record = routes.statistics(PLACE)
        assert record is not None
        assert record.table == "third"
        await registry.delete_version(await registry.set_state(version, VersionState.FAILED))
        await until(lambda: routes.statistics(PLACE) is None)
        assert told == [PLACE] * 3
