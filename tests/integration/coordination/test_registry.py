"""The index registry, on both coordinators."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    Coordinator,
    Delete,
    DeletePrefix,
    IndexRegistry,
    Put,
    VersionRecord,
    VersionState,
)
from common.coordination.codec import UnreadableRecord
from common.errors import Contended, FailedPrecondition, InvalidArgument, NotFound
from tests.integration.coordination.versions import CHUNKING, begin, end_lease, first_version
from tests.integration.coordination.waiting import following

if TYPE_CHECKING:
    from common.embedding import EmbedderSpec


@pytest.fixture
def registry(coordinator: Coordinator) -> IndexRegistry:
    return IndexRegistry(coordinator)


async def ready(registry: IndexRegistry, embedder: EmbedderSpec, name: str) -> VersionRecord:
    record = await registry.begin_version("", name, embedder, CHUNKING)
    return await registry.set_state(record, VersionState.READY, documents=3, chunks=7)


async def test_a_begun_version_is_read_back_whole(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    begun = await registry.begin_version("acme", "docs", embedder, CHUNKING)
    assert begun.number == 1
    assert begun.state is VersionState.BUILDING
    assert begun.store_collection == "acme.docs.v000001"
    assert abs(datetime.now(UTC) - begun.created_at) < timedelta(minutes=1)
    read = await registry.version("acme", "docs", 1)
    assert read == begun
    assert read.mod_revision == begun.mod_revision
    assert (read.documents, read.chunks, read.activated_at) == (None, None, None)


async def test_states_and_counts_are_written(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    record = await ready(registry, embedder, "docs")
    assert (record.documents, record.chunks) == (3, 7)
    failed = await registry.set_state(record, VersionState.FAILED)
    assert await registry.version("", "docs", 1) == failed
    assert (failed.state, failed.documents) == (VersionState.FAILED, 3)


async def test_activation_moves_the_pointer_and_both_states(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    await ready(registry, embedder, "docs")
    first, changed = await registry.activate("", "docs", 1)
    assert changed
    assert (first.version, first.generation, first.previous_version) == (1, 1, 0)
    assert first.embedder == embedder
    await ready(registry, replace(embedder, variant="fp32"), "docs")
    second, changed = await registry.activate("", "docs", 2)
    assert changed
    assert (second.version, second.generation, second.previous_version) == (2, 2, 1)
    assert second.embedder.variant == "fp32"
    assert second.store_collection == "default.docs.v000002"
    state = await registry.collection("", "docs")
    assert state.active == second == await registry.pointer("", "docs")
    assert [version.state for version in state.versions] == [
        VersionState.RETIRED,
        VersionState.ACTIVE,
    ]
    assert state.versions[1].activated_at == second.activated_at
    assert await registry.version("", "docs", 0) == state.versions[1]


async def test_activating_the_active_version_changes_nothing(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    await ready(registry, embedder, "docs")
    pointer, _ = await registry.activate("", "docs", 1)
    before = await registry.version("", "docs", 1)
    assert await registry.activate("", "docs", 1) == (pointer, False)
    assert (await registry.version("", "docs", 1)).mod_revision == before.mod_revision


@pytest.mark.parametrize("state", [VersionState.BUILDING, VersionState.FAILED])
async def test_an_unfinished_version_is_not_activated(
    registry: IndexRegistry, embedder: EmbedderSpec, state: VersionState
) -> None:
    record = await registry.begin_version("", "docs", embedder, CHUNKING)
    await registry.set_state(record, state)
    with pytest.raises(FailedPrecondition, match=state.value):
        await registry.activate("", "docs", 1)
    assert await registry.pointer("", "docs") is None


async def test_rolling_back_activates_the_version_before(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    for number in (1, 2):
        await ready(registry, embedder, "docs")
        await registry.activate("", "docs", number)
    back = await registry.roll_back("", "docs")
    assert (back.version, back.generation, back.previous_version) == (1, 3, 2)
    forth = await registry.roll_back("", "docs")
    assert (forth.version, forth.generation) == (2, 4)


async def test_rolling_back_needs_a_version_that_is_kept(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    with pytest.raises(NotFound, match="docs"):
        await registry.roll_back("", "docs")
    await ready(registry, embedder, "docs")
    with pytest.raises(FailedPrecondition):
        await registry.roll_back("", "docs")
    await registry.activate("", "docs", 1)
    with pytest.raises(FailedPrecondition):
        await registry.roll_back("", "docs")
    await ready(registry, embedder, "docs")
    await registry.activate("", "docs", 2)
    await registry.delete_version(await registry.version("", "docs", 1))
    with pytest.raises(FailedPrecondition):
        await registry.roll_back("", "docs")


class Interposed:
    """A coordinator between whose reading and writing someone else writes."""

    def __init__(self, inner: Coordinator, meddle: Put | Delete | DeletePrefix) -> None:
        self._inner = inner
        self._meddle = meddle

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def transact(self, conditions, operations):
        await self._inner.transact([], [self._meddle])
        return await self._inner.transact(conditions, operations)


@pytest.mark.parametrize("moved", ["active", "versions/1", "versions/2"])
async def test_a_lost_race_changes_nothing_and_says_so(
    coordinator: Coordinator, registry: IndexRegistry, embedder: EmbedderSpec, moved: str
) -> None:
    for number in (1, 2):
        await ready(registry, embedder, "docs")
        if number == 1:
            await registry.activate("", "docs", 1)
    entry = await coordinator.get(f"collections/default/docs/{moved}")
    assert entry is not None
    meddled: Coordinator = Interposed(coordinator, Put(entry.key, entry.value))  # type: ignore[assignment]  # the rest by __getattr__
    with pytest.raises(Contended) as caught:
        await IndexRegistry(meddled).activate("", "docs", 2)
    assert caught.value.retry_after_ms is not None
    pointer = await registry.pointer("", "docs")
    assert pointer is not None
    assert pointer.version == 1
    assert (await registry.version("", "docs", 2)).state is VersionState.READY


async def test_of_concurrent_activations_the_pointer_follows_the_winners(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    for _ in range(6):
        await ready(registry, embedder, "docs")
    results = await asyncio.gather(
        *(registry.activate("", "docs", number) for number in range(1, 7)), return_exceptions=True
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert won
    assert all(isinstance(result, tuple | Contended) for result in results)
    state = await registry.collection("", "docs")
    assert state.active is not None
    assert state.active.generation == len(won)
    active = [record.number for record in state.versions if record.state is VersionState.ACTIVE]
    assert active == [state.active.version]


async def test_a_record_read_before_it_changed_is_not_written(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    stale = await registry.begin_version("", "docs", embedder, CHUNKING)
    await registry.set_state(stale, VersionState.READY)
    with pytest.raises(Contended):
        await registry.set_state(stale, VersionState.FAILED)
    with pytest.raises(Contended):
        await registry.delete_version(stale)
    assert (await registry.version("", "docs", 1)).state is VersionState.READY


async def test_only_activation_makes_or_unmakes_an_active_version(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    record = await ready(registry, embedder, "docs")
    with pytest.raises(FailedPrecondition):
        await registry.set_state(record, VersionState.ACTIVE)
    await registry.activate("", "docs", 1)
    active = await registry.version("", "docs", 0)
    with pytest.raises(FailedPrecondition):
        await registry.set_state(active, VersionState.FAILED)
    counted = await registry.set_state(active, VersionState.ACTIVE, documents=9, chunks=9)
    assert await registry.version("", "docs", 0) == counted
    with pytest.raises(InvalidArgument, match="counts"):
        await registry.set_state(counted, VersionState.ACTIVE, documents=1)


async def test_concurrent_beginnings_take_numbers_of_their_own(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    begun = await asyncio.gather(
        *(registry.begin_version("", "docs", embedder, CHUNKING) for _ in range(5))
    )
    assert sorted(record.number for record in begun) == [1, 2, 3, 4, 5]


async def test_a_number_is_never_used_again(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    for _ in range(2):
        await ready(registry, embedder, "docs")
    await registry.delete_version(await registry.version("", "docs", 2))
    assert (await ready(registry, embedder, "docs")).number == 3
    await registry.delete_collection("", "docs")
    with pytest.raises(NotFound):
        await registry.collection("", "docs")
    again = await ready(registry, embedder, "docs")
    assert again.store_collection == "default.docs.v000004"


async def test_the_active_version_is_not_deleted(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    await ready(registry, embedder, "docs")
    await registry.activate("", "docs", 1)
    record = await registry.version("", "docs", 1)
    with pytest.raises(FailedPrecondition, match="active"):
        await registry.delete_version(record)
    await registry.delete_pointer("", "docs")
    await registry.delete_pointer("", "docs")
    left = await registry.collection("", "docs")
    assert left.active is None
    assert [version.state for version in left.versions] == [VersionState.RETIRED]
    with pytest.raises(FailedPrecondition, match="no active version"):
        await registry.version("", "docs", 0)
    await registry.delete_version(left.versions[0])
    await registry.delete_version(left.versions[0])
    with pytest.raises(NotFound):
        await registry.collection("", "docs")


async def test_collections_are_listed_by_tenant_and_name(
    registry: IndexRegistry, embedder: EmbedderSpec
) -> None:
    for tenant, name in (("", "b"), ("", "a"), ("acme", "c"), ("default-2", "d")):
        await registry.begin_version(tenant, name, embedder, CHUNKING)
    for number in range(2, 12):
        assert (await registry.begin_version("", "a", embedder, CHUNKING)).number == number
    listed = await registry.collections("default")
    assert [(state.tenant, state.name) for state in listed] == [("default", "a"), ("default", "b")]
    assert [version.number for version in listed[0].versions] == list(range(1, 12))
    assert [state.name for state in await registry.collections("acme")] == ["c"]
    assert await registry.collections("nobody") == ()


async def test_what_is_absent_is_named(registry: IndexRegistry, embedder: EmbedderSpec) -> None:
    with pytest.raises(NotFound, match="no collection docs"):
        await registry.version("", "docs", 1)
    assert await registry.pointer("", "docs") is None
    await registry.begin_version("", "docs", embedder, CHUNKING)
    with pytest.raises(NotFound, match="no version 7; it has 1"):
        await registry.version("", "docs", 7)
    with pytest.raises(NotFound):
        await registry.activate("", "docs", 7)


@pytest.mark.parametrize(
    ("tenant", "name"), [("a/b", "docs"), ("..", "docs"), ("", ""), ("", "a/active"), ("", "A")]
)
async def test_no_name_reaches_outside_its_place(
    registry: IndexRegistry, embedder: EmbedderSpec, tenant: str, name: str
) -> None:
    with pytest.raises(InvalidArgument):
        await registry.begin_version(tenant, name, embedder, CHUNKING)


async def test_an_unreadable_record_is_an_error_that_names_its_key(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    await coordinator.transact([], [Put("collections/default/docs/versions/1", b"{")])
    with pytest.raises(UnreadableRecord, match="collections/default/docs/versions/1"):
        await registry.collection("", "docs")


async def test_an_instance_is_there_while_its_context_is_open(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    async with registry.register("query", "host:1", ttl_s=60) as one:
        async with registry.register("query", "host:2", ttl_s=60) as other:
            found = await registry.instances("query")
            assert {instance.address for instance in found} == {"host:1", "host:2"}
            assert set(found) == {one, other}
            assert await registry.instances("indexer") == ()
        assert await registry.instances("query") == (one,)
    assert (await coordinator.list("instances/")).entries == ()


async def test_an_instance_outlives_its_lease_time(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    async with registry.register("query", "host:1", ttl_s=1) as instance:
        other = await coordinator.grant_lease(3)
        start = (await coordinator.transact([], [Put("other", b"", other.id)])).revision
        async with following(coordinator.watch("other", after_revision=start)) as follower:
            await follower.until_count(1)
        assert await registry.instances("query") == (instance,)


async def test_an_instance_whose_lease_was_lost_comes_back(
    coordinator: Coordinator, registry: IndexRegistry
) -> None:
    async with registry.register("query", "host:1", ttl_s=3) as instance:
        key = f"instances/query/{instance.id}"
        entry = await coordinator.get(key)
        assert entry is not None
        watch = coordinator.watch(key, after_revision=entry.mod_revision)
        async with following(watch) as follower:
            await end_lease(coordinator, key)
            await follower.until_count(2)
        assert [change.value is None for change in follower.changes] == [True, False]
        assert await registry.instances("query") == (instance,)
    assert await registry.instances("query") == ()


async def test_what_is_about_to_be_deleted_takes_the_lock_from_its_builder(
    coordinator: Coordinator,
) -> None:
    registry = IndexRegistry(coordinator)
    await first_version(coordinator)
    record, _ = await begin(coordinator)
    await registry.delete_pointer("", "docs")
    with pytest.raises(FailedPrecondition, match="begin another"):
        await registry.check_writable(record)
    assert (await registry.fail(record, "deleted")).state is VersionState.FAILED


async def test_a_collection_in_which_another_version_was_begun_is_not_deleted(
    coordinator: Coordinator,
) -> None:
    registry = IndexRegistry(coordinator)
    await first_version(coordinator)
    await begin(coordinator)
    with pytest.raises(Contended, match="another version"):
        await registry.delete_collection("", "docs", versions={1})
    assert len((await registry.collection("", "docs")).versions) == 2
    await registry.delete_collection("", "docs", versions={1, 2})
    with pytest.raises(NotFound):
        await registry.collection("", "docs")
