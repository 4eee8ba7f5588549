"""VerifyVersion: whose verification moves a version, and what its verdict keeps back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from common.errors import FailedPrecondition, InvalidArgument, Unavailable
from indexer import examination
from sluice.collections.v1 import collections_pb2 as pb
from tests.integration.indexer.conftest import document, refusal

if TYPE_CHECKING:
    from tests.integration.indexer.conftest import Running

BUILDING, READY, ACTIVE = (
    pb.VERSION_STATE_BUILDING,
    pb.VERSION_STATE_READY,
    pb.VERSION_STATE_ACTIVE,
)


async def damage(running: Running, number: int) -> None:
    """Delete the second chunk of every document."""
    collection = await running.chroma.collection(f"default.docs.v{number:06}")
    ids = (await collection.get(include=())).ids
    await collection.delete([id_ for id_ in ids if id_.endswith(":1")])


class TestWithTheFence:
    async def test_a_version_becomes_ready_and_takes_no_more_documents(
        self, running: Running
    ) -> None:
        await running.create()
        begun = await running.begin()
        stream = await running.opened(2)
        acks = await stream.send(document("a"), document("b"))
        response = await running.verify(2, begun.fence, expected=2)
        assert response.passed
        assert response.version.state == READY
        assert response.version.verdict.passed
        assert response.version.counts.documents == 2
        assert response.version.counts.chunks == sum(ack.chunk_count for ack in acks)
        assert isinstance(await refusal(stream.send(document("c"))), FailedPrecondition)
        described = (await running.describe()).versions[1]
        assert described.word_statistics.chunks == described.counts.chunks
        described.ClearField("word_statistics")  # only a description tells of it
        assert described == response.version

    async def test_one_that_falls_short_is_kept_back_unless_it_is_forced(
        self, running: Running
    ) -> None:
        await running.create()
        begun = await running.begin()
        await running.send([document("a")], index_version=2)
        response = await running.verify(2, begun.fence, expected=5)
        assert not response.passed
        assert list(response.findings) == ["holds 1 complete documents, expected 5"]
        assert response.version.state == READY
        assert list(response.version.verdict.findings) == list(response.findings)
        for fence in (begun.fence, 0):
            error = await refusal(running.activate(2, fence))
            assert isinstance(error, FailedPrecondition)
            assert "expected 5" in error.message
        assert await running.states() == {1: ACTIVE, 2: READY}

        await running.activate(2, begun.fence, force=True, requested_by="user@host")
        (_, version) = (await running.describe()).versions
        assert (version.state, version.forced.by) == (ACTIVE, "user@host")
        assert version.forced.at.ToNanoseconds() == version.activated_at.ToNanoseconds()

    async def test_can_be_repeated(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        assert not (await running.verify(2, begun.fence, expected=5)).passed
        assert (await running.verify(2, begun.fence, expected=0)).passed
        assert (await running.activate(2, begun.fence)).changed

    async def test_one_that_was_cut_short_keeps_the_version_back(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise Unavailable("the store is away")

        await running.create()
        begun = await running.begin()
        with monkeypatch.context() as broken:
            broken.setattr(examination, "verify", fail)
            assert isinstance(await refusal(running.verify(2, begun.fence)), Unavailable)
        assert (await running.states())[2] == READY
        error = await refusal(running.activate(2, begun.fence))
        assert isinstance(error, FailedPrecondition)
        assert "verify it again" in error.message
        assert (await running.verify(2, begun.fence)).passed
        assert (await running.activate(2, begun.fence)).changed

    async def test_another_fence_moves_nothing(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        error = await refusal(running.verify(2, begun.fence + 1))
        assert isinstance(error, FailedPrecondition)
        assert (await running.states())[2] == BUILDING
        assert (await running.verify(2, begun.fence)).passed
        assert isinstance(await refusal(running.verify(2, begun.fence + 1)), FailedPrecondition)
        assert isinstance(await refusal(running.verify(1, begun.fence)), FailedPrecondition)


class TestWithoutAFence:
    async def test_a_version_that_is_building_is_only_reported_on(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        await running.send([document("a")], index_version=2)
        response = await running.verify(2, expected=1)
        assert response.passed
        assert response.version.state == BUILDING
        assert response.version.counts.documents == 1
        record = await running.registry.version("", "docs", 2)
        assert (record.documents, record.verdict) == (None, None)
        await running.send([document("b")], index_version=2)
        assert (await running.verify(2, begun.fence, expected=2)).passed

    async def test_the_verdict_of_a_ready_one_is_replaced(self, running: Running) -> None:
        await running.create()
        number = await running.built(document("a"), document("b"))
        await damage(running, number)
        response = await running.verify(number)
        assert not response.passed
        assert {fault.kind for fault in response.faults} == {pb.FAULT_KIND_INCOMPLETE}
        assert {fault.source_uri for fault in response.faults} == {"file:///a", "file:///b"}
        assert isinstance(await refusal(running.activate(number)), FailedPrecondition)
        assert (await running.registry.version("", "docs", number)).documents == 0

    async def test_the_active_one_keeps_its_state_and_gets_counts(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        response = await running.verify(0, expected=1)
        assert response.passed
        assert response.version.state == ACTIVE
        assert not response.version.HasField("verdict")
        assert (await running.registry.version("", "docs", 1)).documents == 1
        await damage(running, 1)
        assert not (await running.verify(0)).passed
        assert (await running.describe()).active.version == 1

    async def test_golden_queries_are_not_for_one_that_is_building(self, running: Running) -> None:
        await running.create()
        await running.begin()
        request = pb.VerifyVersionRequest(
            collection="docs",
            index_version=2,
            golden_queries=[pb.GoldenQuery(query="q", expected=["a"])],
        )
        error = await refusal(running.collections.VerifyVersion(request))
        assert isinstance(error, FailedPrecondition)
        assert "build has ended" in error.message


async def test_golden_queries_without_a_query_server_say_so(running: Running) -> None:
    await running.create()
    number = await running.built(document("a"))
    request = pb.VerifyVersionRequest(
        collection="docs",
        index_version=number,
        golden_queries=[pb.GoldenQuery(query="q", expected=["a"])],
    )
    error = await refusal(running.collections.VerifyVersion(request))
    assert isinstance(error, FailedPrecondition)
    assert "query server" in error.message
    assert (await running.activate(number)).changed  # the verdict that it had stands


GOLDEN_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no query": ({"golden_queries": [pb.GoldenQuery(expected=["a"])]}, "golden_queries[0].query"),
    "nothing expected": ({"golden_queries": [pb.GoldenQuery(query="q")]}, "golden_queries[0]"),
    "too many": (
        {"golden_queries": [pb.GoldenQuery(query="q", expected=["a"])] * 2_001},
        "golden_queries",
    ),
    "a high threshold": ({"golden_threshold": 1.5}, "golden_threshold"),
    "no threshold": ({"golden_threshold": float("nan")}, "golden_threshold"),
    "a negative drop": ({"golden_max_drop": -0.1}, "golden_max_drop"),
    "a great depth": ({"golden_depth": 101}, "golden_depth"),
    "a low threshold for no query": (
        {"golden_threshold": -0.5, "golden_queries": []},
        "golden_threshold",
    ),
}


@pytest.mark.parametrize("fault", GOLDEN_FAULTS)
async def test_a_golden_field_out_of_its_bounds_is_named(running: Running, fault: str) -> None:
    fields, field = GOLDEN_FAULTS[fault]
    await running.create()
    begun = await running.begin()
    given = {"golden_queries": [pb.GoldenQuery(query="q", expected=["a"])]} | fields
    request = pb.VerifyVersionRequest(
        collection="docs", index_version=2, fence=begun.fence, **given
    )
    error = await refusal(running.collections.VerifyVersion(request))
    assert isinstance(error, InvalidArgument)
    assert error.message.startswith(field)
    assert (await running.states())[2] == BUILDING
