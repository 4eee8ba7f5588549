"""Building a version: its lock kept, lost and given back; what falls short."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from common.errors import (
    Contended,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from common.golden import GoldenCase
from common.requester import requester
from ingestor.sending.collection_client import Exam
from ingestor.state.manifest import RUNNING
from ingestor.stopping import CalledOffError
from sluice.collections.v1 import collections_pb2 as pb
from tests.integration.ingestor.conftest import silent
from tests.integration.ingestor.moments import at_document, until, write

if TYPE_CHECKING:
    from pathlib import Path

FEW = {"max_unacknowledged_documents": 4, "batch_documents": 2}


class TestLock:
    async def test_it_is_renewed_with_the_counts_of_all_roots_and_given_back(
        self, ingester, recorder, tmp_path
    ):
        other = tmp_path / "other"
        write(ingester.root, 3)
        write(other, 2)

        async def renewed_twice() -> None:
            await until(lambda: len(recorder.builds.renewals) >= 2)

        recorder.on_verify = renewed_twice
        titles: list[str] = []

        def show(counters, title):
            titles.append(title)
            return silent(counters, title)

        roots = [str(ingester.root), str(other)]
        report = await ingester(*roots, rebuild=True, activate=True, build_ttl_s=2, show=show)
        builds = recorder.builds
        assert builds.message.builder == requester()
        assert builds.renewals[-1][:2] == (5, 5)
        assert builds.renewals[0][2] > 0
        fences = {builds.verifications[0].fence, builds.activations[0].fence}
        assert fences == {builds.fence}
        assert [version for version, _ in builds.ended] == [2]
        assert not builds.is_held
        assert recorder.states[2] == pb.VERSION_STATE_READY
        assert all("building version 2" in title for title in titles)
        told = report.to_json()
        assert (told["index_version"], told["built"], told["activated"]) == (2, True, True)
        assert recorder.builds.activations[0].force is False

    async def test_whoever_is_kept_out_hears_at_once_who_builds(self, ingester, recorder):
        write(ingester.root, 1)
        recorder.builds.take(7, "somebody@elsewhere", 60)
        started = time.monotonic()
        with pytest.raises(Contended, match="version 7 is being built by somebody@elsewhere"):
            await ingester(rebuild=True, stream={"first_delay_s": 20, "max_delay_s": 20})
        assert time.monotonic() - started < 10
        assert recorder.versions == [1]
        assert recorder.sent == []

    async def test_what_passes_by_waiting_does_not_end_a_build(self, ingester, recorder):
        write(ingester.root, 1)
        builds = recorder.builds

        async def fail_for_a_while() -> None:
            builds.renewal_failure = Unavailable("the coordinator does not answer")
            await until(lambda: builds.tried >= 3)
            builds.renewal_failure = None
            await until(lambda: bool(builds.renewals))

        recorder.on_verify = fail_for_a_while
        report = await ingester(rebuild=True, activate=True, build_ttl_s=3)
        assert report.is_activated

    async def test_a_builder_in_doubt_writes_nothing_more(self, ingester, recorder):
        write(ingester.root, 20)
        recorder.builds.renewal_failure = Unavailable("the coordinator does not answer")
        at_document(recorder, 5, lambda: setattr(recorder, "silent", True))
        started = time.monotonic()
        with pytest.raises(FailedPrecondition, match=r"not be renewed in time.*given up"):
            await ingester(rebuild=True, build_ttl_s=2, stream=FEW)
        # Before the lock can end for others.
        assert 1.5 < time.monotonic() - started < 8
        assert len(recorder.sent) < 20
        ((version, reason),) = recorder.builds.ended
        assert version == 2
        assert "not be renewed in time" in reason
        assert recorder.states[2] == pb.VERSION_STATE_FAILED
        (folder,) = {path.parent for path in ingester.state.rglob(RUNNING)}
        assert {path.name for path in folder.iterdir()} == {RUNNING}

    @pytest.mark.parametrize("hears_of_it", ["at a renewal", "from an indexer"])
    async def test_a_lost_lock_tells_whose_the_index_is(self, ingester, recorder, hears_of_it):
        write(ingester.root, 40)

        def lose() -> None:
            recorder.versions.append(3)
            recorder.builds.take(3, "somebody@elsewhere", 60)
            recorder.silent = hears_of_it == "at a renewal"

        at_document(recorder, 5, lose)
        ttl_s = 2 if hears_of_it == "at a renewal" else 600
        message = "somebody@elsewhere builds version 3 since .*: the index is that one's"
        with pytest.raises(FailedPrecondition, match=message):
            await ingester(rebuild=True, activate=True, build_ttl_s=ttl_s, stream=FEW)
        assert len(recorder.sent) < 12
        assert recorder.builds.ended == []
        assert recorder.builds.holds(3)
        assert recorder.activated == []

    async def test_a_collection_deleted_meanwhile_is_told_and_not_made_again(
        self, ingester, recorder
    ):
        write(ingester.root, 40)

        def delete() -> None:
            recorder.versions.clear()
            recorder.builds.until_s = 0

        at_document(recorder, 5, delete)
        with pytest.raises(FailedPrecondition, match=r"lost: .* The collection was deleted"):
            await ingester(rebuild=True, activate=True, stream=FEW)
        assert recorder.creations == 1

    async def test_what_is_kept_is_asked_of_a_collection_that_is_there(self, ingester, recorder):
        write(ingester.root, 1)
        assert (await ingester(rebuild=True, activate=True)).is_activated
        assert recorder.creations == 1

    async def test_it_is_lost_while_the_version_is_verified(self, ingester, recorder):
        write(ingester.root, 1)

        async def lose() -> None:
            recorder.versions.append(3)
            recorder.version = 3
            recorder.builds.until_s = 0
            await asyncio.Event().wait()

        recorder.on_verify = lose
        with pytest.raises(FailedPrecondition, match="Version 3 was activated since"):
            await ingester(rebuild=True, activate=True, build_ttl_s=2)
        assert recorder.activated == []

    async def test_a_frozen_builder_wakes_to_an_index_of_another(
        self, ingester, recorder, start, monkeypatch
    ):
        write(ingester.root, 60)
        monkeypatch.setenv("SLUICE_INGEST__BUILD_TTL_S", "2")
        recorder.limits.max_batch_documents = 1
        first = await start("ingest", "--rebuild", "--activate", "--json")
        await until(lambda: len(recorder.sent) >= 3)
        first.send_signal(signal.SIGSTOP)
        await until(lambda: not recorder.builds.is_held)
        assert (await ingester(rebuild=True, activate=True)).target.version == 3
        held = dict(recorder.held(2))
        first.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            _, errors = await first.communicate()
        assert first.returncode == 1
        assert "Version 3 was activated since: the index is that one's" in errors.decode()
        assert recorder.held(2) == held
        assert len(recorder.documents) == 60
        assert recorder.activated == [3]


class TestEnds:
    async def test_a_failure_is_the_reason_why_its_version_fails(self, ingester, recorder):
        write(ingester.root, 1)
        recorder.failures = [(0, InvalidArgument("no such thing"))]
        with pytest.raises(InvalidArgument):
            await ingester(rebuild=True)
        assert recorder.builds.ended == [(2, "no such thing")]
        assert recorder.states[2] == pb.VERSION_STATE_FAILED
        # The lock keeps nobody out any more.
        assert (await ingester(rebuild=True)).target.version == 3

    async def test_a_stop_gives_the_lock_back(self, ingester, recorder):
        write(ingester.root, 40)
        stop = asyncio.Event()
        at_document(recorder, 5, stop.set)
        assert (await ingester(rebuild=True, stop=stop, readers=2, stream=FEW)).is_stopped
        assert recorder.builds.ended == [(2, "its build was stopped")]
        assert recorder.states[2] == pb.VERSION_STATE_FAILED

    async def test_a_stop_calls_a_verification_off(self, ingester, recorder):
        write(ingester.root, 1)
        stop = asyncio.Event()

        async def stop_and_hang() -> None:
            stop.set()
            await asyncio.Event().wait()

        recorder.on_verify = stop_and_hang
        async with asyncio.timeout(20):
            with pytest.raises(CalledOffError):
                await ingester(rebuild=True, activate=True, stop=stop)
        assert recorder.builds.ended == [(2, "its build was stopped")]
        assert recorder.activated == []

    async def test_two_signals_give_the_lock_back_too(self, ingester, recorder, start):
        write(ingester.root, 5)
        recorder.silent = True
        process = await start("ingest", "--rebuild")
        await until(lambda: bool(recorder.batches))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await process.communicate()
        assert process.returncode == 1
        assert [version for version, _ in recorder.builds.ended] == [2]


GOLDEN = [
    {"query": "why is the block missing", "expected": "000.txt"},
    {"query": "how many replicas", "expected": ["001.txt", "002.txt"]},
]


class TestVerdict:
    def fall_short(self, recorder) -> None:
        recorder.findings = [
            "golden queries: 0.5 is less than 0.8",
            'golden query "how many replicas" does not find 002.txt',
        ]
        recorder.builds.golden = pb.GoldenScore(
            queries=2, depth=10, threshold=0.8, candidate=0.5, active=0.9, active_version=1
        )
        miss = pb.GoldenMiss(query="how many replicas", missing=["002.txt"], active_finds=True)
        miss.found.append("file:///lake/other.txt")
        recorder.builds.misses = [miss]

    async def test_golden_queries_are_asked_with_their_bounds(self, ingester, recorder):
        write(ingester.root, 1)
        exam = Exam((GoldenCase("why", ("a.txt", "b.txt")),), threshold=0.5, max_drop=0.25)
        await ingester(rebuild=True, exam=exam)
        (request,) = recorder.builds.verifications
        (query,) = request.golden_queries
        assert (query.query, list(query.expected)) == ("why", ["a.txt", "b.txt"])
        assert (request.golden_threshold, request.golden_max_drop) == (0.5, 0.25)
        await ingester(rebuild=True, exam=Exam(exam.cases))
        assert not recorder.builds.verifications[1].HasField("golden_threshold")
        assert not recorder.builds.verifications[1].HasField("golden_max_drop")

    async def test_what_fell_short_is_told_and_not_activated(
        self, ingester, recorder, start, tmp_path
    ):
        write(ingester.root, 3)
        file = tmp_path / "golden.jsonl"
        file.write_text("\n".join(json.dumps(one) for one in GOLDEN))
        self.fall_short(recorder)
        words = ["--rebuild", "--activate", "--golden", str(file), "--golden-threshold", "0.8"]
        process = await start("ingest", *words)
        output, errors = await process.communicate()
        assert process.returncode == 1, errors.decode()
        told = output.decode()
        assert "not sound: golden queries: 0.5 is less than 0.8" in told
        assert "2 golden queries: 0.500, by version 1 0.900; 0.800 passes" in told
        assert "'how many replicas' misses 002.txt (the active version finds it)" in told
        assert told.count("how many replicas") == 1
        assert "sluice collections show docs" in told
        assert "sluice collections activate docs 2 --force" in told
        assert recorder.activated == []
        assert recorder.states[2] == pb.VERSION_STATE_READY
        (request,) = recorder.builds.verifications
        assert [list(query.expected) for query in request.golden_queries] == [
            ["000.txt"],
            ["001.txt", "002.txt"],
        ]
        assert request.golden_threshold == 0.8

    async def test_it_is_activated_all_the_same_by_force(self, ingester, recorder, start):
        write(ingester.root, 1)
        self.fall_short(recorder)
        process = await start("ingest", "--rebuild", "--activate", "--force", "--json")
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        told = json.loads(output)
        assert (told["activated"], told["forced"]) == (True, True)
        assert told["golden"]["candidate"] == 0.5
        assert told["misses"][0]["missing"] == ["002.txt"]
        (activation,) = recorder.builds.activations
        assert activation.force
        assert f"process {process.pid}" in activation.requested_by

    async def test_golden_queries_are_read_before_anything_begins(
        self, ingester, recorder, start, tmp_path
    ):
        write(ingester.root, 1)
        file = tmp_path / "golden.jsonl"
        file.write_text('{"query": "why"}')
        process = await start("ingest", "--rebuild", "--golden", str(file))
        _, errors = await process.communicate()
        assert process.returncode != 0
        # This program, unlike the client's, frames an error: lines break where they please.
        told = errors.decode().replace("\n", "").replace(" ", "")
        assert "golden.jsonl:1:expectedismissing" in told
        assert (recorder.versions, recorder.openings) == ([1], [])


class TestRoots:
    """What a version lacks altogether is not swapped in unnoticed."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        other = tmp_path / "other"
        write(other, 2)
        return other

    async def test_a_root_that_brings_nothing_keeps_it_from_queries(
        self, ingester, recorder, tmp_path
    ):
        write(ingester.root, 2)
        vanished = tmp_path / "vanished"
        vanished.mkdir()
        roots = [str(ingester.root), str(vanished)]
        report = await ingester(*roots, rebuild=True, activate=True)
        (finding,) = report.findings
        assert vanished.as_uri() in finding
        assert "--allow-empty" in finding
        assert (report.is_activated, recorder.activated) == (False, [])
        assert (await ingester(*roots, rebuild=True)).findings == ()
        report = await ingester(*roots, rebuild=True, activate=True, allow_empty=True)
        assert (report.findings, recorder.activated) == ((), [4])

    async def test_roots_of_the_active_version_must_be_named(self, ingester, recorder, other):
        write(ingester.root, 3)
        await ingester(str(ingester.root), str(other))
        with pytest.raises(
            FailedPrecondition, match=r"also ingested from \S+/other/: name"
        ) as told:
            await ingester(rebuild=True, activate=True)
        assert "--force" in told.value.message
        assert recorder.versions == [1]
        # What is only built is looked at by a person.
        assert not (await ingester(rebuild=True)).is_activated
        report = await ingester(str(ingester.root), str(other), rebuild=True, activate=True)
        assert (report.is_activated, report.target.version) == (True, 3)

    async def test_they_may_be_given_up_by_force(self, ingester, other):
        write(ingester.root, 3)
        await ingester(str(ingester.root), str(other))
        report = await ingester(rebuild=True, activate=True, force=True)
        assert (report.is_activated, report.is_forced) == (True, False)
        # The new one never held them.
        assert (await ingester(rebuild=True, activate=True)).is_activated

    async def test_they_may_lie_within_those_named(self, ingester, tmp_path):
        write(ingester.root, 3)
        await ingester()
        assert (await ingester(str(tmp_path), rebuild=True, activate=True)).is_activated

    async def test_those_without_a_document_need_no_name(self, ingester, tmp_path):
        write(ingester.root, 3)
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / "a.txt").write_text("")
        await ingester(str(ingester.root), str(empty))
        assert (await ingester(rebuild=True, activate=True)).is_activated

    async def test_another_index_of_the_same_number_counts_not(self, ingester, recorder, other):
        write(ingester.root, 3)
        await ingester(str(other))
        recorder.created_s += 10
        assert (await ingester(rebuild=True, activate=True)).is_activated
