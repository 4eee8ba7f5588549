"""Builds on both coordinators: one at a time, and nothing from a builder whose lock is gone."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    Builds,
    Coordinator,
    CoordinatorSettings,
    Delete,
    IndexRegistry,
    Put,
    VersionRecord,
    VersionState,
    build_lock,
    open_coordinator,
)
from common.coordination.builds import MAX_ABANDONED
from common.errors import Contended, FailedPrecondition, InvalidArgument, NotFound
from tests.integration.coordination.versions import (
    CHUNKING,
    EMBEDDER,
    begin,
    built,
    end_lease,
    finish,
    first_version,
    renew,
)
from tests.integration.coordination.waiting import following

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from common.coordination import Build, Lease
    from tests.integration.etcd import Etcd

LOCK = build_lock("", "docs")


async def test_a_version_and_its_lock_begin_at_one_revision(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator, "host a, process 7, job j1")
    assert (record.number, record.state) == (2, VersionState.BUILDING)
    assert record.builder == build.builder == "host a, process 7, job j1"
    assert (build.version, build.ttl_s, build.documents) == (2, 60, 0)
    lock = await coordinator.get(LOCK)
    stored = await coordinator.get("collections/default/docs/versions/2")
    assert lock is not None
    assert stored is not None
    assert build.fence == record.fence == lock.create_revision == stored.create_revision
    assert (lock.lease, stored.lease) == (build.lease, 0)
    assert "fence" not in json.loads(stored.value)
    state = await IndexRegistry(coordinator).collection("", "docs")
    assert state.build == build == await Builds(coordinator).current("", "docs")
    assert state.versions[1] == record
    assert state.versions[1].fence == record.fence
    listed = await IndexRegistry(coordinator).collections("")
    assert listed == (state,) == await IndexRegistry(coordinator).all_collections()


async def test_another_builder_is_told_who_builds_and_when_to_come_back(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    _, build = await begin(coordinator, "host a, process 7", ttl_s=30)
    before = await coordinator.list("collections/")
    with pytest.raises(Contended, match=r"version 2 .*host a, process 7 since 20.* 30 s") as caught:
        await begin(coordinator, "host b")
    assert caught.value.retry_after_ms == 30_000
    assert (await coordinator.list("collections/")).entries == before.entries
    await first_version(coordinator, "other")
    await Builds(coordinator).begin("", "other", EMBEDDER, CHUNKING, builder="b")
    assert await Builds(coordinator).current("", "docs") == build


async def test_of_many_at_once_one_begins(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    begun = await asyncio.gather(
        *(begin(coordinator, f"builder {n}") for n in range(8)), return_exceptions=True
    )
    won = [one for one in begun if not isinstance(one, BaseException)]
    assert len(won) == 1
    assert sum(isinstance(one, Contended) for one in begun) == 7
    versions = (await IndexRegistry(coordinator).collection("", "docs")).versions
    assert [record.number for record in versions] == [1, 2]
    assert versions[1].builder == won[0][0].builder


async def test_only_a_collection_that_exists_is_built(coordinator: Coordinator) -> None:
    with pytest.raises(NotFound, match="no collection docs"):
        await begin(coordinator)
    with pytest.raises(InvalidArgument):
        await Builds(coordinator).begin("", "a/b", EMBEDDER, CHUNKING, builder="a")
    assert (await coordinator.list("locks/")).entries == ()


async def test_renewing_keeps_the_lock_and_says_how_far_it_is(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator, ttl_s=1)
    other = await coordinator.grant_lease(4)
    start = (await coordinator.transact([], [Put("other", b"", other.id)])).revision
    async with following(coordinator.watch("other", after_revision=start)) as follower:
        waiting, documents, renewed = asyncio.create_task(follower.until_count(1)), 0, build
        while not waiting.done():
            documents += 1
            renewed = await Builds(coordinator).renew(
                "", "docs", 2, build.fence, documents=documents, chunks=9, documents_per_s=2.5
            )
            await asyncio.wait([waiting], timeout=build.ttl_s / 5)  # the pace of renewal
        await waiting
    assert documents > 5
    assert (renewed.documents, renewed.chunks, renewed.documents_per_s) == (documents, 9, 2.5)
    assert renewed.reported_at > build.since == renewed.since
    assert await Builds(coordinator).current("", "docs") == renewed
    assert await IndexRegistry(coordinator).check_writable(record) == record


async def test_another_process_renews_by_the_lock_alone(etcd: Etcd) -> None:
    settings = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), prefix="/test/renew")
    one, other = open_coordinator(settings), open_coordinator(settings)
    try:
        await first_version(one)
        _, build = await begin(one, ttl_s=60)
        await one.aclose()
        renewed = await renew(other, build)
        assert (renewed.fence, renewed.lease) == (build.fence, build.lease)
    finally:
        await one.aclose()
        await other.aclose()


async def lease_ends(coordinator: Coordinator) -> None:
    await end_lease(coordinator, LOCK)


async def key_is_deleted(coordinator: Coordinator) -> None:
    await coordinator.transact([], [Delete(LOCK)])


async def another_builds(coordinator: Coordinator) -> None:
    await end_lease(coordinator, LOCK)
    await begin(coordinator, "the next one")


@pytest.mark.parametrize("loss", [lease_ends, key_is_deleted, another_builds])
async def test_a_builder_that_lost_its_lock_changes_nothing_any_more(
    coordinator: Coordinator, loss: Callable[[Coordinator], Awaitable[None]]
) -> None:
    pointer = await first_version(coordinator)
    registry, builds = IndexRegistry(coordinator), Builds(coordinator)
    record, build = await begin(coordinator)
    assert await registry.check_writable(record) == record
    await loss(coordinator)
    before = await coordinator.list("collections/"), await builds.current("", "docs")
    with pytest.raises(FailedPrecondition, match=r"version 2 .*begin another"):
        await renew(coordinator, build)
    with pytest.raises(FailedPrecondition, match="version 2"):
        await registry.check_writable(record)
    with pytest.raises((FailedPrecondition, Contended), match="version 2"):
        await finish(coordinator, record)
    with pytest.raises(FailedPrecondition, match="version 2"):
        await registry.activate("", "docs", 2, fence=build.fence)
    ended = await builds.end("", "docs", 2, build.fence, reason="late")
    assert ended == await registry.version("", "docs", 2)
    assert before == (await coordinator.list("collections/"), await builds.current("", "docs"))
    assert await registry.pointer("", "docs") == pointer


async def test_a_finished_version_is_not_swapped_by_a_builder_that_lost_its_lock(
    coordinator: Coordinator,
) -> None:
    pointer = await first_version(coordinator)
    registry = IndexRegistry(coordinator)
    record, build = await begin(coordinator)
    await finish(coordinator, record)
    await end_lease(coordinator, LOCK)
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=r"build of version 2 .*over"):
            await registry.activate("", "docs", 2, fence=build.fence)
        assert await registry.pointer("", "docs") == pointer
        _, other = await begin(coordinator, "the next one")
        with pytest.raises(FailedPrecondition, match="build of version 2"):
            await registry.activate("", "docs", 2, fence=other.fence)
        await Builds(coordinator).end("", "docs", other.version, other.fence, reason="stop")
    # an operator, who needs no lock, may still want it
    moved, changed = await registry.activate("", "docs", 2)
    assert (moved.version, changed) == (2, True)


async def test_the_next_beginning_fails_what_was_abandoned(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    abandoned, _ = await begin(coordinator)
    await end_lease(coordinator, LOCK)
    record, _ = await begin(coordinator, "the next one")
    assert record.number == 3
    versions = (await IndexRegistry(coordinator).collection("", "docs")).versions
    assert [one.state for one in versions] == [
        VersionState.ACTIVE,
        VersionState.FAILED,
        VersionState.BUILDING,
    ]
    assert "abandoned" in versions[1].failure
    assert versions[1].retired_at is not None
    assert versions[1].fence == abandoned.fence
    with pytest.raises(FailedPrecondition, match=r"version 2 .*failed .*abandoned"):
        await IndexRegistry(coordinator).check_writable(abandoned)


async def test_more_abandoned_versions_than_one_transaction_takes_are_left(
    coordinator: Coordinator,
) -> None:
    registry = IndexRegistry(coordinator)
    await first_version(coordinator)
    for _ in range(MAX_ABANDONED + 2):
        await registry.begin_version("", "docs", EMBEDDER, CHUNKING)
    await begin(coordinator)
    versions = (await registry.collection("", "docs")).versions
    left = [one.number for one in versions if one.state is VersionState.BUILDING]
    assert left == [MAX_ABANDONED + 2, MAX_ABANDONED + 3, MAX_ABANDONED + 4]


async def test_a_first_version_in_the_making_is_not_taken_for_abandoned(
    coordinator: Coordinator,
) -> None:
    registry = IndexRegistry(coordinator)
    first = await registry.begin_version("", "docs", EMBEDDER, CHUNKING)
    await begin(coordinator)
    await registry.set_state(first, VersionState.READY)
    assert (await registry.activate("", "docs", 1))[1]


async def test_giving_up_fails_the_version_and_frees_the_lock(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator)
    failed = await Builds(coordinator).end("", "docs", 2, build.fence, reason="the disk is full")
    assert failed is not None
    assert (failed.state, failed.failure) == (VersionState.FAILED, "the disk is full")
    assert failed == await IndexRegistry(coordinator).version("", "docs", 2)
    assert await coordinator.get(LOCK) is None
    assert not await coordinator.lease(build.lease, 1).keep_alive()
    assert await Builds(coordinator).end("", "docs", 2, build.fence, reason="again") == failed
    again, _ = await begin(coordinator)
    assert again.number == record.number + 1


async def test_ending_leaves_a_verified_version_as_it_is(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    ready = await built(coordinator)
    assert ready.state is VersionState.READY
    assert ready == await IndexRegistry(coordinator).version("", "docs", 2)
    assert await coordinator.get(LOCK) is None


async def test_ending_with_another_fence_ends_nothing(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator)
    builds = Builds(coordinator)
    assert await builds.end("", "docs", 2, build.fence - 1, reason="x") == record
    assert (await builds.end("", "docs", 1, build.fence, reason="x")) is not None
    assert await builds.end("", "docs", 9, build.fence, reason="x") is None
    assert await builds.current("", "docs") == build


async def test_deleting_a_collection_ends_its_build(coordinator: Coordinator) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator)
    await IndexRegistry(coordinator).delete_collection("", "docs")
    with pytest.raises(FailedPrecondition, match="version 2"):
        await renew(coordinator, build)
    with pytest.raises(NotFound):
        await IndexRegistry(coordinator).check_writable(record)
    assert await Builds(coordinator).end("", "docs", 2, build.fence, reason="x") is None


class Interposed:
    """A coordinator before whose first transaction someone else does something."""

    def __init__(self, inner: Coordinator, meddle: Callable[[], Awaitable[object]]) -> None:
        self._inner = inner
        self._meddle: Callable[[], Awaitable[object]] | None = meddle

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def transact(self, conditions, operations):
        meddle, self._meddle = self._meddle, None
        if meddle is not None:
            await meddle()
        return await self._inner.transact(conditions, operations)


@pytest.mark.parametrize("state", [VersionState.ACTIVE, VersionState.BUILDING])
async def test_a_collection_deleted_meanwhile_is_not_brought_back(
    coordinator: Coordinator, state: VersionState
) -> None:
    registry = IndexRegistry(coordinator)
    if state is VersionState.ACTIVE:
        await first_version(coordinator)
    else:
        await registry.begin_version("", "docs", EMBEDDER, CHUNKING)
    meddled: Coordinator = Interposed(  # type: ignore[assignment]  # the rest by __getattr__
        coordinator, lambda: registry.delete_collection("", "docs")
    )
    with pytest.raises(NotFound, match="docs"):
        await begin(meddled)
    with pytest.raises(NotFound, match="docs"):
        await registry.collection("", "docs")
    assert (await coordinator.list("locks/")).entries == ()


async def test_an_activation_meanwhile_does_not_hinder_a_beginning(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    await built(coordinator)
    registry = IndexRegistry(coordinator)
    meddled: Coordinator = Interposed(  # type: ignore[assignment]  # the rest by __getattr__
        coordinator, lambda: registry.activate("", "docs", 2)
    )
    record, _ = await begin(meddled)
    assert record.number == 3


async def test_a_lease_that_ends_while_it_is_renewed_is_a_lost_lock(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    _, build = await begin(coordinator)
    meddled: Coordinator = Interposed(  # type: ignore[assignment]  # the rest by __getattr__
        coordinator, lambda: end_lease(coordinator, LOCK)
    )
    with pytest.raises(FailedPrecondition, match="build of version 2"):
        await renew(meddled, build)
    assert await coordinator.get(LOCK) is None


async def test_a_lock_that_changes_hands_while_it_is_renewed_stays_with_the_other(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    _, build = await begin(coordinator)
    others: list[Build] = []

    async def changes_hands() -> None:
        await key_is_deleted(coordinator)
        others.append((await begin(coordinator, "the next one"))[1])

    meddled: Coordinator = Interposed(coordinator, changes_hands)  # type: ignore[assignment]  # the rest by __getattr__
    with pytest.raises(FailedPrecondition, match="build of version 2"):
        await renew(meddled, build)
    assert [await Builds(coordinator).current("", "docs")] == others


async def test_a_lease_that_ends_before_the_lock_is_put_is_asked_for_anew(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    granted: list[Lease] = []

    class Noting(Interposed):
        async def grant_lease(self, ttl_s: int) -> Lease:
            granted.append(await coordinator.grant_lease(ttl_s))
            return granted[-1]

    async def ends() -> None:
        await granted[-1].revoke()

    meddled: Coordinator = Noting(coordinator, ends)  # type: ignore[assignment]  # the rest by __getattr__
    record, build = await begin(meddled)
    assert (record.number, build.lease) == (2, granted[1].id)
    assert (await renew(coordinator, build)).fence == record.fence


async def test_a_version_verified_while_its_build_ends_is_not_failed(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator)
    meddled: Coordinator = Interposed(  # type: ignore[assignment]  # the rest by __getattr__
        coordinator, lambda: finish(coordinator, record)
    )
    ended: VersionRecord | None = await Builds(meddled).end(
        "", "docs", 2, build.fence, reason="stopped"
    )
    assert ended is not None
    assert ended.state is VersionState.READY
    assert await coordinator.get(LOCK) is None
