"""`sluice collections` on the command line: what a person and a program are told."""

from __future__ import annotations

import json

from common.errors import FailedPrecondition, NotFound
from sluice.collections.v1 import collections_pb2 as pb
from tests.unit.client.told_collections import sluice, version


async def test_collections_are_listed_with_what_is_counted_now():
    listed = pb.ListCollectionsResponse(collections=[pb.Collection(name="docs")])
    found = pb.Collection(
        name="docs",
        active=pb.ActivePointer(version=7, generation=3),
        versions=[version(7)],
        build=pb.Build(version=8, builder="ann@lake", documents=5, documents_per_s=2.5),
    )
    answers = [listed, pb.DescribeCollectionResponse(collection=found)]
    result, asked = await sluice("list", "--json", answers=answers)
    assert asked[1] == pb.DescribeCollectionRequest(collection="docs")
    (told,) = json.loads(result.stdout)["collections"]
    assert told["versions"][0]["documents"] == 3
    assert (told["build"]["version"], told["build"]["documents_per_s"]) == (8, 2.5)
    result, _ = await sluice("list", answers=answers)
    assert "docs: version 8 is being built, 5 documents, 0 chunks, 2.5/s" in result.stdout


async def test_a_collection_is_shown_with_its_verdicts():
    verdict = pb.Verdict(findings=["golden queries score 0.5"])
    found = pb.Collection(
        name="docs", versions=[version(8, pb.VERSION_STATE_READY, verdict=verdict)]
    )
    answers = [pb.DescribeCollectionResponse(collection=found)]
    result, _ = await sluice("show", "docs", "--json", answers=answers)
    (told,) = json.loads(result.stdout)["versions"]
    assert told["verdict"]["findings"] == ["golden queries score 0.5"]
    result, _ = await sluice("show", "docs", answers=answers)
    assert "golden queries score 0.5" in result.stdout


async def test_a_refused_activation_shows_where_the_version_fell_short():
    refused = FailedPrecondition("version 8 fell short of its verification")
    missed = 'golden query "why\x1b[2J" does not find b'
    another = pb.Verdict(findings=["of another version"])
    other = version(7, pb.VERSION_STATE_READY, verdict=another)
    short = version(8, pb.VERSION_STATE_READY, verdict=pb.Verdict(findings=["score 0.5", missed]))
    found = pb.DescribeCollectionResponse(collection=pb.Collection(versions=[other, short]))
    result, asked = await sluice("activate", "docs", "8", answers=[refused, found])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        '- score 0.5\n- golden query "why[2J" does not find b\n'
        "error: version 8 fell short of its verification\n"
    )
    assert asked[0] == pb.ActivateVersionRequest(collection="docs", index_version=8)


async def test_a_refusal_is_told_also_where_nothing_more_can_be_read():
    refused = FailedPrecondition("version 8 is being built")
    result, _ = await sluice("activate", "docs", "8", answers=[refused, NotFound("gone")])
    assert (result.exit_code, result.stderr) == (1, "error: version 8 is being built\n")


async def test_an_old_verdict_is_no_reason_for_a_refusal():
    refused = FailedPrecondition("the pointer is held")
    verdict = pb.Verdict(findings=["score 0.5"])
    retired = version(8, pb.VERSION_STATE_RETIRED, verdict=verdict)
    found = pb.DescribeCollectionResponse(collection=pb.Collection(versions=[retired]))
    result, _ = await sluice("activate", "docs", "8", answers=[refused, found])
    assert result.stderr == "error: the pointer is held\n"


async def test_who_forces_an_activation_is_named():
    active = pb.ActivePointer(version=8, previous_version=7)
    answer = pb.ActivateVersionResponse(active=active, changed=True)
    result, asked = await sluice("activate", "docs", "8", "--force", answers=[answer])
    assert result.stdout == "Version 8 of docs is active now; version 7 is kept for rollback.\n"
    (request,) = asked
    assert request.force
    assert ", process " in request.requested_by
    assert "@" in request.requested_by


async def test_an_activation_that_changes_nothing_says_so():
    answer = pb.ActivateVersionResponse(active=pb.ActivePointer(version=8))
    result, _ = await sluice("activate", "docs", "8", answers=[answer])
    assert result.stdout == "Version 8 of docs was active already: no-op.\n"


async def test_a_rollback_goes_where_it_is_told():
    answer = pb.RollBackCollectionResponse(active=pb.ActivePointer(version=5))
    result, asked = await sluice("rollback", "docs", "--to", "5", answers=[answer])
    assert result.stdout == "Version 5 of docs is active again.\n"
    assert asked == [pb.RollBackCollectionRequest(collection="docs", to_version=5)]


async def test_who_still_uses_a_deleted_version_is_told():
    used = pb.DeleteVersionResponse(pending=True, used_by=["query\x1b[2J@lake", "job 7"])
    arguments = ("delete", "docs", "--version", "6", "--yes")
    result, _ = await sluice(*arguments, answers=[used])
    assert result.stdout == (
        "Deleted version 6 of docs. Its store goes when these have let go of it:\n"
        "  query[2J@lake\n  job 7\n"
    )
    result, _ = await sluice(*arguments, "--json", answers=[used])
    assert json.loads(result.stdout)["pending"] is True
    result, _ = await sluice(*arguments, answers=[pb.DeleteVersionResponse()])
    assert result.stdout == "Deleted version 6 of docs.\n"
