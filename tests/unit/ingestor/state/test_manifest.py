import asyncio
import errno
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from common.errors import FailedPrecondition
from ingestor.settings import HdfsSettings
from ingestor.state.dead_letters import open_settled
from ingestor.state.file_records import FileOutcome, FileRecord
from ingestor.state.manifest import MANIFEST, RUNNING, Manifest, ManifestKey, only_job
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate
from ingestor.storage.listing import order

KEY = ManifestKey("default", "docs", "file:///d/", 1, "2026-01-01T00:00:00Z")


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as running:
        yield running


@pytest.fixture
def state(tmp_path):
    return StateFolder.at(locate(str(tmp_path / "state"), HdfsSettings()))


def record(path, version=1, outcome=FileOutcome.INDEXED):
    return FileRecord(path, f"file:///d/{path}", 1, version, outcome, version=version)


async def rows(manifest):
    return [row async for batch in manifest.rows() for row in batch.records()]


async def test_a_new_manifest_is_doubtful_and_a_finished_one_is_not(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    assert manifest.doubtful
    await manifest.begin()
    manifest.record(record("b"))
    manifest.record(record("a"))
    await manifest.finish()
    again = await Manifest.open(state, KEY, executor)
    assert not again.doubtful
    assert await rows(again) == [record("a"), record("b")]
    assert list(KEY.folder(state).names()) == [MANIFEST]


async def test_a_job_that_did_not_end_leaves_what_it_saved_and_doubt(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    await manifest.finish()
    manifest = await Manifest.open(state, KEY, executor)
    await manifest.begin()
    manifest.record(record("a"))
    await manifest.checkpoint()
    manifest.record(record("never saved"))
    again = await Manifest.open(state, KEY, executor)
    assert again.doubtful
    assert await rows(again) == [record("a")]
    await again.finish()
    assert not (await Manifest.open(state, KEY, executor)).doubtful


async def test_later_rows_replace_earlier_ones_and_removals_remove(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    for path in ("a", "b", "c"):
        manifest.record(record(path))
    await manifest.checkpoint()
    manifest.record(record("a", 2))
    manifest.record(record("b", 1, FileOutcome.REMOVED))
    await manifest.checkpoint()
    manifest.record(record("a", 3))
    await manifest.finish()
    assert await rows(manifest) == [record("a", 3), record("c")]
    manifest.record(record("b", 5))
    await manifest.finish()
    assert await rows(manifest) == [record("a", 3), record("b", 5), record("c")]


async def test_nothing_recorded_writes_nothing(state, executor, tmp_path):
    manifest = await Manifest.open(state, KEY, executor)
    manifest.record(record("a"))
    await manifest.finish()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = await Manifest.open(state, KEY, executor)
    await rows(again)
    await again.finish()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, index_created_at="2026-02-02T00:00:00Z"),
        replace(KEY, root_uri="file:///e/"),
        replace(KEY, collection="other"),
        replace(KEY, index_version=2),
    ],
)
async def test_another_index_has_another_manifest(state, executor, other):
    manifest = await Manifest.open(state, KEY, executor)
    manifest.record(record("a"))
    await manifest.finish()
    different = await Manifest.open(state, other, executor)
    assert different.doubtful
    assert await rows(different) == []


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
async def test_a_damaged_manifest_is_a_missing_one(state, executor, tmp_path, damage):
    manifest = await Manifest.open(state, KEY, executor)
    manifest.record(record("a"))
    await manifest.finish()
    (path,) = tmp_path.rglob(MANIFEST)
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    again = await Manifest.open(state, KEY, executor)
    assert again.doubtful
    assert await rows(again) == []


async def test_a_crash_while_merging_loses_nothing(state, executor, monkeypatch):
    manifest = await Manifest.open(state, KEY, executor)
    manifest.record(record("a", 1))
    manifest.record(record("b", 1))
    await manifest.checkpoint()
    manifest.record(record("a", 2))
    manifest.record(record("b", 1, FileOutcome.REMOVED))
    await manifest.checkpoint()
    deletions = []

    def die_at_second(self, name):
        deletions.append(name)
        if len(deletions) == 2:
            raise OSError(5, "killed here")
        original(self, name)

    original = StateFolder.delete
    monkeypatch.setattr(StateFolder, "delete", die_at_second)
    with pytest.raises(FailedPrecondition, match="state_uri"):
        await manifest.merge()
    monkeypatch.undo()
    again = await Manifest.open(state, KEY, executor)
    assert await rows(again) == [record("a", 2)]


async def test_replacing_is_all_or_nothing(state, tmp_path):
    with state.replacing("x") as sink:
        sink.write(b"old")

    def fail():
        with state.replacing("x") as sink:
            sink.write(b"half")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["x"]
    assert (tmp_path / "state/x").read_bytes() == b"old"
    (tmp_path / "state/.unfinished-1-x").write_bytes(b"a killed writer's")
    state.delete_unfinished()
    assert list(state.names()) == ["x"]


