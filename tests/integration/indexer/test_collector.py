"""Retention: which versions go by age, which stay because a server pins them, and who collects."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from common.coordination import CoordinatorSettings, Pins, collector_lock
from common.errors import NotFound
from indexer.collector import Collector
from indexer.settings import RetentionSettings
from indexer.store import ChromaCatalog
from sluice.collections.v1 import collections_pb2 as pb
from tests.integration.etcd import Etcd
from tests.integration.indexer.conftest import (
    SETTINGS,
    document,
    open_running,
    refusal,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from common.chroma import Chroma
    from tests.integration.indexer.conftest import Running

ACTIVE, RETIRED, FAILED, READY, BUILDING = (
    pb.VERSION_STATE_ACTIVE,
    pb.VERSION_STATE_RETIRED,
    pb.VERSION_STATE_FAILED,
    pb.VERSION_STATE_READY,
    pb.VERSION_STATE_BUILDING,
)


def collector(running: Running, **settings: Any) -> Collector:
    return Collector(
        running.coordinator,
        running.registry,
        ChromaCatalog(running.chroma),
        RetentionSettings(**settings),
        holder="this test",
    )


async def stores(running: Running) -> list[int]:
    """Numbers of the versions of the collection docs that have a store."""
    names = await running.chroma.collections()
    found = (re.fullmatch(r"default\.docs\.v([0-9]+)", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


async def test_the_newest_retired_versions_are_kept(running: Running) -> None:
    await running.create()
    for _ in range(4):
        await running.swapped()
    assert await collector(running, keep_versions=2).collect() == 2
    assert await running.states() == {3: RETIRED, 4: RETIRED, 5: ACTIVE}
    assert await stores(running) == [3, 4, 5]
    assert await collector(running, keep_versions=2).collect() == 0
    request = pb.RollBackCollectionRequest(collection="docs", to_version=3)
    back = await running.collections.RollBackCollection(request)
    assert (back.active.version, back.active.previous_version) == (3, 5)


async def test_further_ones_are_kept_for_days(running: Running) -> None:
    await running.create()
    await running.swapped()
    await running.swapped()
    assert await collector(running, keep_versions=0, keep_days=1).collect() == 0
    assert await collector(running, keep_versions=1, keep_days=0).collect() == 1
    assert await running.states() == {2: RETIRED, 3: ACTIVE}


async def test_built_versions_that_nobody_activated_go_likewise(running: Running) -> None:
    await running.create()
    await running.built()
    await running.built()
    await running.swapped()
    newer = await running.built()
    assert await collector(running, keep_versions=2).collect() == 1
    assert await running.states() == {1: RETIRED, 3: READY, 4: ACTIVE, newer: READY}
    assert await collector(running, keep_versions=0).collect() == 2
    assert await running.states() == {4: ACTIVE, newer: READY}


async def test_failed_ones_are_kept_for_their_reason_and_then_go(running: Running) -> None:
    await running.create()
    begun = await running.begin()
    await running.end(2, begun.fence)
    assert await collector(running, keep_failed_s=3600).collect() == 0
    assert (await running.states())[2] == FAILED
    assert await collector(running, keep_failed_s=0).collect() == 1
    assert await running.states() == {1: ACTIVE}
    assert await stores(running) == [1]


async def test_an_abandoned_build_fails_with_its_reason_and_then_goes(running: Running) -> None:
    await running.create()
    await running.begin()
    await running.send([document("a")], index_version=2)
    assert await collector(running, keep_failed_s=0).collect() == 0
    assert (await running.states())[2] == BUILDING  # its lock is held
    await running.lose_build_lock(2)
    assert await collector(running, keep_failed_s=3600).collect() == 0
    assert (await running.states())[2] == BUILDING
    assert await collector(running, keep_failed_s=0).collect() == 0
    (_, abandoned) = (await running.describe()).versions
    assert abandoned.state == FAILED
    assert "abandoned" in abandoned.failure
    assert await collector(running, keep_failed_s=0).collect() == 1
    assert await stores(running) == [1]


async def test_what_a_server_pins_stays_and_can_be_rolled_back_to(running: Running) -> None:
    await running.create()
    async with Pins.open(running.coordinator, "a query server", ttl_s=10) as pins:
        await pins.read("", "docs", 1)
        await running.swapped()
        assert await collector(running, keep_versions=0).collect() == 0
        assert await running.states() == {1: RETIRED, 2: ACTIVE}
        await pins.let_go("", "docs", 1)
        assert await collector(running, keep_versions=0).collect() == 1
    assert await running.states() == {2: ACTIVE}


async def test_what_was_deleted_while_it_was_pinned_goes_when_it_is_let_go(
    running: Running,
) -> None:
    await running.create()
    await running.swapped()
    async with Pins.open(running.coordinator, "a query server", ttl_s=10) as pins:
        await pins.read("", "docs", 1)
        response = await running.delete(1)
        assert (response.pending, list(response.used_by)) == (True, ["a query server"])
        assert await collector(running).collect() == 0
        assert await stores(running) == [1, 2]
        await pins.let_go("", "docs", 1)
        assert await collector(running, keep_failed_s=3600).collect() == 1
    assert await running.states() == {2: ACTIVE}
    assert await stores(running) == [2]


async def test_a_first_version_that_is_being_made_is_not_taken_for_abandoned(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    making, go_on = asyncio.Event(), asyncio.Event()
    create = running.chroma.create_collection

    async def slowly(name: str) -> object:
        making.set()
        await go_on.wait()
        return await create(name)

    monkeypatch.setattr(running.chroma, "create_collection", slowly)
    creating = asyncio.create_task(running.create())
    await making.wait()
    for _ in range(2):
        assert await collector(running, keep_failed_s=0).collect() == 0
    go_on.set()
    assert (await creating).active.version == 1
    await running.send([document("a")])
    assert await running.listed() == {"file:///a": 1}


async def test_a_store_that_cannot_be_deleted_keeps_no_other_and_is_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.create()
    await running.swapped()
    await running.swapped()
    delete = running.chroma.delete_collection

    async def fail(name: str) -> None:
        if name.endswith("1"):
            raise NotFound("not now")
        await delete(name)

    with monkeypatch.context() as broken:
        broken.setattr(running.chroma, "delete_collection", fail)
        assert await collector(running, keep_versions=0).collect() == 1
    assert await running.states() == {1: FAILED, 3: ACTIVE}
    error = await refusal(running.activate(1))
    assert "collected" in error.message
    assert await collector(running, keep_versions=0, keep_failed_s=0).collect() == 1
    assert await stores(running) == [3]


async def test_indexers_collect_by_themselves_one_at_a_time(tmp_path: Path, chroma: Chroma) -> None:
    retention = RetentionSettings(keep_versions=0, interval_s=0.05)
    settings = SETTINGS.model_copy(update={"retention": retention})
    with Etcd(tmp_path / "etcd") as etcd:
        shared = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,))
        async with AsyncExitStack() as first:
            one = await first.enter_async_context(
                open_running(chroma, shared, settings=settings, holder="one")
            )
            await one.create()
            await one.swapped()
            await until(lambda: has_states(one, {2: ACTIVE}))
            async with open_running(chroma, shared, settings=settings, holder="two") as two:
                lock = await two.coordinator.get(collector_lock())
                assert lock is not None
                assert b'"one"' in lock.value
                await first.aclose()
                await two.swapped()
                await until(lambda: has_states(two, {3: ACTIVE}))


async def has_states(running: Running, states: dict[int, int]) -> bool:
    return await running.states() == states
