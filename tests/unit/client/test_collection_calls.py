"""What the calls of the collections service say on the wire, and what comes back of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from client.client import SluiceClient
from client.collection_calls import Begun, Deleted
from client.verification import DocumentFault, Exam, GoldenMiss
from client.versions import Build, Forced, GoldenScore, Verdict, WordStatistics
from common.errors import Contended, FailedPrecondition
from common.golden import GoldenCase
from sluice.collections.v1 import collections_pb2 as pb
from tests.unit.client.told_collections import fault, telling, version

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_a_build_is_begun_renewed_and_ended_with_its_fence():
    begun = version(8, pb.VERSION_STATE_BUILDING, fence=41)
    failed = version(8, pb.VERSION_STATE_FAILED, failure="the disk is full")
    async with (
        telling(
            pb.BeginVersionResponse(version=begun, fence=41, ttl_s=20),
            pb.RenewBuildResponse(),
            pb.EndBuildResponse(version=failed),
            pb.EndBuildResponse(),
        ) as (told, address),
        SluiceClient(address, tenant="acme") as client,
    ):
        build = await client.begin_version("docs", builder="ann@lake, process 4", ttl_s=20)
        assert isinstance(build, Begun)
        assert (build.version.number, build.version.state) == (8, "building")
        assert (build.version.fence, build.fence, build.ttl_s) == (41, 41, 20)
        await client.renew_build("docs", 8, 41, documents=5, chunks=9, documents_per_s=2.5)
        ended = await client.end_build("docs", 8, 41, reason="the disk is full")
        assert ended is not None
        assert (ended.state, ended.failure) == ("failed", "the disk is full")
        assert await client.end_build("docs", 8, 41) is None
    assert told.asked[:3] == [
        pb.BeginVersionRequest(
            tenant="acme", collection="docs", builder="ann@lake, process 4", ttl_s=20
        ),
        pb.RenewBuildRequest(
            tenant="acme",
            collection="docs",
            index_version=8,
            fence=41,
            documents=5,
            chunks=9,
            documents_per_s=2.5,
        ),
        pb.EndBuildRequest(
            tenant="acme", collection="docs", index_version=8, fence=41, reason="the disk is full"
        ),
    ]


async def test_who_builds_already_is_told():
    busy = Contended("bob@lake builds version 8 since 13:02", retry_after_ms=15_000)
    async with telling(busy) as (_, address), SluiceClient(address) as client:
        with pytest.raises(Contended, match="bob@lake builds version 8") as raised:
            await client.begin_version("docs", builder="ann@lake")
    assert raised.value.retry_after_ms == 15_000


async def test_an_examination_travels_whole_and_comes_back_whole():
    response = pb.VerifyVersionResponse(
        version=version(8, pb.VERSION_STATE_READY),
        findings=["golden queries score 0.5"],
        faults=[
            fault("a", pb.FAULT_KIND_INCOMPLETE),
            fault("b", pb.FAULT_KIND_DIVERGED, container="doc://b.zip", surplus=2),
        ],
        golden=pb.GoldenScore(
            queries=1, depth=20, threshold=0.75, candidate=0.5, active=1, active_version=7
        ),
        misses=[pb.GoldenMiss(query="why", missing=["x"], found=["y"], active_finds=True)],
    )
    exam = Exam((GoldenCase("why", ("x", "z")),), threshold=0.75, max_drop=0, depth=20)
    async with telling(response) as (told, address), SluiceClient(address) as client:
        found = await client.verify("docs", version=8, expected_documents=0, fence=41, golden=exam)
    assert told.asked == [
        pb.VerifyVersionRequest(
            collection="docs",
            index_version=8,
            expected_documents=0,
            fence=41,
            golden_queries=[pb.GoldenQuery(query="why", expected=["x", "z"])],
            golden_threshold=0.75,
            golden_max_drop=0,
            golden_depth=20,
        )
    ]
    assert (found.version.number, found.passed, found.findings) == (
        8,
        False,
        ("golden queries score 0.5",),
    )
    assert found.faults == (
        DocumentFault("a" * 32, "doc://a", "", "incomplete", 0),
        DocumentFault("b" * 32, "doc://b", "doc://b.zip", "diverged", 2),
    )
    assert found.golden == GoldenScore(1, 20, 0.75, 0.5, 1.0, 7)
    assert found.misses == (GoldenMiss("why", ("x",), ("y",), active_finds=True),)


async def test_what_is_not_asked_for_is_left_to_the_server():
    response = pb.VerifyVersionResponse(version=version(), passed=True)
    exam = Exam((GoldenCase("why", ("x",)),))
    async with telling(response, response) as (told, address), SluiceClient(address) as client:
        found = await client.verify("docs")
        await client.verify("docs", golden=exam)
    plain, asked = told.asked
    assert plain == pb.VerifyVersionRequest(collection="docs")
    assert isinstance(asked, pb.VerifyVersionRequest)
    assert not asked.HasField("golden_threshold")
    assert not asked.HasField("golden_max_drop")
    assert (found.golden, found.faults, found.misses) == (None, (), ())


async def test_a_repair_says_what_must_be_sent_again():
    response = pb.RepairVersionResponse(
        deleted_chunks=3,
        incomplete=[fault("a", pb.FAULT_KIND_INCOMPLETE)],
        incomplete_documents=1200,
    )
    async with telling(response) as (told, address), SluiceClient(address) as client:
        repaired = await client.repair("docs", version=8)
    assert told.asked == [pb.RepairVersionRequest(collection="docs", index_version=8)]
    assert (repaired.deleted_chunks, repaired.incomplete_documents) == (3, 1200)
    assert [one.source_uri for one in repaired.incomplete] == ["doc://a"]


async def test_an_activation_says_by_which_right():
    pointer = pb.ActivePointer(version=8, generation=3, previous_version=7)
    refused = FailedPrecondition("version 8 fell short")
    async with (
        telling(refused, pb.ActivateVersionResponse(active=pointer, changed=True)) as (
            told,
            address,
        ),
        SluiceClient(address) as client,
    ):
        with pytest.raises(FailedPrecondition, match="version 8 fell short"):
            await client.activate("docs", 8, fence=41)
        active, changed = await client.activate("docs", 8, force=True, requested_by="ann@lake")
    assert (active.version, active.previous_version, changed) == (8, 7, True)
    assert told.asked == [
        pb.ActivateVersionRequest(collection="docs", index_version=8, fence=41),
        pb.ActivateVersionRequest(
            collection="docs", index_version=8, force=True, requested_by="ann@lake"
        ),
    ]


async def test_a_rollback_may_name_its_version():
    back = pb.RollBackCollectionResponse(active=pb.ActivePointer(version=5))
    async with telling(back, back) as (told, address), SluiceClient(address) as client:
        assert (await client.roll_back("docs", to_version=5)).version == 5
        await client.roll_back("docs")
    assert told.asked == [
        pb.RollBackCollectionRequest(collection="docs", to_version=5),
        pb.RollBackCollectionRequest(collection="docs"),
    ]


async def test_a_deleted_version_may_still_be_in_use():
    answers = (
        pb.DeleteVersionResponse(pending=True, used_by=["query@lake-1"]),
        pb.DeleteCollectionResponse(),
    )
    async with telling(*answers) as (told, address), SluiceClient(address) as client:
        assert await client.delete("docs", version=6) == Deleted(
            pending=True, used_by=("query@lake-1",)
        )
        assert await client.delete("docs") == Deleted()
    assert told.asked == [
        pb.DeleteVersionRequest(collection="docs", index_version=6),
        pb.DeleteCollectionRequest(collection="docs"),
    ]


async def test_a_collection_comes_back_with_its_build_and_the_life_of_its_versions():
    kept = version(
        7,
        pb.VERSION_STATE_RETIRED,
        builder="ann@lake",
        verdict=pb.Verdict(findings=["short"], golden=pb.GoldenScore(queries=2, threshold=0.5)),
        forced=pb.Forced(by="bob@lake"),
        fence=40,
    )
    kept.word_statistics.CopyFrom(
        pb.WordStatistics(
            table="t", chunks=9, terms=5, text_words=70, title_words=6, parts=1, analysis=1
        )
    )
    kept.word_statistics.counted_at.FromDatetime(MOMENT)
    kept.retired_at.FromDatetime(MOMENT)
    kept.verdict.verified_at.FromDatetime(MOMENT)
    kept.forced.at.FromDatetime(MOMENT)
    build = pb.Build(
        version=8, builder="eve@lake", documents=5, chunks=9, documents_per_s=2.5, ttl_s=15
    )
    build.since.FromDatetime(MOMENT)
    build.reported_at.FromDatetime(MOMENT + timedelta(seconds=4))
    found = pb.Collection(tenant="default", name="docs", versions=[kept], build=build)
    bare = pb.Collection(tenant="default", name="bare", versions=[version(1)])
    async with (
        telling(
            pb.DescribeCollectionResponse(collection=found),
            pb.ListCollectionsResponse(collections=[bare]),
        ) as (_, address),
        SluiceClient(address) as client,
    ):
        described = await client.describe("docs")
        (listed,) = await client.collections()
    (seen,) = described.versions
    assert (seen.builder, seen.retired_at, seen.fence) == ("ann@lake", MOMENT, 40)
    assert seen.forced == Forced("bob@lake", MOMENT)
    assert seen.verdict == Verdict(
        passed=False,
        verified_at=MOMENT,
        findings=("short",),
        golden=GoldenScore(2, 0, 0.5, 0.0, None, 0),
    )
    assert described.build == Build(
        8, "eve@lake", MOMENT, 5, 9, 2.5, MOMENT + timedelta(seconds=4), 15
    )
    assert described.to_json()["build"]["since"] == "2026-01-02T03:04:05+00:00"
    assert listed.build is None
    (first,) = listed.versions
    assert (first.verdict, first.forced, first.retired_at) == (None, None, None)
    assert first.word_statistics is None
    assert seen.word_statistics == WordStatistics(9, 5, 70, 6, 1, "", MOMENT)
