"""Versions through their whole life, in random order, on both coordinators, beside a model.

What stands in the coordinator must equal the model after every step: so never are two versions
active, the pointer never names anything else, and nobody swaps whose lock is gone.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.coordination import (
    Builds,
    Coordinator,
    CoordinatorSettings,
    Delete,
    IndexRegistry,
    VersionState,
    build_lock,
    collectable,
    open_coordinator,
)
from common.errors import Contended, CoordinatorUnavailable, FailedPrecondition, NotFound
from tests.integration.coordination.versions import (
    FELL_SHORT,
    PASSED,
    begin,
    end_lease,
    first_version,
    renew,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from common.coordination import Build, Verdict, VersionRecord

T = TypeVar("T")
Crash = Literal["", "before", "after"]
Fence = Literal["none", "right", "stale"]

BUILDING, READY, ACTIVE, RETIRED, FAILED = VersionState
LOCK = build_lock("", "docs")
VERDICTS: dict[bool, Verdict] = {
    True: PASSED,
    False: replace(FELL_SHORT, verified_at=PASSED.verified_at),
}
LATER = timedelta(days=3650)
_places = itertools.count()

# How far back from the last version; one that never was, too. What matters comes often.
back = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2, 3, -1])
crashes: st.SearchStrategy[Crash] = st.sampled_from(["", "", "", "before", "after"])
fences: st.SearchStrategy[Fence] = st.sampled_from(["right", "right", "none", "stale"])


@dataclass
class Version:
    """What the model knows of a version; ``retired`` orders those that are out of use."""

    state: VersionState
    passed: bool | None = None
    forced: bool = False
    retired: int = 0


@dataclass
class Model:
    """The life of a collection, told by itself."""

    versions: dict[int, Version] = field(default_factory=dict)
    last: int = 0
    pointer: int = 0
    previous: int = 0
    generation: int = 0
    lock: int = 0
    moment: int = 0

    @property
    def exists(self) -> bool:
        return bool(self.versions)

    def any(self, state: VersionState) -> bool:
        return any(one.state is state for one in self.versions.values())

    def begin(self) -> int:
        for one in self.versions.values():
            if one.state is BUILDING:
                self.retire(one, FAILED)
        self.last += 1
        self.versions[self.last] = Version(BUILDING)
        return self.last

    def retire(self, version: Version, state: VersionState) -> None:
        self.moment += 1
        if state is RETIRED or not version.retired:
            version.retired = self.moment
        version.state = state

    def why_not_activate(self, number: int, fence: Fence, *, force: bool) -> type | None:
        version = self.versions.get(number)
        if version is None:
            return NotFound
        if number == self.pointer:
            return None
        fell_short = version.state is READY and version.passed is False and not force
        fenced = fence == "stale" or (fence == "right" and self.lock != number)
        impossible = version.state not in {READY, RETIRED}
        return FailedPrecondition if fell_short or fenced or impossible else None

    def activatable(self) -> list[int]:
        """Those that anybody may activate and that are not active."""
        return [
            number
            for number in self.versions
            if number != self.pointer and self.why_not_activate(number, "none", force=False) is None
        ]

    def activate(self, number: int) -> None:
        version = self.versions[number]
        if self.pointer:
            self.retire(self.versions[self.pointer], RETIRED)
        version.forced |= version.state is READY and version.passed is False
        version.state, version.retired = ACTIVE, 0
        self.previous, self.pointer = self.pointer, number
        self.generation += 1

    def last_active(self) -> int:
        """The number that rolling back leads to, 0 if there is none."""
        retired = {n: one for n, one in self.versions.items() if one.state is RETIRED}
        if self.previous in retired:
            return self.previous
        return max(retired, key=lambda number: retired[number].retired, default=0)

    def is_built(self, number: int) -> bool:
        return self.versions[number].state is BUILDING and self.lock == number

    def collectable(self) -> set[int]:
        """What goes once everything is old and of retired and ready ones the last is kept."""
        retired = [n for n, one in self.versions.items() if one.state is RETIRED]
        retired.sort(key=lambda number: self.versions[number].retired)
        ready = [
            n
            for n, one in self.versions.items()
            if one.state is READY and self.pointer and n != self.lock
        ]
        dead = [
            n
            for n, one in self.versions.items()
            if one.state is FAILED or (one.state is BUILDING and n != self.lock)
        ]
        return {*retired[:-1], *sorted(ready)[:-1], *dead}


class Crashing:
    """A coordinator whose caller dies before or after its next transaction."""

    def __init__(self, inner: Coordinator, crash: Crash) -> None:
        self._inner = inner
        self._crash = crash

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def transact(self, conditions, operations):
        outcome = None
        if self._crash != "before":
            outcome = await self._inner.transact(conditions, operations)
        if self._crash:
            raise CoordinatorUnavailable("crashed")
        return outcome


class LifeCycle(RuleBasedStateMachine):
    """Drives one collection; ``place`` says where a new coordinator is opened."""

    place: CoordinatorSettings

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.builds: dict[int, Build] = {}
        self.begun: dict[int, VersionRecord] = {}
        self.coordinator = self.run(self.opened())

    async def opened(self) -> Coordinator:
        return open_coordinator(self.place)

    def run(self, call: Awaitable[T]) -> T:
        async def within() -> T:
            async with asyncio.timeout(20):
                return await call

        return self.runner.run(within())

    def teardown(self) -> None:
        self.run(self.coordinator.aclose())
        self.runner.close()

    def go(
        self,
        act: Callable[[Coordinator], Awaitable[object]],
        refused: type | None = None,
        crash: Crash = "",
    ) -> bool:
        """Do it, as refused or crashed as the model expects; whether it took place."""
        if refused is not None:
            with pytest.raises(refused):
                self.run(act(self.coordinator))
            return False
        if not crash:
            self.run(act(self.coordinator))
            return True
        dying: Coordinator = Crashing(self.coordinator, crash)  # type: ignore[assignment]  # the rest by __getattr__
        with pytest.raises(CoordinatorUnavailable):
            self.run(act(dying))
        return crash == "after"

    def number(self, back: int) -> int:
        return max(1, self.model.last - back)

    def fence(self, number: int, fence: Fence) -> int:
        right = self.builds[number].fence if number in self.builds else 1
        return {"none": 0, "right": right, "stale": right + 1}[fence]

    @initialize()
    def create_at_first(self) -> None:
        self.create()

    @precondition(lambda self: not self.model.exists)
    @rule()
    def create(self) -> None:
        self.go(first_version)
        self.model.last += 1
        self.model.versions[self.model.last] = Version(READY)
        self.model.activate(self.model.last)

    @rule(crash=crashes)
    def begin(self, crash: Crash) -> None:
        model = self.model
        refused = Contended if model.lock else None if model.exists else NotFound

        async def act(coordinator: Coordinator) -> None:
            record, build = await begin(coordinator, ttl_s=600)
            self.builds[record.number], self.begun[record.number] = build, record

        if self.go(act, refused, crash):
            number = model.begin()
            # one that never heard of its lock lets it go
            model.lock = 0 if crash else number

    @precondition(lambda self: self.model.exists and not self.model.lock)
    @rule(passed=st.booleans(), loses=st.sampled_from(["", "", "lease", "key"]), crash=crashes)
    def build(self, passed: bool, loses: str, crash: Crash) -> None:  # noqa: FBT001  hypothesis passes by name
        """The way to a swap in one step; its builder may lose the lock before the last of it."""
        self.begin(crash="")
        self.finish(back=0, passed=passed, fence="right", crash="")
        if loses:
            self.lose_the_lock(by_hand=loses == "key")
        self.activate(back=0, fence="right", force=not passed, crash=crash)
        if not loses:
            self.end(back=0, crash="")

    @rule(back=back)
    def renew(self, back: int) -> None:
        number = self.number(back)
        if number in self.builds:
            refused = None if self.model.lock == number else FailedPrecondition
            self.go(lambda coordinator: renew(coordinator, self.builds[number]), refused)

    @precondition(lambda self: self.model.lock)
    @rule(by_hand=st.booleans())
    def lose_the_lock(self, by_hand: bool) -> None:  # noqa: FBT001  hypothesis passes by name
        if by_hand:
            self.go(lambda coordinator: coordinator.transact([], [Delete(LOCK)]))
        else:
            self.go(lambda coordinator: end_lease(coordinator, LOCK))
        self.model.lock = 0

    @rule(back=back, passed=st.booleans(), fence=fences, crash=crashes)
    def finish(self, back: int, passed: bool, fence: Fence, crash: Crash) -> None:  # noqa: FBT001  hypothesis passes by name
        number = self.number(back)
        version = self.model.versions.get(number)
        ours = self.model.lock == number and fence == "right"
        refused: type | None = FailedPrecondition
        if version is None:
            refused = NotFound
        elif version.state is BUILDING and ours:
            refused = None

        async def act(coordinator: Coordinator) -> None:
            registry = IndexRegistry(coordinator)
            record = await registry.version("", "docs", number)
            await registry.finish_build(
                record,
                self.fence(number, fence),
                documents=1,
                chunks=2,
                verdict=VERDICTS[passed],
            )

        if self.go(act, refused, crash):
            assert version is not None
            version.state, version.passed = READY, passed

    @precondition(lambda self: self.model.any(READY))
    @rule(back=back, passed=st.booleans())
    def verify_again(self, back: int, passed: bool) -> None:  # noqa: FBT001  hypothesis passes by name
        version = self.model.versions.get(self.number(back))

        async def act(coordinator: Coordinator) -> None:
            registry = IndexRegistry(coordinator)
            record = await registry.version("", "docs", self.number(back))
            await registry.set_verdict(record, documents=1, chunks=2, verdict=VERDICTS[passed])

        if self.go(act, None if version else NotFound) and version and version.state is READY:
            version.passed = passed

    @rule(back=back)
    def finish_as_it_was_begun(self, back: int) -> None:
        """A builder that slept knows the record of long ago: only a lock still held helps it."""
        number = self.number(back)
        version = self.model.versions.get(number)
        if number in self.begun and not (version and self.model.is_built(number)):
            with pytest.raises((FailedPrecondition, Contended)):
                self.run(
                    IndexRegistry(self.coordinator).finish_build(
                        self.begun[number],
                        self.begun[number].fence,
                        documents=1,
                        chunks=2,
                        verdict=PASSED,
                    )
                )

    @rule(back=back, crash=crashes)
    def end(self, back: int, crash: Crash) -> None:
        number, model = self.number(back), self.model
        if number not in self.builds:
            return
        fence = self.builds[number].fence
        held = model.lock == number
        if self.go(
            lambda coordinator: Builds(coordinator).end("", "docs", number, fence, reason="stop"),
            crash=crash if held else "",
        ):
            if number in model.versions and model.is_built(number):
                model.retire(model.versions[number], FAILED)
            model.lock = 0 if held else model.lock

    @rule(back=back, fence=fences, force=st.booleans(), crash=crashes)
    def activate(self, back: int, fence: Fence, force: bool, crash: Crash) -> None:  # noqa: FBT001  hypothesis passes by name
        number, model = self.number(back), self.model
        refused = model.why_not_activate(number, fence, force=force)
        moves = refused is None and number != model.pointer

        async def act(coordinator: Coordinator) -> None:
            _, changed = await IndexRegistry(coordinator).activate(
                "",
                "docs",
                number,
                fence=self.fence(number, fence),
                force=force,
                requested_by="kim@host",
            )
            assert changed is moves

        if self.go(act, refused, crash if moves else "") and moves:
            model.activate(number)

    @precondition(lambda self: len(self.model.activatable()) > 1)
    @rule(data=st.data())
    def activate_two_at_once(self, data: st.DataObject) -> None:
        """One of them or both in turn wins; the model takes in which."""
        registry, model = IndexRegistry(self.coordinator), self.model
        numbers = st.sampled_from(model.activatable())
        pair = data.draw(st.lists(numbers, min_size=2, max_size=2, unique=True))

        async def both() -> list[object]:
            return await asyncio.gather(
                *(registry.activate("", "docs", number) for number in pair), return_exceptions=True
            )

        results = self.run(both())
        assert all(isinstance(one, tuple | Contended) for one in results)
        moved = [one[0] for one in results if isinstance(one, tuple)]
        assert moved
        for pointer in sorted(moved, key=lambda one: one.generation):
            model.activate(pointer.version)
        self.agrees()
        # whoever won, it goes on from one state, so that a run can be repeated
        for number in reversed(pair):
            self.run(registry.activate("", "docs", number))
            if model.pointer != number:
                model.activate(number)

    @precondition(lambda self: len(self.model.versions) > 1)
    @rule(back=st.none() | back, crash=crashes)
    def roll_back(self, back: int | None, crash: Crash) -> None:
        model = self.model
        asked = 0 if back is None else self.number(back)
        target = asked or model.last_active()
        version = model.versions.get(target)
        refused: type | None = None
        if not model.exists or (asked and version is None):
            refused = NotFound
        elif version is None or version.state not in {RETIRED, ACTIVE}:
            refused = FailedPrecondition
        moves = refused is None and target != model.pointer
        if (
            self.go(
                lambda coordinator: IndexRegistry(coordinator).roll_back(
                    "", "docs", to_version=asked
                ),
                refused,
                crash if moves else "",
            )
            and moves
        ):
            model.activate(target)

    @precondition(lambda self: len(self.model.versions) > 1)
    @rule(back=back, delete=st.booleans())
    def give_up(self, back: int, delete: bool) -> None:  # noqa: FBT001  hypothesis passes by name
        number, model = self.number(back), self.model
        version = model.versions.get(number)
        refused: type | None = None
        if version is None:
            refused = NotFound
        elif version.state is ACTIVE or model.is_built(number):
            refused = FailedPrecondition

        async def act(coordinator: Coordinator) -> None:
            registry = IndexRegistry(coordinator)
            record = await registry.fail(await registry.version("", "docs", number), "given up")
            if delete:
                await registry.delete_version(record)

        if self.go(act, refused):
            assert version is not None
            model.retire(version, FAILED)
            if delete:
                del model.versions[number]

    @precondition(lambda self: self.model.lock or len(self.model.versions) > 1)
    @rule(back=back)
    def write(self, back: int) -> None:
        number, model = self.number(back), self.model
        version = model.versions.get(number)
        refused: type | None = None
        if version is None:
            refused = NotFound
        elif version.state is not ACTIVE and not model.is_built(number):
            refused = FailedPrecondition

        async def act(coordinator: Coordinator) -> None:
            registry = IndexRegistry(coordinator)
            record = await registry.version("", "docs", number)
            assert await registry.check_writable(record) == record

        self.go(act, refused)

    @precondition(lambda self: self.model.exists)
    @rule()
    def collect(self) -> None:
        async def act(coordinator: Coordinator) -> set[int]:
            registry = IndexRegistry(coordinator)
            doomed = collectable(
                await registry.collection("", "docs"),
                keep_versions=1,
                keep_days=30,
                keep_failed_s=60,
                now=datetime.now(UTC) + LATER,
            )
            for record in doomed:
                await registry.delete_version(await registry.fail(record, "collected"))
            return {record.number for record in doomed}

        expected = self.model.collectable()
        assert self.run(act(self.coordinator)) == expected
        for number in expected:
            del self.model.versions[number]

    @precondition(lambda self: self.model.last > 4)
    @rule()
    def delete(self) -> None:
        self.go(lambda coordinator: IndexRegistry(coordinator).delete_collection("", "docs"))
        self.model = Model(last=self.model.last)

    @rule()
    def reopen(self) -> None:
        """The process dies; embedded, its leases die with it."""
        self.run(self.coordinator.aclose())
        self.coordinator = self.run(self.opened())
        if self.place.kind == "embedded":
            self.model.lock = 0

    @invariant()
    def agrees(self) -> None:
        model, registry = self.model, IndexRegistry(self.coordinator)
        if not model.exists:
            with pytest.raises(NotFound):
                self.run(registry.collection("", "docs"))
            assert self.run(Builds(self.coordinator).current("", "docs")) is None
            return
        state = self.run(registry.collection("", "docs"))
        seen = {
            one.number: (one.state, one.verdict and one.verdict.passed, one.forced is not None)
            for one in state.versions
        }
        assert seen == {n: (v.state, v.passed, v.forced) for n, v in model.versions.items()}
        pointer = state.active
        where = (pointer.version, pointer.previous_version, pointer.generation) if pointer else None
        expected = (model.pointer, model.previous, model.generation) if model.pointer else None
        assert where == expected
        assert (state.build.version if state.build else 0) == model.lock
        active = [one.number for one in state.versions if one.state is ACTIVE]
        assert active == ([pointer.version] if pointer else [])


@pytest.mark.parametrize("kind", ["embedded", "etcd"])
def test_a_collection_lives_as_its_model(
    kind: Literal["embedded", "etcd"], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    endpoint = request.getfixturevalue("etcd").endpoint if kind == "etcd" else "unused:1"

    class Here(LifeCycle):
        def __init__(self) -> None:
            number = next(_places)
            self.place = CoordinatorSettings(
                kind=kind,
                path=tmp_path / f"{number}.db",
                endpoints=(endpoint,),
                prefix=f"/test/life/{number}",
            )
            super().__init__()

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=80,
            stateful_step_count=50,
            deadline=None,
            # shrinking takes minutes; the steps and the blob of what failed are printed
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            print_blob=True,
        ),
    )
