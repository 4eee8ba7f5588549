"""The lock on both coordinators: one holder, an end with its lease, and word of its loss."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    Condition,
    Coordinator,
    Delete,
    HeldLock,
    Put,
    hold,
    root_lock,
)
from common.errors import Contended, CoordinatorUnavailable, InvalidArgument
from tests.integration.coordination.versions import end_lease
from tests.integration.coordination.waiting import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.etcd import Etcd

KEY = root_lock("", "docs", "hdfs://lake/raw/")
TTL_S = 2


async def lost(lock: HeldLock) -> float:
    """Wait until the lock is told to be lost; how long that took, in seconds."""
    began = time.monotonic()
    async with asyncio.timeout(WITHIN_S):
        await lock.lost.wait()
    return time.monotonic() - began


def test_roots_have_keys_of_their_own():
    assert KEY.startswith("locks/default/docs/roots/")
    assert root_lock("default", "docs", "hdfs://lake/raw/") == KEY
    others = [("t", "docs", "hdfs://lake/raw/"), ("", "d", "hdfs://lake/raw/"), ("", "docs", "x")]
    assert len({KEY, *(root_lock(*names) for names in others)}) == 4
    with pytest.raises(InvalidArgument):
        root_lock("", "a/b", "x")


async def test_a_second_holder_is_told_who_has_it(coordinator: Coordinator) -> None:
    async with hold(coordinator, KEY, holder="host a, process 7, job j1", ttl_s=TTL_S) as lock:
        entry = await coordinator.get(KEY)
        assert entry is not None
        assert lock.revision == entry.create_revision
        with pytest.raises(
            Contended, match=r"host a, process 7, job j1 since 20.*within"
        ) as caught:
            async with hold(coordinator, KEY, holder="b", ttl_s=TTL_S):
                pytest.fail("two hold it")
        assert caught.value.retry_after_ms is not None
        async with hold(coordinator, root_lock("", "docs", "other"), holder="b", ttl_s=TTL_S):
            pass
        assert not lock.lost.is_set()
    assert await coordinator.get(KEY) is None


async def test_it_is_free_at_once_after_its_holder_let_go_or_failed(
    coordinator: Coordinator,
) -> None:
    revisions = []
    for _ in range(3):
        with contextlib.suppress(RuntimeError):
            async with hold(coordinator, KEY, holder="a", ttl_s=60) as lock:
                revisions.append(lock.revision)
                raise RuntimeError
    assert revisions == sorted(set(revisions))
    assert len(revisions) == 3


async def test_of_many_at_once_one_gets_it(coordinator: Coordinator) -> None:
    done = asyncio.Event()
    holders = 0

    async def try_it() -> bool:
        nonlocal holders
        try:
            async with hold(coordinator, KEY, holder="one of many", ttl_s=TTL_S):
                holders += 1
                await done.wait()
                return True
        except Contended:
            return False

    tries = [asyncio.create_task(try_it()) for _ in range(10)]
    await until(lambda: sum(one.done() for one in tries) == 9)
    assert holders == 1
    done.set()
    assert sum(await asyncio.gather(*tries)) == 1


async def test_it_is_renewed_beyond_its_time_to_live(coordinator: Coordinator) -> None:
    async with hold(coordinator, KEY, holder="a", ttl_s=1) as lock:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.lost.wait(), 2.5)
        entry = await coordinator.get(KEY)
        assert entry is not None
        assert entry.create_revision == lock.revision


async def test_the_end_of_the_lease_is_told_and_a_late_write_fails(
    coordinator: Coordinator,
) -> None:
    async with hold(coordinator, KEY, holder="a", ttl_s=TTL_S) as lock:
        await end_lease(coordinator, KEY)
        assert await lost(lock) < TTL_S
        async with hold(coordinator, KEY, holder="b", ttl_s=TTL_S) as other:
            assert other.revision > lock.revision
            late = [Condition(KEY, create_revision=lock.revision)]
            assert not (await coordinator.transact(late, [Put("x", b"late")])).committed
            right = [Condition(KEY, create_revision=other.revision)]
            assert (await coordinator.transact(right, [Put("x", b"right")])).committed
            assert not other.lost.is_set()
    # The first one's leaving takes nothing from the second: both are gone only now.
    assert await coordinator.get(KEY) is None


async def test_a_lock_deleted_by_hand_is_lost(coordinator: Coordinator) -> None:
    async with hold(coordinator, KEY, holder="a", ttl_s=TTL_S) as lock:
        await coordinator.transact([], [Delete(KEY)])
        async with hold(coordinator, KEY, holder="b", ttl_s=60):
            assert await lost(lock) < TTL_S


async def test_what_another_release_wrote_keeps_others_out(coordinator: Coordinator) -> None:
    await coordinator.transact([], [Put(KEY, b"\xff not ours")])
    with pytest.raises(Contended, match="held by someone"):
        async with hold(coordinator, KEY, holder="a", ttl_s=TTL_S):
            pytest.fail("two hold it")


async def test_it_outlives_a_restart_of_etcd(on_own_etcd: Coordinator, own_etcd: Etcd) -> None:
    async with hold(on_own_etcd, KEY, holder="a", ttl_s=6) as lock:
        await asyncio.to_thread(own_etcd.kill)
        await until(lambda: not on_own_etcd.healthy)
        await asyncio.to_thread(own_etcd.start)
        await until(lambda: on_own_etcd.healthy)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.lost.wait(), 7)
        entry = await on_own_etcd.get(KEY)
        assert entry is not None
        assert entry.create_revision == lock.revision


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_it_is_in_doubt_before_its_lease_can_have_ended(
    on_own_etcd: Coordinator, own_etcd: Etcd, fault: str
) -> None:
    async with hold(on_own_etcd, KEY, holder="a", ttl_s=3) as lock:
        await asyncio.to_thread(getattr(own_etcd, fault))
        assert await lost(lock) < 3
    assert lock.lost.is_set()


async def test_without_a_coordinator_nobody_holds_it(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    await asyncio.to_thread(own_etcd.kill)
    with pytest.raises(CoordinatorUnavailable):
        async with hold(on_own_etcd, KEY, holder="a", ttl_s=TTL_S):
            pytest.fail("held without a coordinator")


async def test_a_process_that_was_stopped_knows_at_once_that_the_lock_is_gone(
    own_etcd: Etcd, on_own_etcd: Coordinator
) -> None:
    async with held_by_a_process(own_etcd.endpoint) as process:
        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(WITHIN_S):
            while await on_own_etcd.get(KEY) is not None:  # noqa: ASYNC110 — its end has no event here
                await asyncio.sleep(0.05)
        async with hold(on_own_etcd, KEY, holder="the next one", ttl_s=60) as lock:
            # Also where nobody answers it: its own clock must tell.
            await asyncio.to_thread(own_etcd.freeze)
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            async with asyncio.timeout(1):
                assert await process.stdout.readline() == b"lost\n"
            await asyncio.to_thread(own_etcd.thaw)
            entry = await on_own_etcd.get(KEY)
            assert entry is not None
            assert entry.create_revision == lock.revision


HOLDER = """
import asyncio, sys
from common.coordination import CoordinatorSettings, hold, open_coordinator

async def main(endpoint, key):
    settings = CoordinatorSettings(kind="etcd", endpoints=(endpoint,))
    async with hold(open_coordinator(settings), key, holder="the killed one", ttl_s=2) as lock:
        await asyncio.sleep(0)  # its renewing begins
        print("held", flush=True)
        await lock.lost.wait()
        print("lost", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def held_by_a_process(endpoint: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that holds the lock, and says when it has lost it."""
    command = [sys.executable, "-c", HOLDER, endpoint, KEY]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_the_lock_of_a_killed_process_ends_with_its_lease(
    own_etcd: Etcd, on_own_etcd: Coordinator
) -> None:
    async with held_by_a_process(own_etcd.endpoint):
        pass
    killed = time.monotonic()
    with pytest.raises(Contended, match=r"the killed one since .* ends within 2 s"):
        async with hold(on_own_etcd, KEY, holder="b", ttl_s=TTL_S):
            pytest.fail("two hold it")
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                async with hold(on_own_etcd, KEY, holder="b", ttl_s=TTL_S):
                    break
            except Contended:
                await asyncio.sleep(0.05)
    assert time.monotonic() - killed < 6
