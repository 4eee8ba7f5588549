"""Versions for the tests of this folder, made the way the services make them, and lost leases."""

from __future__ import annotations

from datetime import UTC, datetime

from common.coordination import (
    Build,
    Builds,
    ChunkingSpec,
    Coordinator,
    GoldenScore,
    IndexRegistry,
    Pointer,
    Verdict,
    VersionRecord,
    VersionState,
)
from common.embedding import EmbedderSpec

CHUNKING = ChunkingSpec("sentence", 256, 32)
EMBEDDER = EmbedderSpec(
    model="all-MiniLM-L6-v2",
    digest="ab" * 32,
    dimension=384,
    pooling="mean",
    max_tokens=256,
    variant="int8",
)
PASSED = Verdict(passed=True, verified_at=datetime(2026, 5, 1, 12, 30, 15, 250_000, UTC))
FELL_SHORT = Verdict(
    passed=False,
    verified_at=datetime(2026, 5, 2, tzinfo=UTC),
    findings=("golden queries: 0.25 of 0.9", "2 documents are incomplete"),
    golden=GoldenScore(
        queries=40, depth=10, threshold=0.9, candidate=0.25, active=0.0, active_version=1
    ),
)


async def first_version(coordinator: Coordinator, name: str = "docs") -> Pointer:
    """Make a collection with an active version."""
    registry = IndexRegistry(coordinator)
    record = await registry.begin_version("", name, EMBEDDER, CHUNKING)
    await registry.set_state(record, VersionState.READY, documents=0, chunks=0)
    return (await registry.activate("", name, record.number))[0]


async def begin(
    coordinator: Coordinator, builder: str = "host a, process 7", *, ttl_s: int = 60
) -> tuple[VersionRecord, Build]:
    """Begin the next version of the collection ``docs``."""
    return await Builds(coordinator).begin(
        "", "docs", EMBEDDER, CHUNKING, builder=builder, ttl_s=ttl_s
    )


async def renew(coordinator: Coordinator, build: Build) -> Build:
    """Renew the lock of a build that goes on."""
    return await Builds(coordinator).renew(
        "", "docs", build.version, build.fence, documents=1, chunks=2, documents_per_s=0.5
    )


async def finish(
    coordinator: Coordinator, record: VersionRecord, verdict: Verdict = PASSED
) -> VersionRecord:
    """Verify a version as its builder."""
    return await IndexRegistry(coordinator).finish_build(
        record, record.fence, documents=3, chunks=7, verdict=verdict
    )


async def built(coordinator: Coordinator, verdict: Verdict = PASSED) -> VersionRecord:
    """A READY version whose builder has gone."""
    record, build = await begin(coordinator)
    await finish(coordinator, record, verdict)
    ready = await Builds(coordinator).end("", "docs", build.version, build.fence, reason="")
    assert ready is not None
    return ready


async def end_lease(coordinator: Coordinator, key: str) -> None:
    """Revoke the lease of a key, as an administrator would."""
    entry = await coordinator.get(key)
    assert entry is not None
    assert entry.lease
    await coordinator.lease(entry.lease, 1).revoke()
