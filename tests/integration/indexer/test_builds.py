"""Building a version under its lock: begin, renew, verify, end, and what a lost lock keeps out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from common.coordination import Builds
from common.errors import Contended, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sluice.collections.v1 import collections_pb2 as pb
from tests.integration.indexer.conftest import document, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.indexer.conftest import Running

BUILDING, READY, ACTIVE, RETIRED, FAILED = (
    pb.VERSION_STATE_BUILDING,
    pb.VERSION_STATE_READY,
    pb.VERSION_STATE_ACTIVE,
    pb.VERSION_STATE_RETIRED,
    pb.VERSION_STATE_FAILED,
)


async def renew(running: Running, number: int, fence: int, **progress: Any) -> None:
    await running.collections.RenewBuild(
        pb.RenewBuildRequest(collection="docs", index_version=number, fence=fence, **progress)
    )


class TestBeginning:
    async def test_gives_a_fence_and_shows_who_builds(self, running: Running) -> None:
        await running.create()
        begun = await running.begin("user@host, process 7")
        assert (begun.version.number, begun.version.state) == (2, BUILDING)
        assert begun.fence == begun.version.fence > 0
        assert begun.ttl_s == 15
        described = await running.describe()
        assert (described.build.version, described.build.ttl_s) == (2, 15)
        assert described.build.builder == "user@host, process 7"
        assert described.versions[1].builder == "user@host, process 7"
        assert described.versions[1].fence == begun.fence
        assert "default.docs.v000002" in await running.chroma.collections()

    async def test_one_builds_at_a_time_and_the_other_is_told_who(
        self, pair: tuple[Running, Running]
    ) -> None:
        one, another = pair
        await one.create()
        begun = await one.begin("the first")
        error = await refusal(another.begin("the second"))
        assert isinstance(error, Contended)
        assert "the first" in error.message
        assert error.retry_after_ms == 15_000
        await another.end(2, begun.fence)
        assert (await another.begin("the second")).version.number == 3

    async def test_an_unnamed_builder_is_told_by_its_address(self, running: Running) -> None:
        await running.create()
        begun = await running.begin("")
        assert begun.version.builder.startswith("ipv4:127.0.0.1:")

    async def test_needs_a_collection(self, running: Running) -> None:
        assert isinstance(await refusal(running.begin()), NotFound)

    async def test_without_a_store_the_build_is_ended(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(name: str) -> None:
            raise Unavailable(f"{name} cannot be made now")

        await running.create()
        with monkeypatch.context() as broken:
            broken.setattr(running.chroma, "create_collection", fail)
            assert isinstance(await refusal(running.begin()), Unavailable)
        described = await running.describe()
        assert not described.HasField("build")
        assert described.versions[1].state == FAILED
        assert described.versions[1].failure == "its store could not be made"
        assert (await running.begin()).version.number == 3


async def test_progress_is_seen_while_it_builds(pair: tuple[Running, Running]) -> None:
    one, another = pair
    await one.create()
    begun = await one.begin()
    await renew(another, 2, begun.fence, documents=70, chunks=900, documents_per_s=12.5)
    build = (await one.describe()).build
    assert (build.documents, build.chunks, build.documents_per_s) == (70, 900, 12.5)
    assert build.reported_at.ToNanoseconds() > build.since.ToNanoseconds()
    (listed,) = (await one.collections.ListCollections(pb.ListCollectionsRequest())).collections
    assert listed.build.documents == 70


FAULTS: dict[str, tuple[Callable[[Running], Any], str]] = {
    "a long builder": (lambda r: r.begin("b" * 257), "builder"),
    "a builder of two lines": (lambda r: r.begin("a\nb"), "builder"),
    "a short time to live": (
        lambda r: r.collections.BeginVersion(pb.BeginVersionRequest(collection="docs", ttl_s=1)),
        "ttl_s",
    ),
    "a long time to live": (
        lambda r: r.collections.BeginVersion(pb.BeginVersionRequest(collection="docs", ttl_s=601)),
        "ttl_s",
    ),
    "renewing no version": (lambda r: renew(r, 0, 1), "index_version"),
    "renewing without a fence": (lambda r: renew(r, 1, 0), "fence"),
    "a negative rate": (lambda r: renew(r, 1, 1, documents_per_s=-1.0), "documents_per_s"),
    "an infinite rate": (lambda r: renew(r, 1, 1, documents_per_s=float("inf")), "documents_per_s"),
    "no rate": (lambda r: renew(r, 1, 1, documents_per_s=float("nan")), "documents_per_s"),
    "ending no version": (lambda r: r.end(0, 1), "index_version"),
    "ending without a fence": (lambda r: r.end(1, 0), "fence"),
    "verifying with a negative fence": (lambda r: r.verify(1, -1), "fence"),
    "activating no version": (lambda r: r.activate(0), "index_version"),
    "activating with a negative fence": (lambda r: r.activate(1, -1), "fence"),
    "forcing for nobody": (lambda r: r.activate(1, force=True), "requested_by"),
    "a long requester": (lambda r: r.activate(1, requested_by="é" * 129), "requested_by"),
    "deleting no version": (lambda r: r.delete(0), "index_version"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_field_out_of_its_bounds_is_named(running: Running, fault: str) -> None:
    call, field = FAULTS[fault]
    await running.create()
    error = await refusal(call(running))
    assert isinstance(error, InvalidArgument)
    assert error.message.startswith(f"{field}: ")
    assert await running.states() == {1: ACTIVE}


class TestALostLock:
    async def test_keeps_the_frozen_builder_out_and_the_index_is_the_seconds(
        self, pair: tuple[Running, Running]
    ) -> None:
        one, another = pair
        await one.create()
        first = await one.begin("the first")
        stream = await one.opened(2)
        await stream.send(document("a"))
        await one.lose_build_lock(2)
        second = await another.begin("the second")
        assert second.fence > first.fence
        await another.send([document("b")], index_version=3)

        # The first wakes up.
        error = await refusal(stream.send(document("c")))
        assert isinstance(error, FailedPrecondition)
        assert "version 1 is active" in error.message
        assert isinstance(await refusal(renew(one, 2, first.fence)), FailedPrecondition)
        assert isinstance(await refusal(one.verify(2, first.fence)), FailedPrecondition)
        assert isinstance(await refusal(one.activate(2, first.fence)), FailedPrecondition)
        assert isinstance(await refusal(one.activate(3, first.fence)), FailedPrecondition)
        assert (await one.end(2, first.fence)).version.state == FAILED

        assert (await another.verify(3, second.fence, expected=1)).passed
        assert isinstance(await refusal(one.activate(3, first.fence)), FailedPrecondition)
        assert (await another.activate(3, second.fence)).changed
        await another.end(3, second.fence)
        assert await one.listed() == {"file:///b": 1}
        assert await one.states() == {1: RETIRED, 2: FAILED, 3: ACTIVE}

    async def test_refuses_writes_deletions_and_the_swap_though_nobody_took_over(
        self, running: Running
    ) -> None:
        await running.create()
        begun = await running.begin()
        stream = await running.opened(2)
        await stream.send(document("a"))
        await running.lose_build_lock(2)
        error = await refusal(stream.send(document("b")))
        assert isinstance(error, FailedPrecondition)
        assert "begin another version" in error.message
        assert isinstance(await refusal(running.opened(2)), FailedPrecondition)
        assert isinstance(await refusal(running.verify(2, begun.fence)), FailedPrecondition)
        assert await running.states() == {1: ACTIVE, 2: BUILDING}
        assert set(await running.listed(index_version=2)) == {"file:///a"}

    async def test_after_the_verification_refuses_the_swap(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        assert (await running.verify(2, begun.fence)).passed
        await running.lose_build_lock(2)
        assert isinstance(await refusal(running.activate(2, begun.fence)), FailedPrecondition)
        assert (await running.activate(2)).changed  # an operator may


class TestEnding:
    async def test_an_unverified_version_has_failed_for_the_reason(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        stream = await running.opened(2)
        request = pb.EndBuildRequest(
            collection="docs", index_version=2, fence=begun.fence, reason="the disk\nis full"
        )
        ended = (await running.collections.EndBuild(request)).version
        assert (ended.state, ended.failure) == (FAILED, "the disk is full")
        assert not (await running.describe()).HasField("build")
        error = await refusal(stream.send(document("a")))
        assert isinstance(error, FailedPrecondition)
        assert "the disk is full" in error.message
        assert isinstance(await refusal(running.verify(2, begun.fence)), FailedPrecondition)

    async def test_a_verified_one_stays(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        await running.verify(2, begun.fence)
        assert (await running.end(2, begun.fence)).version.state == READY
        assert (await running.end(2, begun.fence)).version.state == READY

    async def test_of_a_lost_build_changes_nothing(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        await running.lose_build_lock(2)
        assert (await running.end(2, begun.fence)).version.state == BUILDING
        taken = await running.begin()
        assert (await running.end(2, begun.fence)).version.state == FAILED
        assert (await Builds(running.coordinator).current("", "docs")) is not None
        assert (await running.states())[taken.version.number] == BUILDING
