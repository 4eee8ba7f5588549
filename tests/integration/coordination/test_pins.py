"""Pins on both coordinators: they stand as long as someone needs them, also over a lost lease."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    Coordinator,
    Delete,
    Pins,
    Put,
    hold,
    maintenance,
    maintenance_lock,
    pinned,
    pins_prefix,
)
from common.errors import (
    Contended,
    CoordinatorUnavailable,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from tests.integration.coordination.versions import end_lease
from tests.integration.coordination.waiting import WITHIN_S, following

if TYPE_CHECKING:
    from tests.integration.etcd import Etcd

READER = "query on host a"
WRITER = "indexer on host b"


async def uses(coordinator: Coordinator, number: int = 1) -> list[tuple[str, str]]:
    return [(pin.holder, pin.use) for pin in await pinned(coordinator, "", "docs", number)]


async def keys_of(coordinator: Coordinator) -> list[str]:
    return [entry.key for entry in (await coordinator.list("pins/")).entries]


async def until_pinned(coordinator: Coordinator, number: int, *, pins: int) -> None:
    """Wait until so many pins stand, all of them on this version."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(CoordinatorUnavailable):
                there = await keys_of(coordinator)
                if len(there) == len(await uses(coordinator, number)) == pins:
                    return
            await asyncio.sleep(0.02)


async def write_until_refused(pins: Pins) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:  # as long as the pin certainly stands
            async with pins.writing("", "docs", 1):
                await asyncio.sleep(0.02)


async def test_who_reads_a_version_is_known_until_the_last_has_let_go(
    coordinator: Coordinator,
) -> None:
    async with Pins.open(coordinator, READER, ttl_s=60) as pins:
        await pins.read("", "docs", 1)
        await pins.read("default", "docs", 1)
        await pins.read("", "docs", 12)
        (pin,) = await pinned(coordinator, "", "docs", 1)
        assert (pin.holder, pin.use) == (READER, "read")
        assert pin.since.startswith("20")
        await pins.let_go("", "docs", 1)
        assert await uses(coordinator) == [(READER, "read")]
        await pins.let_go("", "docs", 1)
        assert await uses(coordinator) == []
        assert await uses(coordinator, 12) == [(READER, "read")]
    assert await keys_of(coordinator) == []


async def test_nothing_is_granted_before_the_first_pin(coordinator: Coordinator) -> None:
    revision = (await coordinator.list("pins/")).revision
    async with Pins.open(coordinator, READER, ttl_s=60):
        pass
    assert (await coordinator.list("pins/")).revision == revision
    async with Pins.open(coordinator, READER, ttl_s=60) as pins:
        await pins.read("", "docs", 1)
        await pins.read("", "docs", 2)
        leases = {entry.lease for entry in (await coordinator.list("pins/")).entries}
        assert len(leases) == 1
        assert 0 not in leases


async def test_several_processes_and_uses_are_told_apart(coordinator: Coordinator) -> None:
    async with (
        Pins.open(coordinator, READER, ttl_s=60) as reader,
        Pins.open(coordinator, WRITER, ttl_s=60) as writer,
    ):
        await reader.read("", "docs", 1)
        await writer.read("", "docs", 1)
        async with writer.writing("", "docs", 1), writer.writing("", "docs", 1):
            expected = [(WRITER, "read"), (WRITER, "write"), (READER, "read")]
            assert sorted(await uses(coordinator)) == expected
        await reader.let_go("", "docs", 1)
        assert await uses(coordinator) == [(WRITER, "read")]


async def test_a_write_pin_goes_with_its_last_writer_also_after_a_failure(
    coordinator: Coordinator,
) -> None:
    async with Pins.open(coordinator, WRITER, ttl_s=60) as pins:
        with contextlib.suppress(RuntimeError):
            async with pins.writing("", "docs", 1):
                async with pins.writing("", "docs", 1):
                    assert await uses(coordinator) == [(WRITER, "write")]
                assert await uses(coordinator) == [(WRITER, "write")]
                raise RuntimeError
        assert await uses(coordinator) == []


async def test_more_pins_than_one_transaction_takes(coordinator: Coordinator) -> None:
    async with Pins.open(coordinator, READER, ttl_s=4) as pins:
        for number in range(1, 151):
            await pins.read("", "docs", number)
        start = (await coordinator.list("pins/")).revision
        async with following(coordinator.watch("pins/", after_revision=start)) as follower:
            await end_lease(coordinator, (await keys_of(coordinator))[0])
            await follower.until_count(300)
        assert len(await keys_of(coordinator)) == 150


