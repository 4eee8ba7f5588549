"""`sluice collections verify` against a server that answers as told, and manifests of a plug-in."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint

import pytest

from client import manifests
from client.client import SluiceClient
from client.inspection import inspect_version
from client.manifests import Manifests
from client.verification import Exam
from common.golden import GoldenCase
from common.verification import ENTRY_POINT_GROUP
from sluice.collections.v1 import collections_pb2 as pb
from tests.unit.client.told_collections import fault, sluice, telling, version

CHECK = """
from common.errors import Unavailable
from common.verification import ManifestReport
asked = []
answer = ManifestReport(1, 3, (), 0, 0, 0)
async def check(**arguments):
    asked.append(arguments)
    if answer is None:
        raise Unavailable("the state folder does not answer; look at hdfs://lake/state")
    return answer
"""
WHOLE = pb.VerifyVersionResponse(version=version(), passed=True)
FAULTY = pb.VerifyVersionResponse(
    version=version(),
    findings=["holds 2 complete documents, expected 3"],
    faults=[
        fault("a", pb.FAULT_KIND_INCOMPLETE),
        fault("b", pb.FAULT_KIND_DIVERGED, container="doc://b.zip"),
        fault("c", pb.FAULT_KIND_SURPLUS, surplus=2),
    ],
)
REPAIRED = pb.RepairVersionResponse(
    deleted_chunks=2, incomplete=FAULTY.faults[:2], incomplete_documents=2
)
EXAM = Exam((GoldenCase("why", ("x",)),))


@pytest.fixture
def check(monkeypatch, tmp_path):
    """A part that keeps manifests: a module with ``asked`` and ``answer``, installed."""
    (tmp_path / "keeper_of_manifests.py").write_text(CHECK)
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, "keeper_of_manifests:check")
    import keeper_of_manifests  # type: ignore[import-not-found]  # noqa: PLC0415  # made above

    yield keeper_of_manifests
    del sys.modules["keeper_of_manifests"]


def install(monkeypatch, *places):
    points = tuple(EntryPoint(place, place, ENTRY_POINT_GROUP) for place in places)
    monkeypatch.setattr(
        manifests, "entry_points", lambda group: points * (group == points[0].group)
    )


def report(check, **changed):
    fields = {"roots": 1, "files": 3, "findings": (), "missing": 0, "surplus": 0, "forgotten": 0}
    check.answer = type(check.answer)(**{**fields, **changed})


async def inspected(*answers, **options):
    """The result, and what the server was asked."""
    given = {"version": 0, "expected_documents": None, "golden": None, "repair": False, **options}
    async with telling(*answers) as (told, address), SluiceClient(address) as client:
        result = await inspect_version(
            client,
            "docs",
            tenant="",
            manifests=Manifests.installed(None, {"SLUICE_INGEST__STATE_URI": "file:///s"}),
            **given,
        )
    return result, told.asked


async def test_the_manifests_of_the_version_that_was_seen_are_compared(check):
    result, asked = await inspected(WHOLE, expected_documents=3, golden=EXAM)
    assert result.all_right
    (request,) = asked
    assert (request.expected_documents, len(request.golden_queries)) == (3, 1)
    assert check.asked == [
        {
            "config": None,
            "environ": {"SLUICE_INGEST__STATE_URI": "file:///s"},
            "tenant": "default",
            "collection": "docs",
            "version": 7,
            "created_at": "2026-01-02T03:04:05+00:00",
            "incomplete": frozenset(),
            "repair": False,
        }
    ]


async def test_without_repair_nothing_is_changed_and_what_is_lacking_is_handed_on(check):
    result, asked = await inspected(FAULTY)
    assert not result.all_right
    assert result.to_be_sent
    assert [type(request) for request in asked] == [pb.VerifyVersionRequest]
    assert check.asked[0]["incomplete"] == {"doc://a", "doc://b.zip"}
    assert check.asked[0]["repair"] is False


async def test_a_repair_mends_the_store_then_the_manifests_and_looks_again(check):
    report(check, missing=2, forgotten=2)
    result, asked = await inspected(FAULTY, REPAIRED, WHOLE, golden=EXAM, repair=True)
    assert [type(request) for request in asked] == [
        pb.VerifyVersionRequest,
        pb.RepairVersionRequest,
        pb.VerifyVersionRequest,
    ]
    first, repair, last = asked
    assert (first.index_version, repair.index_version, last.index_version) == (0, 7, 7)
    # Golden queries are dear: they are asked once, of what is there in the end.
    assert (len(first.golden_queries), len(last.golden_queries)) == (0, 1)
    assert check.asked[0]["incomplete"] == {"doc://a", "doc://b.zip"}
    assert check.asked[0]["repair"] is True
    assert result.verified.passed
    assert not result.all_right  # the next ingest has to send two documents


async def test_a_store_without_faults_is_not_repaired(check):
    result, asked = await inspected(WHOLE, WHOLE, repair=True)
    assert [type(request) for request in asked] == [pb.VerifyVersionRequest] * 2
    assert check.asked[0]["repair"] is True
    assert (result.repaired, result.all_right) == (None, True)


async def test_a_repair_of_chunks_alone_ends_well(check):
    del check
    surplus = pb.VerifyVersionResponse(version=version(), faults=FAULTY.faults[2:])
    result, _ = await inspected(
        surplus, pb.RepairVersionResponse(deleted_chunks=2), WHOLE, repair=True
    )
    assert result.all_right
    assert not result.to_be_sent


@pytest.mark.parametrize(
    "wrong", [{"findings": ("x",)}, {"missing": 1}, {"surplus": 1}, {"forgotten": 1}]
)
async def test_manifests_that_disagree_are_wrong(check, wrong):
    report(check, **wrong)
    result, _ = await inspected(WHOLE)
    assert not result.all_right


async def test_manifests_that_are_not_here_are_told_and_no_fault(check, monkeypatch):
    report(check, roots=0, files=0)
    result, _ = await inspected(WHOLE)
    assert result.all_right
    assert result.manifests.report is None
    assert result.manifests.note == "none of version 7 is known on this machine"
    monkeypatch.setattr(manifests, "entry_points", lambda group: ())  # noqa: ARG005  # as its namesake
    result, _ = await inspected(WHOLE)
    assert result.all_right
    assert result.manifests.note == "no part that keeps manifests is installed"


async def test_a_part_that_lacks_what_it_needs_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "needy.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, "needy:check")
    result, _ = await inspected(WHOLE)
    assert result.all_right
    assert "a_module_that_nobody_has, which is not installed" in result.manifests.note


async def test_manifests_that_cannot_be_read_are_a_fault_beside_what_was_found(check):
    check.answer = None
    result, _ = await inspected(WHOLE)
    assert result.verified.passed
    assert not result.all_right
    assert "look at hdfs://lake/state" in result.manifests.note


async def test_two_keepers_are_added_up(check, monkeypatch):
    report(check, files=3, missing=1, findings=("one",))
    install(monkeypatch, "keeper_of_manifests:check", "keeper_of_manifests:check")
    result, _ = await inspected(WHOLE)
    assert result.manifests.report == type(check.answer)(2, 6, ("one", "one"), 2, 0, 0)


async def test_the_command_prints_one_object_and_fails_where_something_is_wrong(check):
    good, _ = await sluice("verify", "docs", "--json", answers=[WHOLE])
    assert (good.exit_code, good.stderr) == (0, "")
    found = json.loads(good.stdout)
    assert (found["ok"], found["passed"], found["version"]["number"]) == (True, True, 7)
    assert found["manifests"]["files"] == 3
    assert (found["repaired"], found["golden"], found["misses"]) == (None, None, [])
    report(check, missing=2, forgotten=2)
    answers = [FAULTY, REPAIRED, WHOLE]
    mended, _ = await sluice("verify", "docs", "--repair", "--json", answers=answers)
    assert mended.exit_code == 1
    found = json.loads(mended.stdout)
    assert (found["ok"], found["passed"]) == (False, True)
    assert found["repaired"]["deleted_chunks"] == 2
    assert [one["kind"] for one in found["repaired"]["incomplete"]] == ["incomplete", "diverged"]
    # The manifests are compared with the server that was named here.
    assert check.asked[0]["environ"]["SLUICE_CLIENT__TARGET"].startswith("127.0.0.1:")


async def test_the_command_tells_a_person_what_is_wrong_and_what_to_do(check):
    report(check, missing=2, forgotten=2)
    answers = [FAULTY, REPAIRED, WHOLE]
    result, _ = await sluice("verify", "docs", "--repair", answers=answers)
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[1:4] == [
        "incomplete        0  doc://a",
        "diverged          0  doc://b",
        "surplus           2  doc://c",
    ]
    assert "repaired: 2 chunks deleted; 2 documents must be sent again" in lines
    assert "every document is complete" in lines
    assert (
        "manifests: 3 files of 1 root; the index lacks 2 documents, 2 files to be read again"
        in " ".join(lines)
    )
    assert lines[-1] == "→ the next `sluice ingest` of these roots into docs mends the rest"


async def test_golden_queries_and_their_bounds_reach_the_server(check, tmp_path):
    del check
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"query": "why", "expected": ["a", "b"]}\n')
    missed = pb.VerifyVersionResponse(
        version=version(8, pb.VERSION_STATE_READY),
        findings=[
            "golden queries score 0.5000, below the threshold of 0.9",
            'golden query "why" does not find b; the active version finds all',
        ],
        golden=pb.GoldenScore(
            queries=1, depth=10, threshold=0.9, candidate=0.5, active=1, active_version=7
        ),
        misses=[pb.GoldenMiss(query="why", missing=["b"], found=["hdfs://lake/a"])],
    )
    options = ("--golden", str(golden), "--golden-threshold", "0.9", "--golden-max-drop", "0")
    result, asked = await sluice("verify", "docs", "--version", "8", *options, answers=[missed])
    assert result.exit_code == 1
    assert asked == [
        pb.VerifyVersionRequest(
            collection="docs",
            index_version=8,
            golden_queries=[pb.GoldenQuery(query="why", expected=["a", "b"])],
            golden_threshold=0.9,
            golden_max_drop=0,
        )
    ]
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    start = lines.index("golden queries score 0.5000, below the threshold of 0.9")
    assert lines[start + 1 : start + 6] == [
        "",
        "golden queries: 0.500 over 1 query, 0.900 wanted; version 7 had 1.000",
        "“why”",
        "  missing  b",
        "  found    hdfs://lake/a",
    ]


async def test_golden_queries_are_read_before_anybody_is_asked(tmp_path):
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"query": "why", "expected": "a"}\n{"query": "why"}\n')
    result, asked = await sluice("verify", "docs", "--golden", str(golden))
    assert (result.exit_code, asked) == (2, [])
    assert f"{golden}:2: expected is missing" in result.stderr
    result, asked = await sluice("verify", "docs", "--golden-threshold", "0.5")
    assert (result.exit_code, asked) == (2, [])
    assert "need --golden" in result.stderr
