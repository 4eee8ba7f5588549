"""What only the embedded coordinator has: its file, its lock, and what survives its process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from common.coordination import Change, Entry, Put
from common.coordination.embedded import MAX_HISTORY, EmbeddedCoordinator
from common.errors import FailedPrecondition
from tests.integration.coordination.waiting import following

ROOT = Path(__file__).parents[3]

WRITER = """
import asyncio, sys
from pathlib import Path
from common.coordination import Put
from common.coordination.embedded import EmbeddedCoordinator

async def write():
    coordinator = EmbeddedCoordinator(Path(sys.argv[1]), timeout_s=5)
    lease = await coordinator.grant_lease(3600)
    await coordinator.transact([], [Put("leased", b"", lease.id)])
    number = 0
    while True:
        number += 1
        await coordinator.transact([], [Put("a", b"%d" % number), Put("b", b"%d" % number)])
        print(number, flush=True)

asyncio.run(write())
"""


async def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    # nothing else runs on this loop, so blocking it for the writer is the point
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:  # noqa: ASYNC220
        assert writer.stdout is not None
        for _ in range(20):
            written = int(writer.stdout.readline())
        with pytest.raises(FailedPrecondition, match="in use by another process") as caught:
            EmbeddedCoordinator(path, timeout_s=5)
        assert str(path) in caught.value.message
        assert "coordinator.kind" in caught.value.message
        writer.kill()
        written = max(written, *(int(line) for line in writer.stdout if line.endswith(b"\n")), 0)
    coordinator = EmbeddedCoordinator(path, timeout_s=5)
    a, b = await coordinator.get("a"), await coordinator.get("b")
    assert a is not None
    assert b is not None
    assert a.value == b.value
    assert int(a.value) >= written
    assert await coordinator.get("leased") is None
    revision = (await coordinator.list("a")).revision
    assert revision > a.mod_revision
    assert (await coordinator.transact([], [Put("c", b"")])).revision == revision + 1
    await coordinator.aclose()


async def test_a_second_coordinator_in_this_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "coordinator.db"
    coordinator = EmbeddedCoordinator(path, timeout_s=5)
    with pytest.raises(FailedPrecondition, match="in use"):
        EmbeddedCoordinator(path, timeout_s=5)
    written = await coordinator.transact([], [Put("a", b"1")])
    await coordinator.aclose()
    await coordinator.aclose()
    again = EmbeddedCoordinator(path, timeout_s=5)
    assert await again.get("a") == Entry("a", b"1", written.revision, written.revision)
    await again.aclose()


async def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database\n" * 100)
    with pytest.raises(FailedPrecondition, match=r"notes\.txt.*coordinator\.path"):
        EmbeddedCoordinator(path, timeout_s=5)


async def test_a_follower_behind_the_history_is_given_the_difference(tmp_path: Path) -> None:
    coordinator = EmbeddedCoordinator(tmp_path / "coordinator.db", timeout_s=30)
    await coordinator.transact([], [Put("a/kept", b"1")])
    behind = (await coordinator.list("a/")).revision
    for _ in range(MAX_HISTORY // 128 + 1):
        await coordinator.transact([], [Put(f"b/{n}", b"") for n in range(128)])
    watch = coordinator.watch("a/", after_revision=behind, known=["a/kept", "a/gone"])
    async with following(watch) as follower:
        await follower.until_count(2)
        last = (await coordinator.transact([], [Put("a/new", b"")])).revision
        await follower.until_count(3)
        assert follower.changes == [
            Change("a/gone", None, last - 1),
            Change("a/kept", b"1", behind),
            Change("a/new", b"", last),
        ]
    await coordinator.aclose()


async def test_a_cancelled_writer_hides_no_change_from_followers(tmp_path: Path) -> None:
    coordinator = EmbeddedCoordinator(tmp_path / "coordinator.db", timeout_s=5)
    start = (await coordinator.list("a")).revision
    async with following(coordinator.watch("a", after_revision=start)) as follower:
        for number in range(20):
            writing = asyncio.create_task(coordinator.transact([], [Put("a", b"%d" % number)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        last = await coordinator.transact([], [Put("a", b"last")])
        await follower.until_count(last.revision - start)
        revisions = [change.mod_revision for change in follower.changes]
        assert revisions == list(range(start + 1, last.revision + 1))
    await coordinator.aclose()