async def test_no_name_reaches_outside_its_place(coordinator: Coordinator) -> None:
    async with Pins.open(coordinator, READER, ttl_s=60) as pins:
        with pytest.raises(InvalidArgument):
            await pins.read("", "a/b", 1)
        with pytest.raises(InvalidArgument):
            async with pins.writing("..", "docs", 1):
                pytest.fail("entered")


async def test_pins_outlive_their_time_to_live(coordinator: Coordinator) -> None:
    async with Pins.open(coordinator, READER, ttl_s=1) as pins:
        await pins.read("", "docs", 1)
        other = await coordinator.grant_lease(3)
        start = (await coordinator.transact([], [Put("other", b"", other.id)])).revision
        async with following(coordinator.watch("other", after_revision=start)) as follower:
            await follower.until_count(1)
        assert await uses(coordinator) == [(READER, "read")]


async def test_a_lost_lease_is_replaced_and_all_pins_put_again(coordinator: Coordinator) -> None:
    async with Pins.open(coordinator, WRITER, ttl_s=3) as pins:
        await pins.read("", "docs", 1)
        async with pins.writing("", "docs", 2):
            lost = await keys_of(coordinator)
            start = (await coordinator.list("pins/")).revision
            async with following(coordinator.watch("pins/", after_revision=start)) as follower:
                await end_lease(coordinator, lost[0])
                await follower.until_count(4)
            assert await keys_of(coordinator) == lost
            assert [change.value is None for change in follower.changes] == [True] * 2 + [False] * 2
        assert await keys_of(coordinator) == lost[:1]
    assert await keys_of(coordinator) == []


async def test_a_pin_that_finds_its_lease_gone_is_put_under_another(
    coordinator: Coordinator,
) -> None:
    async with Pins.open(coordinator, WRITER, ttl_s=60) as pins:
        await pins.read("", "docs", 1)
        await end_lease(coordinator, (await keys_of(coordinator))[0])
        async with pins.writing("", "docs", 2):
            # at once, long before the next renewal
            assert await uses(coordinator, 2) == [(WRITER, "write")]
            await pins.let_go("", "docs", 1)
            await until_pinned(coordinator, 2, pins=1)


async def test_a_collection_is_not_repaired_while_it_is_written(coordinator: Coordinator) -> None:
    async with Pins.open(coordinator, WRITER, ttl_s=60) as pins:
        await pins.read("", "docs", 1)
        async with pins.writing("", "docs", 2):
            with pytest.raises(FailedPrecondition, match=WRITER):
                async with maintenance(coordinator, "", "docs", holder="kim@host"):
                    pytest.fail("maintained while written")
            async with maintenance(coordinator, "", "other", holder="kim@host"):
                pass
        async with maintenance(coordinator, "", "docs", holder="kim@host") as lock:
            assert lock.key == maintenance_lock("", "docs")
            assert not lock.lost.is_set()
        assert await coordinator.get(maintenance_lock("", "docs")) is None


async def test_nothing_is_written_while_it_is_repaired(coordinator: Coordinator) -> None:
    async with Pins.open(coordinator, WRITER, ttl_s=60) as pins:
        async with maintenance(coordinator, "", "docs", holder="kim@host"):
            with pytest.raises(Contended, match=r"docs .*repaired.* kim@host since") as caught:
                async with pins.writing("", "docs", 1):
                    pytest.fail("written while maintained")
            assert caught.value.retry_after_ms is not None
            assert await uses(coordinator) == []
            await pins.read("", "docs", 1)
            async with pins.writing("", "other", 1):
                pass
            with pytest.raises(Contended, match="kim@host"):
                async with maintenance(coordinator, "", "docs", holder="sam@host"):
                    pytest.fail("maintained twice")
        async with pins.writing("", "docs", 1):
            assert (WRITER, "write") in await uses(coordinator)


async def test_of_a_writer_and_a_repair_at_once_at_most_one_goes_on(
    coordinator: Coordinator,
) -> None:
    inside = 0

    async def alone() -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await coordinator.get("anything")
        inside -= 1

    async def write(pins: Pins) -> bool:
        try:
            async with pins.writing("", "docs", 1):
                await alone()
                return True
        except Contended:
            return False

    async def repair() -> bool:
        try:
            async with maintenance(coordinator, "", "docs", holder="kim@host"):
                await alone()
                return True
        except FailedPrecondition:
            return False

    async with Pins.open(coordinator, WRITER, ttl_s=60) as pins:
        for _ in range(20):
            await asyncio.gather(write(pins), repair())
            assert inside == 0


