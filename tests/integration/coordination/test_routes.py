"""Routes follow the pointers, on both coordinators."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from common.coordination import (
    ChunkingSpec,
    Coordinator,
    CoordinatorSettings,
    IndexRegistry,
    Pointer,
    Put,
    Routes,
    VersionState,
    open_coordinator,
)
from common.errors import CoordinatorUnavailable, DeadlineExceeded, NotFound
from tests.integration.coordination.waiting import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.embedding import EmbedderSpec
    from tests.integration.etcd import Etcd


async def move(registry: IndexRegistry, embedder: EmbedderSpec, name: str = "docs") -> Pointer:
    """Make and activate the next version."""
    record = await registry.begin_version("", name, embedder, ChunkingSpec("sentence", 256, 32))
    await registry.set_state(record, VersionState.READY)
    return (await registry.activate("", name, record.number))[0]


@contextlib.asynccontextmanager
async def opened(coordinator: Coordinator) -> AsyncIterator[Routes]:
    routes = await Routes.open(coordinator)
    try:
        yield routes
    finally:
        await routes.aclose()


async def test_routes_know_what_was_active_when_they_opened(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    pointer = await move(IndexRegistry(coordinator), embedder)
    async with opened(coordinator) as routes:
        assert routes.active("", "docs") == routes.active("default", "docs") == pointer
        assert not routes.stale
        with pytest.raises(NotFound, match="other"):
            routes.active("", "other")


async def test_routes_follow_moves_new_collections_and_deletions(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    registry = IndexRegistry(coordinator)
    async with opened(coordinator) as routes:
        first = await move(registry, embedder)
        assert await routes.wait_for("", "docs", 1, WITHIN_S) == first
        second = await move(registry, embedder)
        assert await routes.wait_for("default", "docs", 2, WITHIN_S) == second
        assert routes.active("", "docs") == second
        back = await registry.roll_back("", "docs")
        assert await routes.wait_for("", "docs", 3, WITHIN_S) == back
        await move(registry, embedder, "other")
        await registry.delete_collection("", "docs")
        await routes.wait_for("", "other", 1, WITHIN_S)
        await until(lambda: not known(routes, "docs"))
        assert known(routes, "other")


def known(routes: Routes, name: str) -> bool:
    try:
        routes.active("", name)
    except NotFound:
        return False
    return True


async def test_waiting_for_a_generation_ends_at_the_deadline(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    await move(IndexRegistry(coordinator), embedder)
    async with opened(coordinator) as routes:
        assert (await routes.wait_for("", "docs", 1, 0)).generation == 1
        with pytest.raises(DeadlineExceeded, match="generation 2"):
            await routes.wait_for("", "docs", 2, 0.05)
        with pytest.raises(DeadlineExceeded):
            await routes.wait_for("", "other", 1, 0.05)


async def test_each_later_move_is_told_once_and_before_those_who_wait_go_on(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    registry = IndexRegistry(coordinator)
    first = await move(registry, embedder)
    async with opened(coordinator) as routes:
        assert routes.pointers == (first,)
        told: list[tuple[str, str, Pointer | None]] = []
        routes.on_move(lambda *moved: told.append(moved))
        second = await move(registry, embedder)
        await routes.wait_for("", "docs", 2, WITHIN_S)
        assert told == [("default", "docs", second)]
        await coordinator.transact([], [Put("collections/default/docs/active", b"\xff")])
        other = await move(registry, embedder, "other")
        await routes.wait_for("", "other", 1, WITHIN_S)
        await registry.delete_collection("", "docs")
        await until(lambda: not known(routes, "docs"))
        assert told[1:] == [("default", "other", other), ("default", "docs", None)]
        assert routes.pointers == (other,)


async def test_a_listener_that_fails_misses_its_move_alone(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    registry = IndexRegistry(coordinator)
    async with opened(coordinator) as routes:
        told: list[int] = []

        def fails_at_first(tenant: str, collection: str, pointer: Pointer | None) -> None:
            assert (tenant, collection) == ("default", "docs")
            told.append(pointer.generation if pointer else 0)
            if len(told) == 1:
                raise ValueError("the first move")

        routes.on_move(fails_at_first)
        await move(registry, embedder)
        await routes.wait_for("", "docs", 1, WITHIN_S)
        await move(registry, embedder)
        await routes.wait_for("", "docs", 2, WITHIN_S)
        assert told == [1, 2]
        assert not routes.stale


async def test_an_unreadable_pointer_leaves_the_last_one(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    registry = IndexRegistry(coordinator)
    pointer = await move(registry, embedder)
    async with opened(coordinator) as routes:
        await coordinator.transact([], [Put("collections/default/docs/active", b"\xff")])
        await move(registry, embedder, "other")
        await routes.wait_for("", "other", 1, WITHIN_S)
        assert routes.active("", "docs") == pointer


async def test_routes_are_stale_once_the_coordinator_is_closed(
    coordinator: Coordinator, embedder: EmbedderSpec
) -> None:
    pointer = await move(IndexRegistry(coordinator), embedder)
    async with opened(coordinator) as routes:
        await coordinator.aclose()
        await until(lambda: routes.stale)
        assert routes.active("", "docs") == pointer
        with pytest.raises(NotFound, match="cannot be reached"):
            routes.active("", "other")


async def test_routes_serve_the_last_pointer_while_etcd_is_down_and_catch_up(
    on_own_etcd: Coordinator, own_etcd: Etcd, embedder: EmbedderSpec
) -> None:
    registry = IndexRegistry(on_own_etcd)
    first = await move(registry, embedder)
    async with opened(on_own_etcd) as routes:
        for generation in (2, 4):
            second = await move(registry, embedder)
            assert await routes.wait_for("", "docs", generation, WITHIN_S) == second
            await asyncio.to_thread(own_etcd.kill)
            await until(lambda: routes.stale)
            assert routes.active("", "docs") == second
            assert not on_own_etcd.healthy
            with pytest.raises(CoordinatorUnavailable) as caught:
                await registry.pointer("", "docs")
            assert caught.value.retry_after_ms is not None
            await asyncio.to_thread(own_etcd.start)
            await until(lambda: not routes.stale)
            third = await move(registry, embedder)
            assert await routes.wait_for("", "docs", generation + 1, WITHIN_S) == third
            assert third != first


async def test_routes_learn_of_what_was_compacted_while_they_were_away(
    on_own_etcd: Coordinator, own_etcd: Etcd, embedder: EmbedderSpec
) -> None:
    registry = IndexRegistry(on_own_etcd)
    for name in ("kept", "moved", "gone"):
        await move(registry, embedder, name)
    away = Interrupted(on_own_etcd)
    routes = await Routes.open(away)  # type: ignore[arg-type]  # the rest by __getattr__
    kept = routes.active("", "kept")
    told: list[tuple[str, str, Pointer | None]] = []
    routes.on_move(lambda *moved: told.append(moved))
    await registry.delete_collection("", "gone")
    moved = await move(registry, embedder, "moved")
    new = await move(registry, embedder, "new")
    last = (await on_own_etcd.list("collections/")).revision
    await asyncio.to_thread(own_etcd.etcdctl, "compact", str(last))
    away.back.set()
    try:
        assert await routes.wait_for("", "new", 1, WITHIN_S) == new
        assert await routes.wait_for("", "moved", 2, WITHIN_S) == moved
        assert routes.active("", "kept") == kept
        assert not known(routes, "gone")
        # What did not move was listed again, and is not told.
        assert sorted(told, key=lambda one: one[1]) == [
            ("default", "gone", None),
            ("default", "moved", moved),
            ("default", "new", new),
        ]
        await until(lambda: not routes.stale)
        assert await move(registry, embedder, "kept") == await routes.wait_for(
            "", "kept", 2, WITHIN_S
        )
    finally:
        await routes.aclose()


async def test_no_move_is_missed_over_an_outage_with_compaction(
    on_own_etcd: Coordinator, own_etcd: Etcd, embedder: EmbedderSpec
) -> None:
    """The follower's own coordinator is cut off; everybody else goes on."""
    settings = CoordinatorSettings(kind="etcd", endpoints=(own_etcd.endpoint,), timeout_ms=2000)
    registry, cut_off = IndexRegistry(on_own_etcd), open_coordinator(settings)
    await move(registry, embedder)
    seen: list[int] = []
    try:
        async with opened(cut_off) as routes:
            routes.on_move(lambda *move: seen.append(move[2].generation if move[2] else 0))
            for last in (5, 15):
                before = await move(registry, embedder)
                await routes.wait_for("", "docs", before.generation, WITHIN_S)
                link = cut_off._links[0]  # type: ignore[attr-defined]  # the network is cut here
                connect, link.connect = link.connect, refused
                await asyncio.to_thread(own_etcd.kill)
                await until(lambda: routes.stale)
                await asyncio.to_thread(own_etcd.start)
                await until_it_answers(on_own_etcd)
                while (pointer := await move(registry, embedder)).generation < last:
                    pass
                assert routes.active("", "docs") == before
                at = (await on_own_etcd.list("collections/")).revision
                await asyncio.to_thread(own_etcd.etcdctl, "compact", str(at))
                link.connect = connect
                assert await routes.wait_for("", "docs", last, WITHIN_S) == pointer
                await until(lambda: not routes.stale)
                # from here on each one is seen
                for _ in range(3):
                    moved = await move(registry, embedder)
                    assert await routes.wait_for("", "docs", moved.generation, WITHIN_S) == moved
                    assert seen[-1] == moved.generation
                assert {last, last + 1, last + 2, last + 3} <= set(seen)
            assert seen == sorted(set(seen))
    finally:
        await cut_off.aclose()


async def refused() -> None:
    raise TimeoutError


async def until_it_answers(coordinator: Coordinator) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(CoordinatorUnavailable):
                await coordinator.get("a")
                return
            await asyncio.sleep(0.02)


class Interrupted:
    """A coordinator whose watches do not begin before ``back`` is set."""

    def __init__(self, inner: Coordinator) -> None:
        self._inner = inner
        self.back = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def watch(self, prefix, *, after_revision, known):
        return Delayed(self._inner.watch(prefix, after_revision=after_revision, known=known), self)


class Delayed:
    def __init__(self, watch, away: Interrupted) -> None:
        self._watch = watch
        self._away = away

    @property
    def connected(self):
        return self._watch.connected

    async def __aiter__(self):
        await self._away.back.wait()
        async for change in self._watch:
            yield change
