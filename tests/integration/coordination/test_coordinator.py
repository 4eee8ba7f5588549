"""What every coordinator promises, shown on both implementations."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from common.coordination import (
    Change,
    Condition,
    Coordinator,
    Delete,
    DeletePrefix,
    Entry,
    Put,
    Watch,
)
from common.errors import CoordinatorUnavailable, InvalidArgument, NotFound
from tests.integration.coordination.waiting import following


async def put(coordinator: Coordinator, key: str, value: bytes, lease: int = 0) -> int:
    outcome = await coordinator.transact([], [Put(key, value, lease)])
    assert outcome.committed
    return outcome.revision


async def take(watch: Watch, count: int) -> list[Change]:
    async with following(watch) as follower:
        await follower.until_count(count)
        return follower.changes[:count]


async def test_a_put_is_read_back_with_its_revisions(coordinator: Coordinator) -> None:
    assert await coordinator.get("a/1") is None
    created = await put(coordinator, "a/1", b"one")
    modified = await put(coordinator, "a/1", b"two")
    assert modified > created
    assert await coordinator.get("a/1") == Entry("a/1", b"two", created, modified)


async def test_a_key_deleted_and_put_again_is_created_anew(coordinator: Coordinator) -> None:
    await put(coordinator, "a", b"1")
    await coordinator.transact([], [Delete("a")])
    assert await coordinator.get("a") is None
    again = await put(coordinator, "a", b"2")
    assert await coordinator.get("a") == Entry("a", b"2", again, again)


async def test_list_gives_the_prefix_in_order_at_one_revision(coordinator: Coordinator) -> None:
    for key in ("b/2", "a/1", "b/1", "b0"):
        await put(coordinator, key, key.encode())
    last = await put(coordinator, "b/10", b"b/10")
    listed = await coordinator.list("b/")
    assert [entry.key for entry in listed.entries] == ["b/1", "b/10", "b/2"]
    assert [entry.value for entry in listed.entries] == [b"b/1", b"b/10", b"b/2"]
    assert listed.revision == last


async def test_a_transaction_changes_all_at_one_revision(coordinator: Coordinator) -> None:
    await put(coordinator, "old", b"")
    outcome = await coordinator.transact(
        [Condition("new", mod_revision=0)], [Put("new", b"1"), Put("too", b"2"), Delete("old")]
    )
    assert outcome.committed
    listed = await coordinator.list("n")
    assert listed.entries == (Entry("new", b"1", outcome.revision, outcome.revision),)
    assert listed.revision == outcome.revision
    assert await coordinator.get("old") is None
    too = await coordinator.get("too")
    assert too is not None
    assert too.mod_revision == outcome.revision


async def test_conditions_compare_create_and_mod_revisions(coordinator: Coordinator) -> None:
    created = await put(coordinator, "a", b"1")
    modified = await put(coordinator, "a", b"2")
    for condition, holds in (
        (Condition("a", create_revision=created), True),
        (Condition("a", create_revision=modified), False),
        (Condition("a", create_revision=0), False),
        (Condition("a", mod_revision=created), False),
        (Condition("a", create_revision=created, mod_revision=created), False),
        (Condition("b", create_revision=0, mod_revision=0), True),
        (Condition("b", mod_revision=modified), False),
        (Condition("a", mod_revision=modified), True),
    ):
        outcome = await coordinator.transact([condition], [Put("seen", b"")])
        assert outcome.committed is holds, condition
        assert (await coordinator.get("seen") is not None) is holds, condition
        await coordinator.transact([], [Delete("seen")])


async def test_one_condition_that_fails_leaves_everything(coordinator: Coordinator) -> None:
    revision = await put(coordinator, "a", b"1")
    outcome = await coordinator.transact(
        [Condition("a", mod_revision=revision), Condition("b", mod_revision=1)],
        [Put("c", b"2"), Delete("a")],
    )
    assert not outcome.committed
    assert outcome.revision == revision
    assert [entry.key for entry in (await coordinator.list("a")).entries] == ["a"]
    assert await coordinator.get("c") is None


async def test_delete_prefix_takes_its_keys_and_no_others(coordinator: Coordinator) -> None:
    for key in ("v/1", "v/2", "v", "w/1"):
        await put(coordinator, key, b"")
    await coordinator.transact([], [DeletePrefix("v/")])
    assert [entry.key for entry in (await coordinator.list("v")).entries] == ["v"]
    assert await coordinator.get("w/1") is not None


async def test_deleting_what_is_absent_is_no_change(coordinator: Coordinator) -> None:
    revision = await put(coordinator, "a", b"")
    outcome = await coordinator.transact([], [Delete("b"), DeletePrefix("c/")])
    assert outcome.committed
    assert outcome.revision == revision


async def test_of_concurrent_transactions_exactly_one_wins(coordinator: Coordinator) -> None:
    revision = await put(coordinator, "a", b"start")
    outcomes = await asyncio.gather(
        *(
            coordinator.transact(
                [Condition("a", mod_revision=revision)], [Put("a", str(n).encode())]
            )
            for n in range(20)
        )
    )
    winners = [n for n, outcome in enumerate(outcomes) if outcome.committed]
    assert len(winners) == 1
    entry = await coordinator.get("a")
    assert entry is not None
    assert entry.value == str(winners[0]).encode()


@pytest.mark.parametrize(
    "operations",
    [
        [Put("a", b"1"), Put("a", b"2")],
        [Put("a", b"1"), Delete("a")],
        [DeletePrefix("a"), Put("a/1", b"1")],
        [Put(f"{n}", b"") for n in range(129)],
        [DeletePrefix("")],
    ],
)
async def test_a_transaction_that_is_none_is_refused(
    coordinator: Coordinator, operations: list[Put | Delete | DeletePrefix]
) -> None:
    with pytest.raises(InvalidArgument):
        await coordinator.transact([], operations)


async def test_a_watch_yields_in_order_what_came_after_its_revision(
    coordinator: Coordinator,
) -> None:
    await put(coordinator, "a/0", b"before")
    start = (await coordinator.list("a/")).revision
    first = await put(coordinator, "a/1", b"1")
    await put(coordinator, "b/1", b"elsewhere")
    second = (
        await coordinator.transact([], [Put("a/2", b"2"), Put("a/3", b"3"), Delete("a/1")])
    ).revision
    watch = coordinator.watch("a/", after_revision=start)
    async with following(watch) as follower:
        third = await put(coordinator, "a/2", b"4")
        await follower.until_count(5)
        assert follower.changes == [
            Change("a/1", b"1", first),
            Change("a/2", b"2", second),
            Change("a/3", b"3", second),
            Change("a/1", None, second),
            Change("a/2", b"4", third),
        ]
        assert watch.connected


async def test_a_watch_resumes_after_any_revision(coordinator: Coordinator) -> None:
    revisions = [await put(coordinator, "a", str(n).encode()) for n in range(6)]
    for seen in (0, 2, 4):
        changes = await take(coordinator.watch("a", after_revision=revisions[seen]), 5 - seen)
        assert [change.mod_revision for change in changes] == revisions[seen + 1 :]


async def test_two_watches_both_see_everything(coordinator: Coordinator) -> None:
    start = (await coordinator.list("a")).revision
    async with (
        following(coordinator.watch("a", after_revision=start)) as one,
        following(coordinator.watch("a", after_revision=start)) as other,
    ):
        await asyncio.gather(*(put(coordinator, f"a/{n}", b"") for n in range(50)))
        await one.until_count(50)
        await other.until_count(50)
        assert one.changes == other.changes
        revisions = [change.mod_revision for change in one.changes]
        assert revisions == sorted(revisions)


async def test_an_expired_lease_takes_its_keys_and_watchers_learn_of_it(
    coordinator: Coordinator,
) -> None:
    lease = await coordinator.grant_lease(1)
    start = await put(coordinator, "a/leased", b"", lease.id)
    await put(coordinator, "a/kept", b"")
    entry = await coordinator.get("a/leased")
    assert entry is not None
    assert entry.lease == lease.id
    changes = await take(coordinator.watch("a/", after_revision=start), 2)
    assert [(change.key, change.value) for change in changes] == [
        ("a/kept", b""),
        ("a/leased", None),
    ]
    assert [entry.key for entry in (await coordinator.list("a/")).entries] == ["a/kept"]
    assert not await lease.keep_alive()
    with pytest.raises(NotFound, match="lease"):
        await put(coordinator, "a/leased", b"", lease.id)
    await lease.revoke()


async def test_a_lease_that_is_kept_alive_outlives_its_time(coordinator: Coordinator) -> None:
    kept, left = await coordinator.grant_lease(1), await coordinator.grant_lease(2)
    await put(coordinator, "a/kept", b"", kept.id)
    start = await put(coordinator, "a/left", b"", left.id)

    async def keep() -> None:
        while await kept.keep_alive():  # noqa: ASYNC110  it renews, it does not poll
            await asyncio.sleep(kept.ttl_s / 10)  # the pace of renewal, not a wait

    keeping = asyncio.create_task(keep())
    changes = await take(coordinator.watch("a/", after_revision=start), 1)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    assert changes[0].key == "a/left"
    assert await coordinator.get("a/kept") is not None


async def test_a_revoked_lease_takes_its_keys_at_once(coordinator: Coordinator) -> None:
    lease = await coordinator.grant_lease(60)
    assert lease.ttl_s >= 60
    start = await put(coordinator, "a/1", b"", lease.id)
    await put(coordinator, "a/2", b"", lease.id)
    await lease.revoke()
    assert (await coordinator.list("a/")).entries == ()
    changes = await take(coordinator.watch("a/", after_revision=start), 3)
    assert {change.key for change in changes[1:]} == {"a/1", "a/2"}
    assert {change.value for change in changes[1:]} == {None}
    await lease.revoke()


async def test_a_key_put_again_without_the_lease_outlives_it(coordinator: Coordinator) -> None:
    lease = await coordinator.grant_lease(60)
    await put(coordinator, "a", b"1", lease.id)
    await put(coordinator, "a", b"2")
    await lease.revoke()
    entry = await coordinator.get("a")
    assert entry is not None
    assert entry.value == b"2"


async def test_a_lease_is_renewed_and_ended_by_its_id_alone(coordinator: Coordinator) -> None:
    granted, other = await coordinator.grant_lease(1), await coordinator.grant_lease(3)
    await put(coordinator, "a/kept", b"", granted.id)
    start = await put(coordinator, "a/left", b"", other.id)
    handle = coordinator.lease(granted.id, granted.ttl_s)
    assert (handle.id, handle.ttl_s) == (granted.id, granted.ttl_s)
    async with following(coordinator.watch("a/", after_revision=start)) as follower:
        while not follower.changes:
            assert await handle.keep_alive()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(granted.ttl_s / 5):  # the pace of renewal
                    await follower.until_count(1)
        assert follower.changes[0].key == "a/left"
    assert await coordinator.get("a/kept") is not None
    await handle.revoke()
    assert await coordinator.get("a/kept") is None
    assert not await granted.keep_alive()
    await handle.revoke()


async def test_a_lease_that_never_was_has_ended(coordinator: Coordinator) -> None:
    unknown = coordinator.lease(123456789, 60)
    assert not await unknown.keep_alive()
    await unknown.revoke()
    with pytest.raises(NotFound, match="lease"):
        await put(coordinator, "a", b"", unknown.id)


async def test_conditions_alone_are_compared_and_change_nothing(coordinator: Coordinator) -> None:
    revision = await put(coordinator, "a", b"1")
    holding, failing = Condition("a", mod_revision=revision), Condition("b", mod_revision=revision)
    for conditions, holds in (([holding], True), ([holding, failing], False), ([], True)):
        outcome = await coordinator.transact(conditions, [])
        assert (outcome.committed, outcome.revision) == (holds, revision)


async def test_a_lease_of_no_time_is_refused(coordinator: Coordinator) -> None:
    with pytest.raises(InvalidArgument, match="ttl_s"):
        await coordinator.grant_lease(0)


async def test_a_fencing_token_refuses_a_holder_that_lost_its_lease(
    coordinator: Coordinator,
) -> None:
    first = await coordinator.grant_lease(60)
    absent = Condition("locks/a", create_revision=0)
    token = (await coordinator.transact([absent], [Put("locks/a", b"1", first.id)])).revision
    contender = await coordinator.grant_lease(60)
    taken = await coordinator.transact([absent], [Put("locks/a", b"2", contender.id)])
    assert not taken.committed
    await first.revoke()
    taken = await coordinator.transact([absent], [Put("locks/a", b"2", contender.id)])
    assert taken.committed
    fenced = Condition("locks/a", create_revision=token)
    assert not (await coordinator.transact([fenced], [Put("built", b"")])).committed
    fenced = Condition("locks/a", create_revision=taken.revision)
    assert (await coordinator.transact([fenced], [Put("built", b"")])).committed


async def test_closing_ends_watches_and_refuses_calls(coordinator: Coordinator) -> None:
    start = await put(coordinator, "a/1", b"")
    watch = coordinator.watch("a/", after_revision=start)
    async with following(watch) as follower:
        await put(coordinator, "a/2", b"")
        await follower.until_count(1)
        assert coordinator.healthy
        await coordinator.aclose()
        await follower.ended()
    with pytest.raises(CoordinatorUnavailable, match="closed"):
        await coordinator.get("a/1")