async def test_a_write_pin_lost_to_a_repair_is_not_taken_for_standing(
    coordinator: Coordinator,
) -> None:
    async with Pins.open(coordinator, WRITER, ttl_s=1) as pins, pins.writing("", "docs", 1):
        (key,) = await keys_of(coordinator)
        start = (await coordinator.list("pins/")).revision
        async with hold(coordinator, maintenance_lock("", "docs"), holder="kim@host", ttl_s=60):
            await end_lease(coordinator, key)
            # renewing finds the lease gone, and must not put the pin during the repair
            with pytest.raises(Contended, match="repaired"):
                await write_until_refused(pins)
            assert await keys_of(coordinator) == []
        async with following(coordinator.watch("pins/", after_revision=start)) as follower:
            await follower.until_count(2)
        assert follower.changes[1].key == key


async def test_what_another_release_pinned_counts_as_a_writer(coordinator: Coordinator) -> None:
    await coordinator.transact([], [Put(pins_prefix("", "docs", 1) + "x", b"\xff")])
    assert await uses(coordinator) == [("someone", "write")]
    with pytest.raises(FailedPrecondition, match="someone"):
        async with maintenance(coordinator, "", "docs", holder="kim@host"):
            pytest.fail("maintained while written")
    await coordinator.transact([], [Delete(pins_prefix("", "docs", 1) + "x")])


async def test_while_etcd_is_away_reading_goes_on_and_is_pinned_later(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    async with Pins.open(on_own_etcd, READER, ttl_s=3) as pins:
        await pins.read("", "docs", 1)
        await asyncio.to_thread(own_etcd.kill)
        await pins.read("", "docs", 2)
        await pins.let_go("", "docs", 1)
        with pytest.raises(CoordinatorUnavailable):
            async with pins.writing("", "docs", 3):
                pytest.fail("written without a pin")
        await asyncio.to_thread(own_etcd.start)
        await until_pinned(on_own_etcd, 2, pins=1)
    assert await keys_of(on_own_etcd) == []


async def test_a_silent_etcd_holds_no_reader_up(on_own_etcd: Coordinator, own_etcd: Etcd) -> None:
    async with Pins.open(on_own_etcd, READER, ttl_s=60) as pins:
        await pins.read("", "docs", 1)
        own_etcd.freeze()
        began_s = asyncio.get_running_loop().time()
        await pins.read("", "docs", 2)
        assert asyncio.get_running_loop().time() - began_s < 1.9
        own_etcd.thaw()
        await pins.let_go("", "docs", 1)
        await until_pinned(on_own_etcd, 2, pins=1)


async def test_a_pin_in_doubt_is_renewed_before_anything_is_written(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    async with (
        Pins.open(on_own_etcd, WRITER, ttl_s=2) as pins,
        pins.writing("", "docs", 1),
    ):
        async with pins.writing("", "docs", 1):
            pass
        await asyncio.to_thread(own_etcd.kill)
        with pytest.raises(CoordinatorUnavailable):
            await write_until_refused(pins)
        await asyncio.to_thread(own_etcd.start)
        await until_pinned(on_own_etcd, 1, pins=1)


async def test_a_writer_is_told_that_its_pin_was_lost_although_it_stands_again(
    coordinator: Coordinator,
) -> None:
    async with (
        Pins.open(coordinator, WRITER, ttl_s=1) as pins,
        pins.writing("", "docs", 1) as check_unbroken,
    ):
        await check_unbroken()
        (key,) = await keys_of(coordinator)
        start = (await coordinator.list("pins/")).revision
        async with following(coordinator.watch("pins/", after_revision=start)) as follower:
            await end_lease(coordinator, key)
            await follower.until_count(2)  # gone, and put again
        assert await keys_of(coordinator) == [key]
        with pytest.raises(Unavailable, match="write it again"):
            await check_unbroken()
        async with pins.writing("", "docs", 1) as check_unbroken_anew:
            await check_unbroken_anew()


async def test_a_silent_etcd_refuses_all_writers_at_once(
    on_own_etcd: Coordinator, own_etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.coordination.pins._WRITERS_PATIENCE_S", 0.5)

    async def write(pins: Pins, number: int) -> None:
        with pytest.raises(CoordinatorUnavailable) as caught:
            async with pins.writing("", "docs", number):
                pytest.fail("written without a pin")
        assert caught.value.retry_after_ms

    async with Pins.open(on_own_etcd, WRITER, ttl_s=60) as pins:
        await on_own_etcd.get("connected")
        own_etcd.freeze()
        began_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(write(pins, number) for number in range(1, 5)))
        assert asyncio.get_running_loop().time() - began_s < 3.9  # one alone may wait for 2 s
        own_etcd.thaw()
