"""Two jobs on one root: locks with a real etcd, across machines with states of their own."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import fs

from common.coordination import CoordinatorSettings, open_coordinator, root_lock
from common.coordination.coordinator import Delete
from common.errors import Contended, FailedPrecondition
from ingestor.ingestion import Ingestion
from ingestor.rebuilding import Rebuild
from ingestor.state import root_locks
from ingestor.state.manifest import RUNNING
from ingestor.state.state_folder import StateFolder
from tests.integration.etcd import Etcd
from tests.integration.ingestor.conftest import silent

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def etcd(tmp_path_factory) -> Iterator[Etcd]:
    with Etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def locked(ingester, etcd):
    """Jobs that share a coordinator."""
    (ingester.root / "a.txt").write_text("a")
    ingester.coordinator = {"kind": "etcd", "endpoints": [etcd.endpoint]}
    return ingester


async def until_sending(recorder) -> None:
    async with asyncio.timeout(30):
        while not recorder.batches:  # noqa: ASYNC110 — the server tells of no event
            await asyncio.sleep(0.01)


async def test_the_second_job_stops_and_says_who_is_at_it(locked, recorder, tmp_path):
    elsewhere = replace(locked, state=tmp_path / "another machine's state")
    recorder.silent = True
    stop = asyncio.Event()
    first = asyncio.create_task(locked(stop=stop, stop_timeout_s=0.1))
    await until_sending(recorder)
    root = f"{locked.root.as_uri()}/"
    holder = f"{socket.gethostname()}, process {os.getpid()}"
    with pytest.raises(Contended, match=rf"another job over {root} is running: .*{holder}"):
        await elsewhere()
    with pytest.raises(Contended, match="another job"):
        await elsewhere.watch(lambda _: None, asyncio.Event())
    recorder.silent = False
    # A version that is built beside is another matter.
    assert (await elsewhere(rebuild=True)).target.version == 2
    stop.set()
    await first
    recorder.version = 1
    assert (await elsewhere()).roots[0].documents == 1


async def test_a_watch_keeps_its_lock_between_rounds(locked, tmp_path):
    elsewhere = replace(locked, state=tmp_path / "another machine's state")
    stop, told = asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(locked.watch(lambda _: told.set(), stop, every_s=60))
    async with asyncio.timeout(30):
        await told.wait()
        with pytest.raises(Contended, match="another job"):
            await elsewhere()
        stop.set()
        await watching
    assert (await elsewhere()).roots[0].unchanged == 1


@pytest.mark.parametrize("watches", [False, True])
async def test_a_job_that_lost_its_lock_writes_nothing_more(
    locked, recorder, etcd, monkeypatch, watches
):
    monkeypatch.setattr(root_locks, "_TTL_S", 1)
    recorder.limits.max_batch_documents = 2

    def prepare(_=None):
        for number in range(20):
            (locked.root / f"{number}.txt").write_text("text")
        recorder.batches.clear()
        recorder.on_document = lambda _: setattr(recorder, "silent", len(recorder.batches) > 2)

    if watches:  # an outage after a first round would be survived
        job = asyncio.create_task(locked.watch(prepare, asyncio.Event()))
    else:
        await locked()
        prepare()
        job = asyncio.create_task(locked())
    async with asyncio.timeout(30):
        while not recorder.silent:  # noqa: ASYNC110 — the server tells of no event
            await asyncio.sleep(0.01)
        coordinator = open_coordinator(CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,)))
        key = root_lock("default", "docs", f"{locked.root.as_uri()}/")
        await coordinator.transact([], [Delete(key)])
        await coordinator.aclose()
        with pytest.raises(FailedPrecondition, match="the lock on the source was lost"):
            await job
    (folder,) = {path.parent for path in locked.state.rglob(RUNNING)}
    assert {path.name for path in folder.iterdir()} == {RUNNING, "manifest.parquet"}
    recorder.silent = False
    recorder.on_document = lambda _: None
    await locked()
    assert len(recorder.documents) == 21


async def test_letters_are_not_dropped_beside_a_job(locked, recorder, tmp_path):
    elsewhere = replace(locked, state=tmp_path / "another machine's state")
    (locked.root / "b.pdf").write_bytes(b"broken")
    await elsewhere()
    letters = await elsewhere.letters()
    recorder.batches.clear()
    recorder.silent = True
    stop = asyncio.Event()
    job = asyncio.create_task(locked(stop=stop, stop_timeout_s=0.1))
    await until_sending(recorder)
    async with Ingestion.open(elsewhere.config(), {}) as ingestion:
        with pytest.raises(Contended, match="another job"):
            await ingestion.drop(letters)
        stop.set()
        await job
        assert await ingestion.drop(letters) == 1


@pytest.mark.parametrize("coordinated", [False, True])
async def test_that_no_lock_is_held_is_told(ingester, etcd, tmp_path, caplog, coordinated):
    (ingester.root / "a.txt").write_text("a")
    if coordinated:
        ingester.coordinator = {"kind": "etcd", "endpoints": [etcd.endpoint]}
    # A file system of which nothing is known, as HDFS and object stores are.
    state = StateFolder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "state")
    job: dict[str, Any] = {"show": silent}
    with ThreadPoolExecutor(2) as threads:
        ingestion = Ingestion(ingester.config(), state, threads, threads)
        report = await ingestion.ingest([str(ingester.root)], "docs", **job)
        assert report.roots[0].indexed == 1
        assert ("no lock is held" in caplog.text) is not coordinated
        caplog.clear()
        await ingestion.ingest([str(ingester.root)], "docs", **job, plan=Rebuild())
        assert "no lock is held" not in caplog.text


async def test_a_coordinator_in_this_process_locks_nothing(ingester, tmp_path):
    (ingester.root / "a.txt").write_text("a")
    ingester.coordinator = {"kind": "embedded", "path": str(tmp_path / "coordinator.sqlite")}
    assert (await ingester()).roots[0].indexed == 1
    assert not (tmp_path / "coordinator.sqlite").exists()
