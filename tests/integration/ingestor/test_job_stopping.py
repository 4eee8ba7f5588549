"""Jobs that are stopped, and watches, which end no other way."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from common.errors import FailedPrecondition, Unavailable
from ingestor.state.manifest import RUNNING
from ingestor.stopping import CalledOffError
from ingestor.storage.listing import FileBatch
from ingestor.storage.sources import StorageSource

if TYPE_CHECKING:
    from pathlib import Path

    from ingestor.report import IngestReport

ROWS = {"match": "*.jsonl", "format": "jsonl", "id": "id", "text": ["text"]}
FEW = {"max_unacknowledged_documents": 4, "batch_documents": 2}


def write(root: Path, number: int, prefix: str = "") -> None:
    for one in range(number):
        (root / f"{prefix}{one:04}.txt").write_text(f"text {one}")


def write_table(path: Path, number: int, length: int = 2_000) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    rows = (json.dumps({"id": str(n), "text": f"{n} " * (length // 4)}) for n in range(number))
    path.write_text("\n".join(rows))
    later = max(path.stat().st_mtime_ns, before) + 1_000_000
    os.utime(path, ns=(later, later))


def is_doubtful(state: Path) -> bool:
    return bool(list(state.rglob(RUNNING)))


def is_locked(state: Path, version: str) -> bool:
    (path,) = state.rglob(version)
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


def stop_at(recorder, stop: asyncio.Event, number: int) -> None:
    """Stop the job once so many documents have come."""

    def count(_):
        if len(recorder.sent) == number:
            stop.set()

    recorder.on_document = count


class TestStopping:
    async def test_what_is_in_hand_is_the_last_and_the_manifest_is_right(
        self, ingester, recorder, stop
    ):
        write(ingester.root, 3)
        await ingester()
        write(ingester.root, 200, "x")
        stop_at(recorder, stop, 20)
        report = await ingester(stop=stop, readers=2, stream=FEW)
        assert report.is_stopped
        assert report.to_json()["stopped"]
        done = len(recorder.documents) - 3
        assert 17 <= done <= 17 + 2 + 4
        assert not is_doubtful(ingester.state)
        recorder.listings = 0
        (summary,) = (await ingester()).roots
        assert recorder.listings == 0
        assert (summary.unchanged, summary.files_opened) == (3 + done, 200 - done)
        assert not summary.stopped
        assert len(recorder.documents) == 203

    async def test_files_that_were_not_met_are_not_taken_for_vanished(
        self, ingester, recorder, stop
    ):
        write(ingester.root, 2_500)
        recorder.limits.max_batch_documents = 500
        await ingester(stream={"batch_documents": 500, "linger_s": 0})
        for number in range(10):
            (ingester.root / f"{number:04}.txt").write_text("another text of another length")
        recorder.sent.clear()
        stop_at(recorder, stop, 1)
        few = {"readers": 1, "max_files_listed_ahead": 1, "stream": FEW}
        (summary,) = (await ingester(stop=stop, **few)).roots
        assert summary.stopped
        assert summary.listed < 2_500  # not even the listing goes on
        assert recorder.deleted == []
        assert len(recorder.documents) == 2_500
        (summary,) = (await ingester()).roots
        assert (summary.deleted, summary.documents) == (0, 2_500)

    async def test_a_listing_of_which_all_is_left_out_is_stopped_too(
        self, ingester, recorder, stop, monkeypatch
    ):
        write(ingester.root, 3)
        await ingester()
        seen = 0

        async def endless(self, enters):  # noqa: ARG001 — as the original
            nonlocal seen
            while True:
                seen += 1
                if seen == 3:
                    stop.set()
                yield FileBatch(self.root_uri, ["left-out.txt"], [1], [1])
                await asyncio.sleep(0)

        monkeypatch.setattr(StorageSource, "walk", endless)
        async with asyncio.timeout(20):
            report = await ingester(stop=stop, include=["*.md"])
        assert (report.is_stopped, seen) == (True, 3)
        assert len(recorder.documents) == 3

    async def test_a_stop_before_anything_began_ends_at_once(self, ingester, recorder, stop):
        write(ingester.root, 3)
        stop.set()
        with pytest.raises(CalledOffError):
            await ingester(stop=stop)
        assert recorder.sent == []

    async def test_a_recovering_job_stays_doubtful(self, ingester, recorder, stop):
        write(ingester.root, 100)
        await ingester()
        shutil.rmtree(ingester.state)
        (ingester.root / "0000.txt").unlink()
        recorder.sent.clear()
        stop_at(recorder, stop, 10)
        assert (await ingester(stop=stop, readers=2, stream=FEW)).is_stopped
        assert is_doubtful(ingester.state)
        assert len(recorder.documents) == 100
        (summary,) = (await ingester()).roots
        assert summary.deleted == 1
        assert len(recorder.documents) == 99
        assert not is_doubtful(ingester.state)

    async def test_a_silent_indexer_is_not_waited_for_beyond_the_bound(
        self, ingester, recorder, stop
    ):
        write(ingester.root, 3)
        recorder.silent = True
        running = asyncio.create_task(ingester(stop=stop, stop_timeout_s=0.2))
        async with asyncio.timeout(20):
            while not recorder.batches:  # noqa: ASYNC110 — the server tells of no event
                await asyncio.sleep(0.01)
            stop.set()
            assert (await running).is_stopped
        assert is_doubtful(ingester.state)
        recorder.silent = False
        await ingester()
        assert len(recorder.documents) == 3

    async def test_a_rebuild_that_is_stopped_is_not_activated(self, ingester, recorder, stop):
        write(ingester.root, 100)
        stop_at(recorder, stop, 10)
        report = await ingester(rebuild=True, activate=True, stop=stop, readers=2, stream=FEW)
        assert report.is_stopped
        assert not report.is_activated
        assert recorder.expected == []
        assert recorder.activated == []


class TestHugeContainers:
    async def break_off(self, ingester, recorder, stop) -> None:
        (ingester.root / "b.txt").write_text("b")
        await ingester()
        write_table(ingester.root / "a.jsonl", 5_000)
        stop_at(recorder, stop, 600)
        assert (
            await ingester(stop=stop, formats=[ROWS], stream=FEW, max_bytes_in_flight=1)
        ).is_stopped
        assert 600 <= len(recorder.documents) < 3_000
        assert not is_doubtful(ingester.state)
        recorder.on_document = lambda _: None

    async def test_it_is_broken_off_and_read_again(self, ingester, recorder, stop):
        await self.break_off(ingester, recorder, stop)
        (summary,) = (await ingester(formats=[ROWS])).roots
        assert len(recorder.documents) == summary.documents == 5_001
        uri = (ingester.root / "a.jsonl").as_uri()
        version = (ingester.root / "a.jsonl").stat().st_mtime_ns // 1000
        of_table = [d for d in recorder.documents.values() if d.container_uri == uri]
        assert {document.version for document in of_table} == {version}

    async def test_what_was_sent_goes_when_the_file_does(self, ingester, recorder, stop):
        await self.break_off(ingester, recorder, stop)
        (ingester.root / "a.jsonl").unlink()
        (summary,) = (await ingester(formats=[ROWS])).roots
        assert recorder.names() == {"b.txt"}
        assert summary.documents == 1

    async def test_nothing_of_it_survives_a_change(self, ingester, recorder, stop):
        await self.break_off(ingester, recorder, stop)
        write_table(ingester.root / "a.jsonl", 10)
        (summary,) = (await ingester(formats=[ROWS])).roots
        assert len(recorder.documents) == summary.documents == 11

    async def test_it_does_not_hold_up_other_files(self, ingester, recorder, stop):
        write_table(ingester.root / "a.jsonl", 20_000)
        write(ingester.root, 30, "z")
        places = []

        def note(document):
            if not document.container_uri:
                places.append(len(recorder.sent))
            if len(places) == 30:
                stop.set()

        recorder.on_document = note
        assert (await ingester(stop=stop, formats=[ROWS])).is_stopped
        assert len(places) == 30
        assert len(recorder.sent) < 15_000


class TestWatching:
    async def test_each_round_sees_what_changed_until_it_is_stopped(self, ingester, recorder, stop):
        write(ingester.root, 3)
        rounds = []

        def told(report):
            rounds.append(report.roots[0])
            match len(rounds):
                case 1:
                    (ingester.root / "new.txt").write_text("new")
                case 2:
                    (ingester.root / "0000.txt").unlink()
                case 4:
                    stop.set()

        async with asyncio.timeout(30):
            await ingester.watch(told, stop)
        assert [(r.indexed, r.deleted, r.documents) for r in rounds] == [
            (3, 0, 3),
            (1, 0, 4),
            (0, 1, 3),
            (0, 0, 3),
        ]
        assert len(recorder.sent) == 4
        assert recorder.listings == 1

    async def test_a_round_writes_the_version_that_is_active_then(self, ingester, recorder, stop):
        write(ingester.root, 3)
        targets = []

        def told(report):
            targets.append(report.target.version)
            if len(targets) == 1:
                recorder.version = 2
                recorder.versions.append(2)
                recorder.documents.clear()
            elif len(targets) == 3:
                assert is_locked(ingester.state, "v000002")
                assert not is_locked(ingester.state, "v000001")
                stop.set()

        async with asyncio.timeout(30):
            await ingester.watch(told, stop)
        assert targets == [1, 2, 2]
        assert [opening.index_version for opening in recorder.openings] == [1, 2]
        assert len(recorder.documents) == 3

    async def test_outages_of_indexer_and_mount_are_survived(
        self, ingester, serve, recorder, stop, caplog
    ):
        address, end = await serve()
        ingester.target = address
        write(ingester.root, 2)
        rounds: list[IngestReport] = []
        moved = ingester.root.with_name("moved")
        watching = asyncio.create_task(
            ingester.watch(rounds.append, stop, stream={"max_attempts": 1})
        )

        async def until(holds) -> None:
            async with asyncio.timeout(30):
                while not holds():
                    assert not watching.done(), watching.result()
                    await asyncio.sleep(0.01)

        await until(lambda: rounds)
        await end()
        await until(lambda: "no server answers" in caplog.text)
        write(ingester.root, 4)
        await serve(address)
        await until(lambda: rounds[-1].roots[0].documents == 4)
        ingester.root.rename(moved)
        await until(lambda: "cannot be listed" in caplog.text)
        moved.rename(ingester.root)
        count = len(rounds)
        await until(lambda: len(rounds) > count)
        stop.set()
        await watching
        assert recorder.deleted == []
        assert len(recorder.documents) == 4

    async def test_what_cannot_work_ends_it_at_the_first_round(self, ingester, stop):
        with pytest.raises(FailedPrecondition, match="another job over"):
            await asyncio.gather(
                ingester.watch(lambda _: None, stop), ingester.watch(lambda _: None, stop)
            )
        stop.set()

    async def test_a_server_that_is_late_is_waited_for(self, ingester, serve, stop):
        write(ingester.root, 2)
        address, end = await serve()
        await end()
        ingester.target = address
        rounds = []

        def told(report):
            rounds.append(report)
            stop.set()

        watching = asyncio.create_task(ingester.watch(told, stop, stream={"max_attempts": 1}))
        with pytest.raises(Unavailable):
            await ingester(stream={"max_attempts": 1}, state_uri=f"{ingester.state}-other")
        await serve(address)
        async with asyncio.timeout(30):
            await watching
        assert rounds[0].roots[0].indexed == 2
