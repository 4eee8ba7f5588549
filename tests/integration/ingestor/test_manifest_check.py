"""Manifests beside the index: what one has and the other lacks, and what a repair leaves to do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from common.errors import Contended, FailedPrecondition, InvalidArgument
from common.identity import document_id
from common.verification import ManifestReport
from ingestor.manifest_check import check
from ingestor.state.manifest import RUNNING
from sluice.document.v1 import document_pb2
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {"match": "*.jsonl", "format": "jsonl", "id": "id", "text": ["text"]}
AGREES = ManifestReport(roots=1, files=3, findings=(), missing=0, surplus=0, forgotten=0)


def created_at(recorder, version: int = 1) -> str:
    """As another part may write the same moment."""
    return datetime.fromtimestamp(recorder.created_s + version, UTC).isoformat()


@pytest.fixture
def compare(ingester, recorder):
    async def run(*incomplete: str, repair=False, version=1, **changed) -> ManifestReport:
        environ = {
            "SLUICE_INGEST__STATE_URI": str(ingester.state),
            "SLUICE_CLIENT__TARGET": ingester.target,
        }
        endpoints = ingester.coordinator.get("endpoints")
        if endpoints:
            environ["SLUICE_COORDINATOR__KIND"] = "etcd"
            environ["SLUICE_COORDINATOR__ENDPOINTS"] = json.dumps(endpoints)
        asked = {
            "config": None,
            "environ": environ,
            "tenant": "",
            "collection": "docs",
            "version": version,
            "created_at": created_at(recorder, version),
            "incomplete": frozenset(incomplete),
            "repair": repair,
        }
        return await check(**asked | changed)

    return run


@pytest.fixture
async def three(ingester, recorder):
    """Three files, ingested."""
    for name in ("a.txt", "b.txt", "c.txt"):
        (ingester.root / name).write_text(name)
    await ingester()
    recorder.sent.clear()
    recorder.listings = 0
    return ingester


def uri(ingester, name: str) -> str:
    return f"{ingester.root.as_uri()}/{name}"


def lose(recorder, name: str) -> document_pb2.Document:
    held: dict[str, document_pb2.Document] = recorder.documents
    return held.pop(next(i for i, d in held.items() if d.source_uri.endswith(name)))


def add(recorder, source_uri: str) -> None:
    document = document_pb2.Document(
        document_id=document_id(source_uri), source_uri=source_uri, version=1
    )
    recorder.documents[document.document_id] = document


def stored(state: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in state.rglob("*") if path.is_file()}


class TestComparison:
    async def test_what_agrees_has_no_findings(self, three, compare):
        assert await compare() == AGREES
        assert await compare(repair=True) == AGREES
        assert (await three()).roots[0].files_opened == 0

    async def test_what_the_index_lacks_is_named_and_nothing_is_written(
        self, three, recorder, compare
    ):
        lose(recorder, "b.txt")
        before = stored(three.state)
        report = await compare()
        assert (report.missing, report.surplus, report.forgotten) == (1, 0, 0)
        (finding,) = report.findings
        assert uri(three, "b.txt") in finding
        assert finding.endswith(": the index lacks it")
        assert stored(three.state) == before

    async def test_a_repair_has_the_next_job_read_what_is_missing_and_nothing_else(
        self, three, recorder, compare
    ):
        lost = lose(recorder, "b.txt")
        assert (await compare(repair=True)).forgotten == 1
        (summary,) = (await three()).roots
        assert (summary.files_opened, recorder.listings) == (1, 1)
        assert recorder.documents[lost.document_id] == lost
        assert await compare() == AGREES

    async def test_a_part_of_a_file_is_missed_too(self, ingester, recorder, compare):
        table = ingester.root / "a.jsonl"
        table.write_text("\n".join(json.dumps({"id": n, "text": f"row {n}"}) for n in range(9)))
        await ingester(formats=[ROWS])
        held = dict(recorder.documents)
        lose(recorder, "#id=3")
        lose(recorder, "#id=5")
        report = await compare(repair=True)
        assert (report.missing, report.forgotten) == (2, 1)
        assert "lacks 2 of its 9 documents, or holds an older state" in report.findings[0]
        await ingester(formats=[ROWS])
        assert recorder.documents == held

    @pytest.mark.usefixtures("three")
    async def test_an_older_state_in_the_index_is_missing(self, recorder, compare):
        document = lose(recorder, "b.txt")
        document.version -= 1
        recorder.documents[document.document_id] = document
        assert (await compare()).missing == 1

    async def test_what_no_manifest_knows_goes_with_the_next_job(self, three, recorder, compare):
        add(recorder, uri(three, "stranger.txt"))
        add(recorder, "file:///elsewhere/d.txt")
        report = await compare()
        assert (report.surplus, report.missing) == (1, 0)
        assert uri(three, "stranger.txt") in report.findings[0]
        assert not list(three.state.rglob(RUNNING))
        await compare(repair=True)
        await three()
        assert recorder.names() == {"a.txt", "b.txt", "c.txt", "d.txt"}
        assert await compare() == AGREES

    async def test_what_lies_under_the_root_of_another_job_is_not_surplus(
        self, ingester, recorder, compare
    ):
        inner = ingester.root / "inner"
        inner.mkdir()
        (ingester.root / "a.txt").write_text("a")
        (inner / "b.txt").write_text("b")
        await ingester(exclude=["inner/"])
        await ingester(str(inner))
        report = await compare()
        assert (report.roots, report.files, report.findings) == (2, 2, ())
        add(recorder, f"{inner.as_uri()}/stranger.txt")
        assert (await compare(repair=True)).surplus == 1
        (mark,) = ingester.state.rglob(RUNNING)
        assert mark.parent.joinpath("manifest.parquet").exists()
        await ingester(str(inner))
        assert recorder.names() == {"a.txt", "b.txt"}

    async def test_what_must_be_sent_again_is_read_again(self, three, recorder, compare):
        incomplete = (uri(three, "a.txt"), f"{uri(three, 'c.txt')}#row=1", "file:///elsewhere")
        assert await compare(*incomplete) == AGREES
        report = await compare(*incomplete, repair=True)
        assert (report.forgotten, report.missing) == (2, 0)
        (summary,) = (await three()).roots
        assert summary.files_opened == 2
        sent = {name.rpartition("/")[2] for name in recorder.sent}
        assert sent == {"a.txt", "c.txt"}

    async def test_a_dead_letter_whose_last_state_is_lost_is_read_again(
        self, three, recorder, compare
    ):
        (three.root / "b.txt").write_bytes(b"\x00" * 100 + b"not text")
        await three()
        assert (await compare()).findings == ()
        lose(recorder, "b.txt")
        assert (await compare(repair=True)).missing == 1
        await three()
        (letter,) = await three.letters()
        assert letter.version == 0
        assert (await compare()).findings == ()

    async def test_findings_are_bounded_and_counts_are_not(self, ingester, recorder, compare):
        for number in range(120):
            (ingester.root / f"{number}.txt").write_text("text")
        await ingester()
        recorder.documents.clear()
        report = await compare()
        assert (report.missing, len(report.findings)) == (120, 100)

    @pytest.mark.usefixtures("three")
    async def test_other_versions_and_other_indexes_have_no_manifest_here(self, recorder, compare):
        nothing = ManifestReport(roots=0, files=0, findings=(), missing=0, surplus=0, forgotten=0)
        assert await compare(version=2) == nothing
        assert await compare(collection="others") == nothing
        assert await compare(created_at=created_at(recorder, 5)) == nothing
        assert recorder.listings == 0
        with pytest.raises(InvalidArgument, match="created_at"):
            await compare(created_at="yesterday")


class TestBesideJobs:
    async def test_a_running_job_is_not_disturbed(self, three, recorder, compare):
        (three.root / "d.txt").write_text("d")
        recorder.silent = True
        batches = len(recorder.batches)
        stop = asyncio.Event()
        job = asyncio.create_task(three(stop=stop, stop_timeout_s=0.1))
        async with asyncio.timeout(30):
            while len(recorder.batches) == batches:  # noqa: ASYNC110 — the server tells of no event
                await asyncio.sleep(0.01)
        for repair in (False, True):
            with pytest.raises(FailedPrecondition, match=r"another job over .* is running"):
                await compare(repair=repair)
        stop.set()
        await job

    async def test_nor_is_one_on_another_machine(self, three, recorder, compare, tmp_path):
        with Etcd(tmp_path / "etcd") as etcd:
            three.coordinator = {"kind": "etcd", "endpoints": [etcd.endpoint]}
            elsewhere = replace(three, state=tmp_path / "another machine's state")
            recorder.silent = True
            batches = len(recorder.batches)
            stop = asyncio.Event()
            job = asyncio.create_task(elsewhere(stop=stop, stop_timeout_s=0.1))
            async with asyncio.timeout(30):
                while len(recorder.batches) == batches:  # noqa: ASYNC110 — as above
                    await asyncio.sleep(0.01)
            with pytest.raises(Contended, match=r"another job over .* is running"):
                await compare()
            stop.set()
            await job

    async def test_a_job_that_was_killed_is_told(self, three, compare):
        (manifest,) = three.state.rglob("manifest.parquet")
        (manifest.parent / RUNNING).write_bytes(b"")
        before = stored(three.state)
        report = await compare()
        assert stored(three.state) == before
        assert "the last job did not come to its end" in report.findings[0]
        assert (report.missing, report.surplus) == (0, 0)
        assert (await compare(repair=True)).forgotten == 0
        assert (manifest.parent / RUNNING).exists()
        await three()
        assert await compare() == AGREES
