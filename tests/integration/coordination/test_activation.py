"""What a version must be to be written, verified, activated, rolled back to or given up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    Builds,
    Coordinator,
    IndexRegistry,
    Pointer,
    VersionRecord,
    VersionState,
    build_lock,
)
from common.errors import Contended, FailedPrecondition, InvalidArgument, NotFound
from tests.integration.coordination.versions import (
    CHUNKING,
    EMBEDDER,
    FELL_SHORT,
    PASSED,
    begin,
    built,
    end_lease,
    finish,
    first_version,
)

if TYPE_CHECKING:
    from common.coordination import CollectionState


@pytest.fixture
def registry(coordinator: Coordinator) -> IndexRegistry:
    return IndexRegistry(coordinator)


def check_consistent(state: CollectionState) -> Pointer:
    """One ACTIVE version, and the pointer names it."""
    assert state.active is not None
    active = [one.number for one in state.versions if one.state is VersionState.ACTIVE]
    assert active == [state.active.version]
    return state.active


async def test_a_built_version_becomes_ready_with_counts_and_verdict(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    record, _ = await begin(coordinator)
    ready = await finish(coordinator, record, FELL_SHORT)
    assert (ready.state, ready.documents, ready.chunks) == (VersionState.READY, 3, 7)
    read = await registry.version("", "docs", 2)
    assert read == ready
    assert (read.mod_revision, read.fence) == (ready.mod_revision, record.fence)
    assert read.verdict == FELL_SHORT
    with pytest.raises(FailedPrecondition, match="is ready"):
        await finish(coordinator, ready)
    with pytest.raises(Contended):
        await finish(coordinator, record)


async def test_finishing_needs_the_fence_of_the_builder(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator)
    for fence in (0, build.fence - 1, build.fence + 1):
        with pytest.raises(FailedPrecondition, match="begin another"):
            await registry.finish_build(record, fence, documents=1, chunks=1, verdict=PASSED)
    assert await registry.version("", "docs", 2) == record


async def test_a_verdict_is_replaced_while_ready_and_counts_always(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    ready = await built(coordinator, FELL_SHORT)
    ready = await registry.set_verdict(ready, documents=5, chunks=6, verdict=PASSED)
    assert (ready.verdict, ready.documents, ready.chunks) == (PASSED, 5, 6)
    ready = await registry.set_verdict(ready, documents=7, chunks=8, verdict=None)
    assert (ready.verdict, ready.documents) == (PASSED, 7)
    await registry.activate("", "docs", 2)
    active = await registry.version("", "docs", 0)
    active = await registry.set_verdict(active, documents=9, chunks=9, verdict=FELL_SHORT)
    assert await registry.version("", "docs", 2) == active
    assert (active.state, active.verdict, active.documents) == (VersionState.ACTIVE, PASSED, 9)


async def test_a_version_that_fell_short_is_activated_by_force_alone(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    pointer = await first_version(coordinator)
    ready = await built(coordinator, FELL_SHORT)
    with pytest.raises(
        FailedPrecondition, match=r"fell short.*golden queries: 0.25 of 0.9 and 1 more.*force"
    ):
        await registry.activate("", "docs", 2, requested_by="kim@host")
    assert await registry.pointer("", "docs") == pointer
    assert await registry.version("", "docs", 2) == ready
    with pytest.raises(InvalidArgument, match="requested_by"):
        await registry.activate("", "docs", 2, force=True)
    moved, changed = await registry.activate("", "docs", 2, force=True, requested_by="kim@host")
    assert (moved.version, changed) == (2, True)
    active = await registry.version("", "docs", 2)
    assert active.forced is not None
    assert (active.forced.by, active.forced.at) == ("kim@host", moved.activated_at)
    # what was active once needs no force to be so again, and keeps who forced it
    await registry.roll_back("", "docs")
    await registry.roll_back("", "docs")
    again = await registry.version("", "docs", 0)
    assert (again.number, again.forced) == (2, active.forced)


async def test_force_that_was_not_needed_names_nobody(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    await built(coordinator)
    await registry.activate("", "docs", 2, force=True, requested_by="kim@host")
    assert (await registry.version("", "docs", 2)).forced is None


async def test_a_version_is_retired_from_when_to_when(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    await built(coordinator)
    moved, _ = await registry.activate("", "docs", 2)
    retired = await registry.version("", "docs", 1)
    assert (retired.state, retired.retired_at) == (VersionState.RETIRED, moved.activated_at)
    await registry.roll_back("", "docs")
    assert (await registry.version("", "docs", 1)).retired_at is None
    await registry.delete_pointer("", "docs")
    assert (await registry.version("", "docs", 1)).retired_at is not None


async def test_a_builder_swaps_by_its_fence_and_again_changes_nothing(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    record, build = await begin(coordinator)
    with pytest.raises(FailedPrecondition, match="building"):
        await registry.activate("", "docs", 2, fence=build.fence)
    await finish(coordinator, record)
    for fence in (build.fence - 1, build.fence + 1):
        with pytest.raises(FailedPrecondition, match="build of version 2"):
            await registry.activate("", "docs", 2, fence=fence)
    pointer, changed = await registry.activate("", "docs", 2, fence=build.fence)
    assert changed
    assert await registry.activate("", "docs", 2, fence=build.fence) == (pointer, False)
    assert await Builds(coordinator).end("", "docs", 2, build.fence, reason="") is not None
    assert check_consistent(await registry.collection("", "docs")) == pointer


async def test_an_operator_moves_the_pointer_while_a_build_goes_on(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    await built(coordinator)
    record, build = await begin(coordinator)
    await registry.activate("", "docs", 2)
    await registry.roll_back("", "docs")
    await registry.activate("", "docs", 2)
    assert await registry.check_writable(record) == record
    await finish(coordinator, record)
    pointer, changed = await registry.activate("", "docs", 3, fence=build.fence)
    assert (pointer.version, pointer.previous_version, changed) == (3, 2, True)
    check_consistent(await registry.collection("", "docs"))


async def test_of_two_racing_activations_one_wins_or_both_in_turn(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    await built(coordinator)
    record, build = await begin(coordinator)
    await finish(coordinator, record)
    for _ in range(10):
        before = check_consistent(await registry.collection("", "docs"))
        results = await asyncio.gather(
            registry.activate("", "docs", 2),
            registry.activate("", "docs", 3, fence=build.fence),
            return_exceptions=True,
        )
        moved = [one for one in results if not isinstance(one, BaseException) and one[1]]
        assert all(isinstance(one, tuple | Contended) for one in results)
        after = check_consistent(await registry.collection("", "docs"))
        assert after.generation == before.generation + len(moved)
        assert moved


async def test_rolling_back_to_a_version_by_number(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    for number in (2, 3):
        await built(coordinator)
        await registry.activate("", "docs", number)
    await built(coordinator)
    with pytest.raises(FailedPrecondition, match=r"version 4 .*is ready.*activate this one"):
        await registry.roll_back("", "docs", to_version=4)
    with pytest.raises(NotFound, match="no version 9"):
        await registry.roll_back("", "docs", to_version=9)
    assert (await registry.roll_back("", "docs", to_version=1)).version == 1
    assert (await registry.roll_back("", "docs", to_version=1)).generation == 4
    # the last one that was active before, whatever its number
    assert (await registry.roll_back("", "docs")).version == 3
    check_consistent(await registry.collection("", "docs"))


async def test_rolling_back_passes_over_what_is_no_longer_kept(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    for number in (2, 3):
        await built(coordinator)
        await registry.activate("", "docs", number)
    await registry.fail(await registry.version("", "docs", 2), "deleted")
    with pytest.raises(FailedPrecondition, match="is failed"):
        await registry.roll_back("", "docs", to_version=2)
    assert (await registry.roll_back("", "docs")).version == 1


async def test_a_failed_version_says_why_and_stays_failed(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    ready = await built(coordinator)
    failed = await registry.fail(ready, "deleted by kim@host")
    assert failed == await registry.version("", "docs", 2)
    assert (failed.state, failed.failure) == (VersionState.FAILED, "deleted by kim@host")
    assert failed.retired_at is not None
    assert await registry.fail(failed, "again") == failed
    with pytest.raises(FailedPrecondition, match=r"failed .deleted by kim@host"):
        await registry.activate("", "docs", 2, force=True, requested_by="kim@host")
    with pytest.raises(Contended):
        await registry.fail(ready, "stale")
    with pytest.raises(FailedPrecondition, match="active"):
        await registry.fail(await registry.version("", "docs", 1), "no")


async def test_what_is_being_built_is_neither_failed_nor_deleted(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    record, _ = await begin(coordinator)
    with pytest.raises(FailedPrecondition, match="being built"):
        await registry.fail(record, "no")
    with pytest.raises(FailedPrecondition, match="being built"):
        await registry.delete_version(record)
    await end_lease(coordinator, build_lock("", "docs"))
    failed = await registry.fail(record, "abandoned")
    await registry.delete_version(failed)
    with pytest.raises(NotFound):
        await registry.version("", "docs", 2)


async def test_writes_are_taken_while_active_and_refused_once_retired(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    active = await registry.version("", "docs", 0)
    assert await registry.check_writable(active) == active
    counted = await registry.set_verdict(active, documents=1, chunks=1, verdict=None)
    checked = await registry.check_writable(active)
    assert (checked, checked.mod_revision) == (counted, counted.mod_revision)
    await built(coordinator)
    await registry.activate("", "docs", 2)
    with pytest.raises(FailedPrecondition, match=r"version 1 .*retired; version 2 is active"):
        await registry.check_writable(counted)
    await registry.roll_back("", "docs")
    assert (await registry.check_writable(counted)).state is VersionState.ACTIVE


async def test_writes_are_refused_to_all_other_versions(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)
    record, _ = await begin(coordinator)
    assert await registry.check_writable(record) == record
    ready = await finish(coordinator, record)
    for known in (record, ready):
        with pytest.raises(FailedPrecondition, match=r"version 2 .*verified .*version 1 is active"):
            await registry.check_writable(known)
    with pytest.raises(NotFound, match="version 9"):
        await registry.check_writable(replace(ready, number=9))
    begun = await registry.begin_version("", "other", EMBEDDER, CHUNKING)
    with pytest.raises(FailedPrecondition, match="build of version 1"):
        await registry.check_writable(begun)


async def test_checking_what_takes_writes_is_one_exchange_that_writes_nothing(
    coordinator: Coordinator,
) -> None:
    await first_version(coordinator)
    record, _ = await begin(coordinator)
    before = (await coordinator.list("a")).revision
    counting = Counting(coordinator)
    active = await IndexRegistry(coordinator).version("", "docs", 0)
    for known in (record, active):
        await IndexRegistry(counting).check_writable(known)  # type: ignore[arg-type]  # by __getattr__
    assert counting.calls == ["transact", "transact"]
    assert (await coordinator.list("a")).revision == before


class Counting:
    """A coordinator that notes what it is asked."""

    def __init__(self, inner: Coordinator) -> None:
        self._inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.calls.append(name)
        return getattr(self._inner, name)


async def test_a_version_that_changes_again_and_again_is_contended(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await first_version(coordinator)

    class Changing(Counting):
        async def transact(self, conditions, operations):
            known = await registry.version("", "docs", 0)
            await registry.set_verdict(known, documents=1, chunks=1, verdict=None)
            return await coordinator.transact(conditions, operations)

    restless = IndexRegistry(Changing(coordinator))  # type: ignore[arg-type]  # by __getattr__
    known: VersionRecord = await registry.version("", "docs", 0)
    with pytest.raises(Contended):
        await restless.check_writable(known)


async def test_a_first_version_takes_no_other_ones_place(coordinator: Coordinator) -> None:
    registry = IndexRegistry(coordinator)
    records = [await registry.begin_version("", "docs", EMBEDDER, CHUNKING) for _ in range(2)]
    one, other = [
        await registry.set_state(record, VersionState.READY, documents=0, chunks=0)
        for record in records
    ]
    await registry.activate_first(one)
    await registry.activate_first(one)
    with pytest.raises(Contended, match="version 1 of collection docs was activated"):
        await registry.activate_first(other)
    state = await registry.collection("", "docs")
    assert state.active is not None
    assert (state.active.version, state.active.generation) == (1, 1)
    assert [record.state for record in state.versions] == [VersionState.ACTIVE, VersionState.READY]