async def test_a_folder_at_work_is_left_alone(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    await manifest.begin()
    assert RUNNING in KEY.folder(state).names()
    with pytest.raises(FailedPrecondition, match="running or was killed"):
        await open_settled(state, KEY, executor)
    await manifest.finish()
    assert not (await open_settled(state, KEY, executor)).doubtful


async def test_a_manifest_that_was_never_finished_stays_doubtful(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    manifest.record(record("a"))
    await manifest.checkpoint()  # killed after that, before anything was sent
    for _ in range(2):  # and again just after it was opened, when its rows were merged
        manifest = await Manifest.open(state, KEY, executor)
        assert manifest.doubtful
        assert await rows(manifest) == [record("a")]


async def test_what_is_left_to_another_job_is_not_written(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    await manifest.begin()
    manifest.record(record("a"))
    manifest.abandon()
    await manifest.checkpoint()
    with pytest.raises(FailedPrecondition, match="another job"):
        await manifest.finish()
    assert list(KEY.folder(state).names()) == [RUNNING]


async def test_segments_are_bounded_and_keep_removals(state, executor):
    manifest = await Manifest.open(state, KEY, executor)
    for path in ("gone", "kept"):
        manifest.record(record(path))
    await manifest.finish()
    manifest.record(record("gone", 1, FileOutcome.REMOVED))
    for number in range(100):
        manifest.record(record(f"{number % 40:02}", number + 1))
        await manifest.checkpoint()
        segments = [name for name in KEY.folder(state).names() if name.startswith("segment")]
        assert len(segments) <= 17
    await manifest.begin()
    again = await Manifest.open(state, KEY, executor)
    found = {row.path: row.version for row in await rows(again)}
    assert found == {"kept": 1} | {f"{n % 40:02}": n + 1 for n in range(60, 100)}


async def test_many_rows_keep_their_order(state, executor):
    numbers = list(range(10_000))
    random.Random(1).shuffle(numbers)
    manifest = await Manifest.open(state, KEY, executor)
    for number in numbers:
        manifest.record(record(f"d{number % 13}/{number}"))
        if manifest.is_checkpoint_due:
            await manifest.checkpoint()
    await manifest.finish()
    found = [row.path for row in await rows(manifest)]
    assert found == sorted((f"d{n % 13}/{n}" for n in numbers), key=order)


async def test_one_job_at_a_time_works_on_a_manifest(state, executor):
    async with (
        only_job(state, KEY, executor),
        only_job(state, replace(KEY, index_version=2), executor),
    ):
        manifest = await Manifest.open(state, KEY, executor)
        await manifest.begin()
        manifest.record(record("a"))
        await manifest.checkpoint()
        await Manifest.open(state, replace(KEY, index_created_at="later"), executor)
        with pytest.raises(FailedPrecondition, match="another job over file:///d/ is running"):
            async with only_job(state, KEY, executor):
                pytest.fail("two jobs at once")
    async with only_job(state, KEY, executor):
        pass


def test_why_a_file_could_not_be_written_is_told(state):
    folder = KEY.folder(state)
    with pytest.raises(OSError, match="too long"), folder.replacing("x" * 300):
        pytest.fail("no system takes such a name")


async def test_nobody_sends_before_the_mark_is_there(state, monkeypatch):
    with ThreadPoolExecutor(2) as two:
        manifest = await Manifest.open(state, KEY, two)
        await manifest.finish()
        manifest = await Manifest.open(state, KEY, two)
        original, go = Manifest._mark, threading.Event()

        def slowly(self):
            assert go.wait(10)
            original(self)

        monkeypatch.setattr(Manifest, "_mark", slowly)
        sending = [asyncio.create_task(manifest.begin()) for _ in range(2)]
        done, _ = await asyncio.wait(sending, timeout=0.05)
        go.set()
        await asyncio.gather(*sending)
        assert not done
        assert RUNNING in KEY.folder(state).names()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        OSError("AWS Error SLOW_DOWN during GetObject operation"),
    ],
)
async def test_a_manifest_out_of_reach_is_not_taken_for_a_lost_one(
    state, executor, monkeypatch, error
):
    manifest = await Manifest.open(state, KEY, executor)
    manifest.record(record("a"))
    await manifest.finish()

    def fail(*_):
        raise error

    with monkeypatch.context() as patching:
        patching.setattr(StateFolder, "open_input", fail)
        with pytest.raises(FailedPrecondition, match="the state cannot be read"):
            await Manifest.open(state, KEY, executor)
    again = await Manifest.open(state, KEY, executor)
    assert not again.doubtful
    assert await rows(again) == [record("a")]
