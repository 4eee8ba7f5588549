"""What only the coordinator on etcd has: outages, compaction, endpoints, TLS and users."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, TypeVar

import pytest

from common.coordination import (
    Builds,
    Change,
    Coordinator,
    CoordinatorSettings,
    Delete,
    IndexRegistry,
    Pins,
    Put,
    build_lock,
    maintenance,
    open_coordinator,
    pinned,
)
from common.errors import ConfigurationError, CoordinatorUnavailable
from tests.integration.coordination.versions import begin, finish, first_version, renew
from tests.integration.coordination.waiting import WITHIN_S, following, until
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")


@contextlib.asynccontextmanager
async def connected(**settings: object) -> AsyncIterator[Coordinator]:
    coordinator = open_coordinator(
        CoordinatorSettings.model_validate({"kind": "etcd", "timeout_ms": 3000, **settings})
    )
    try:
        yield coordinator
    finally:
        await coordinator.aclose()


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call until the coordinator answers, as its callers are told to."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await call()
            except CoordinatorUnavailable:
                await asyncio.sleep(0.02)


async def put(coordinator: Coordinator, key: str, value: bytes = b"") -> int:
    return (await coordinator.transact([], [Put(key, value)])).revision


async def test_keys_lie_under_the_prefix_and_nothing_else_is_seen(etcd: Etcd) -> None:
    await asyncio.to_thread(etcd.etcdctl, "put", "/team/sluicebox/a", "not ours")
    async with connected(endpoints=(etcd.endpoint,), prefix="/team/sluice") as coordinator:
        start = await put(coordinator, "a", b"ours")
        listing = await asyncio.to_thread(etcd.etcdctl, "get", "/team/sluice/a")
        assert listing == "/team/sluice/a\nours\n"
        assert [entry.key for entry in (await coordinator.list("a")).entries] == ["a"]
        async with following(coordinator.watch("a", after_revision=start)) as follower:
            await asyncio.to_thread(etcd.etcdctl, "put", "/team/sluicebox/a", "again")
            await put(coordinator, "a", b"next")
            await follower.until_count(1)
            assert follower.changes[0].value == b"next"


async def test_two_installations_on_one_etcd_never_meet(etcd: Etcd) -> None:
    async with (
        connected(endpoints=(etcd.endpoint,), prefix="/one/v1") as one,
        connected(endpoints=(etcd.endpoint,), prefix="/one/v1x") as other,
        Pins.open(one, "ours", ttl_s=60) as pins,
    ):
        start = (await other.list("collections/")).revision
        for coordinator in (one, other):
            await first_version(coordinator)
        watch = other.watch("collections/", after_revision=start)
        async with following(watch) as follower:
            record, build = await begin(one, "ours")
            theirs, _ = await begin(other, "theirs")
            assert (record.number, theirs.number) == (2, 2)
            await finish(one, record)
            await IndexRegistry(one).activate("", "docs", 2, fence=build.fence)
            async with pins.writing("", "docs", 2), maintenance(other, "", "docs", holder="x"):
                assert await pinned(other, "", "docs", 2) == ()
            await IndexRegistry(one).delete_collection("", "docs")
            await put(other, "collections/end")
            await follower.until_count(8)
        assert "collections/default/docs/versions/2" in {one.key for one in follower.changes}
        assert follower.changes[-1].key == "collections/end"
        assert all(change.value is not None for change in follower.changes)
        state = await IndexRegistry(other).collection("", "docs")
        assert state.active is not None
        assert (state.active.version, len(state.versions)) == (1, 2)
        assert state.build is not None
        assert state.build.builder == "theirs"
        assert await IndexRegistry(one).all_collections() == ()


async def test_a_watch_goes_on_after_the_last_revision_when_etcd_comes_back(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    start = await put(on_own_etcd, "a", b"0")
    watch = on_own_etcd.watch("a", after_revision=start)
    async with following(watch) as follower:
        first = await put(on_own_etcd, "a", b"1")
        await follower.until_count(1)
        for stop in (own_etcd.kill, own_etcd.stop):
            await asyncio.to_thread(stop)
            await until(lambda: not watch.connected)
            await asyncio.to_thread(own_etcd.start)
            # changed by someone else, before the follower is back
            await asyncio.to_thread(own_etcd.etcdctl, "put", "/sluice/v1/a", "missed")
        await until(lambda: watch.connected)
        await follower.until_count(3)
        assert follower.changes == [
            Change("a", b"1", first),
            Change("a", b"missed", first + 1),
            Change("a", b"missed", first + 2),
        ]


async def test_after_compaction_a_watch_yields_the_difference(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    for key in ("a/kept", "a/moved", "a/gone"):
        await put(on_own_etcd, key, b"1")
    before = await on_own_etcd.list("a/")
    await on_own_etcd.transact([], [Delete("a/gone"), Put("a/moved", b"2"), Put("a/new", b"3")])
    last = await put(on_own_etcd, "b")
    await asyncio.to_thread(own_etcd.etcdctl, "compact", str(last))
    watch = on_own_etcd.watch(
        "a/", after_revision=before.revision, known=[entry.key for entry in before.entries]
    )
    async with following(watch) as follower:
        await follower.until_count(4)
        after = await put(on_own_etcd, "a/after")
        await follower.until_count(5)
        assert [(change.key, change.value) for change in follower.changes] == [
            ("a/gone", None),
            ("a/kept", b"1"),
            ("a/moved", b"2"),
            ("a/new", b"3"),
            ("a/after", b""),
        ]
        assert follower.changes[-1].mod_revision == after


async def test_compaction_during_an_outage_loses_no_state(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    start = await put(on_own_etcd, "a/gone", b"1")
    watch = on_own_etcd.watch("a/", after_revision=start, known=["a/gone"])
    async with following(watch) as follower:
        await put(on_own_etcd, "a/seen", b"1")
        await follower.until_count(1)
        link = on_own_etcd._links[0]  # type: ignore[attr-defined]  # the network is cut here
        connect, link.connect = link.connect, cut
        await asyncio.to_thread(own_etcd.kill)
        await until(lambda: not watch.connected)
        await asyncio.to_thread(own_etcd.start)
        for arguments in (
            ("del", "/sluice/v1/a/gone"),
            ("del", "/sluice/v1/a/seen"),
            ("put", "/sluice/v1/a/new", "2"),
            ("compact", str(start + 4)),
        ):
            await asyncio.to_thread(own_etcd.etcdctl, *arguments)
        link.connect = connect
        await until(lambda: watch.connected)
        assert len(follower.changes) == 4  # it is not said to stand before it has caught up
        assert [(change.key, change.value) for change in follower.changes[1:]] == [
            ("a/gone", None),
            ("a/seen", None),
            ("a/new", b"2"),
        ]


async def cut() -> None:
    raise TimeoutError


async def test_a_restored_backup_is_followed_although_its_revisions_are_lower(
    on_own_etcd: Coordinator,
) -> None:
    revision = await put(on_own_etcd, "a", b"restored")
    watch = on_own_etcd.watch("a", after_revision=revision + 1000, known=["a", "a/lost"])
    async with following(watch) as follower:
        await follower.until_count(2)
        assert follower.changes == [
            Change("a/lost", None, revision),
            Change("a", b"restored", revision),
        ]


async def test_while_etcd_is_down_calls_fail_at_once_and_say_when_to_repeat(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    lease = await on_own_etcd.grant_lease(60)
    await asyncio.to_thread(own_etcd.kill)
    for call in (
        lambda: on_own_etcd.get("a"),
        lambda: on_own_etcd.list("a"),
        lambda: on_own_etcd.transact([], [Put("a", b"")]),
        lambda: on_own_etcd.grant_lease(1),
        lease.keep_alive,
        lease.revoke,
    ):
        started_s = time.monotonic()
        with pytest.raises(CoordinatorUnavailable) as caught:
            await call()
        assert caught.value.retry_after_ms is not None
        assert own_etcd.endpoint in caught.value.message
        assert time.monotonic() - started_s < 3
    assert not on_own_etcd.healthy
    await asyncio.to_thread(own_etcd.start)
    await eventually(lambda: put(on_own_etcd, "a"))
    assert on_own_etcd.healthy


async def test_a_silent_etcd_is_given_up_within_the_timeout() -> None:
    # the kernel takes the connection, and nobody ever reads from it
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        async with connected(endpoints=(endpoint,), timeout_ms=300) as coordinator:
            started_s = time.monotonic()
            with pytest.raises(CoordinatorUnavailable):
                await coordinator.get("a")
            assert 0.2 < time.monotonic() - started_s < 3


async def test_the_next_endpoint_serves_where_one_is_down(own_etcd: Etcd, etcd: Etcd) -> None:
    endpoints = (own_etcd.endpoint, etcd.endpoint)
    async with connected(endpoints=endpoints, prefix="/test/next") as coordinator:
        await asyncio.to_thread(own_etcd.kill)
        await put(coordinator, "a", b"1")
        assert coordinator.healthy
        start = (await coordinator.list("a")).revision
        async with following(coordinator.watch("a", after_revision=start)) as follower:
            await put(coordinator, "a", b"2")
            await follower.until_count(1)


async def test_a_transaction_that_may_have_been_sent_is_not_sent_again(
    own_etcd: Etcd, etcd: Etcd
) -> None:
    endpoints = (own_etcd.endpoint, etcd.endpoint)
    async with (
        connected(endpoints=endpoints, prefix="/test/once", timeout_ms=1000) as coordinator,
        connected(endpoints=(etcd.endpoint,), prefix="/test/once") as other,
    ):
        await put(coordinator, "a", b"1")
        own_etcd.freeze()
        with pytest.raises(CoordinatorUnavailable, match="read before repeating"):
            await put(coordinator, "b", b"1")
        assert await other.get("b") is None
        # a read may be repeated, and the next call begins with the endpoint that answers
        assert await coordinator.get("b") is None
        assert coordinator.healthy
        own_etcd.thaw()


async def test_a_read_is_repeated_on_the_next_endpoint(own_etcd: Etcd, etcd: Etcd) -> None:
    endpoints = (own_etcd.endpoint, etcd.endpoint)
    async with connected(endpoints=endpoints, prefix="/test/read", timeout_ms=1000) as coordinator:
        await put(coordinator, "a", b"1")
        own_etcd.freeze()
        assert await coordinator.get("a") is None
        own_etcd.thaw()


async def test_an_instance_stays_announced_over_a_restart(
    on_own_etcd: Coordinator, own_etcd: Etcd
) -> None:
    registry = IndexRegistry(on_own_etcd)
    async with registry.register("query", "host:1", ttl_s=1) as instance:
        start = (await on_own_etcd.list("instances/")).revision
        # its lease ends unnoticed: the key goes, and comes back with a lease of its own
        async with following(on_own_etcd.watch("instances/", after_revision=start)) as follower:
            entry = await on_own_etcd.get(f"instances/query/{instance.id}")
            assert entry is not None
            await asyncio.to_thread(own_etcd.kill)
            await asyncio.to_thread(own_etcd.start)
            await asyncio.to_thread(own_etcd.etcdctl, "lease", "revoke", f"{entry.lease:x}")
            await follower.until_count(2)
            assert [change.value is None for change in follower.changes[:2]] == [True, False]
        assert await registry.instances("query") == (instance,)


async def test_tls_and_a_user_with_a_password(tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("correct horse\n")
    with Etcd(tmp_path / "etcd", tls=True) as secured:
        for arguments in (
            ("user", "add", "root:toor"),
            ("user", "grant-role", "root", "root"),
            ("user", "add", "sluice:correct horse"),
            ("role", "add", "sluice"),
            ("role", "grant-permission", "--prefix=true", "sluice", "readwrite", "/sluice/v1/"),
            ("user", "grant-role", "sluice", "sluice"),
            ("auth", "enable"),
        ):
            await asyncio.to_thread(secured.etcdctl, *arguments)
        as_user = {
            "endpoints": (secured.endpoint,),
            "ca_file": secured.ca_file,
            "user": "sluice",
            "password_file": password_file,
        }
        async with connected(**as_user) as coordinator:
            start = await put(coordinator, "a", b"1")
            async with following(coordinator.watch("a", after_revision=start)) as follower:
                await put(coordinator, "a", b"2")
                await follower.until_count(1)
            # etcd keeps the tokens it issued in memory: after this they are void
            await asyncio.to_thread(secured.kill)
            await asyncio.to_thread(secured.start)
            entry = await eventually(lambda: coordinator.get("a"))
            assert entry is not None
            assert entry.value == b"2"
            lease = await coordinator.grant_lease(60)
            assert await lease.keep_alive()
            await first_version(coordinator)
            record, build = await begin(coordinator)
            assert (await renew(coordinator, build)).documents == 1
            assert (await IndexRegistry(coordinator).check_writable(record)) == record
            await finish(coordinator, record)
            async with Pins.open(coordinator, "secured", ttl_s=60) as pins:
                async with pins.writing("", "docs", 2):
                    assert len(await pinned(coordinator, "", "docs", 2)) == 1
                async with maintenance(coordinator, "", "docs", holder="secured"):
                    pass
            await IndexRegistry(coordinator).activate("", "docs", 2, fence=build.fence)
            await Builds(coordinator).end("", "docs", 2, build.fence, reason="")
            assert await coordinator.get(build_lock("", "docs")) is None
        async with connected(**as_user, prefix="/elsewhere") as coordinator:
            with pytest.raises(ConfigurationError, match="permission denied"):
                await coordinator.get("a")
        password_file.write_text("wrong battery\n")
        async with connected(**as_user) as coordinator:
            with pytest.raises(ConfigurationError, match="password_file") as caught:
                await coordinator.get("a")
            assert "battery" not in str(caught.value)
        async with connected(endpoints=(secured.endpoint,), timeout_ms=500) as coordinator:
            with pytest.raises(CoordinatorUnavailable):
                await coordinator.get("a")
