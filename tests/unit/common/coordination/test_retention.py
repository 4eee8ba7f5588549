"""Which versions nobody needs any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from common.coordination import (
    Build,
    ChunkingSpec,
    CollectionState,
    Pointer,
    Verdict,
    VersionRecord,
    VersionState,
    collectable,
)
from common.embedding import EmbedderSpec

EMBEDDER = EmbedderSpec(
    model="minilm", digest="cd" * 32, dimension=384, pooling="mean", max_tokens=256, variant="fp32"
)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def version(
    number: int,
    state: VersionState,
    *,
    retired: timedelta | None = None,
    age: timedelta = 100 * DAY,
) -> VersionRecord:
    """A version made ``age`` ago and out of use for as long as ``retired``."""
    return VersionRecord(
        tenant="default",
        collection="docs",
        number=number,
        state=state,
        embedder=EMBEDDER,
        chunking=ChunkingSpec("sentence", 256, 32),
        documents=None,
        chunks=None,
        created_at=NOW - age,
        activated_at=None,
        retired_at=None if retired is None else NOW - retired,
    )


def collection(*versions: VersionRecord, building: int = 0) -> CollectionState:
    active = [one.number for one in versions if one.state is VersionState.ACTIVE]
    pointer = Pointer("default", "docs", active[0], 1, EMBEDDER, NOW, 0) if active else None
    build = Build("default", "docs", building, "a", NOW, 0, 0, 0.0, NOW, 15) if building else None
    return CollectionState("default", "docs", pointer, versions, build)


def doomed(
    state: CollectionState, *, versions: int = 2, days: float = 0, failed_s: float = 3600
) -> list[int]:
    found = collectable(
        state, keep_versions=versions, keep_days=days, keep_failed_s=failed_s, now=NOW
    )
    return [record.number for record in found]


def test_the_last_retired_ones_stay_and_those_retired_lately() -> None:
    state = collection(
        # rolled back and forth: the numbers do not tell the order
        version(1, VersionState.RETIRED, retired=3 * DAY),
        version(2, VersionState.RETIRED, retired=9 * DAY),
        version(3, VersionState.RETIRED, retired=6 * DAY),
        version(4, VersionState.RETIRED, retired=12 * DAY),
        version(5, VersionState.ACTIVE),
    )
    assert doomed(state) == [2, 4]
    assert doomed(state, days=10) == [4]
    assert doomed(state, days=13) == []
    assert doomed(state, versions=0) == [1, 2, 3, 4]
    assert doomed(state, versions=4) == []


def test_of_versions_that_nobody_activates_the_last_stay_and_always_one() -> None:
    ready = [version(number, VersionState.READY) for number in (1, 2, 3)]
    assert doomed(collection(*ready)) == []
    active = version(4, VersionState.ACTIVE)
    later = version(5, VersionState.READY)
    assert doomed(collection(*ready, active, later), versions=3) == [1]
    assert doomed(collection(*ready, active, later), versions=1) == [1, 2, 3]
    assert doomed(collection(*ready, active, later), versions=0) == [1, 2, 3]
    assert doomed(collection(*ready, active, later, building=2), versions=0) == [1, 3]
    # verified again, it is the newest
    again = replace(ready[0], verdict=Verdict(passed=False, verified_at=NOW - DAY))
    assert doomed(collection(again, *ready[1:], active), versions=1) == [2, 3]
    assert doomed(collection(again, active), versions=0, days=2) == []


@pytest.mark.parametrize("state", [VersionState.FAILED, VersionState.BUILDING])
def test_what_came_to_nothing_stays_a_while(state: VersionState) -> None:
    active = version(9, VersionState.ACTIVE)
    young = version(1, state, age=timedelta(minutes=59))
    old = version(2, state, age=timedelta(minutes=61))
    assert doomed(collection(young, old, active)) == [2]
    assert doomed(collection(young, old)) == [2]
    assert doomed(collection(young, old, active), failed_s=4000) == []
    late = version(3, state, retired=timedelta(minutes=59))
    assert doomed(collection(late, active)) == []


def test_what_is_active_or_being_built_is_never_collected() -> None:
    state = collection(
        version(1, VersionState.ACTIVE), version(2, VersionState.BUILDING), building=2
    )
    assert doomed(state, versions=0, failed_s=0) == []
    assert doomed(replace(state, build=None), versions=0, failed_s=0) == [2]
