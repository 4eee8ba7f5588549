"""Versions in Chroma before their golden queries, asked at real query servers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from common.coordination import CoordinatorSettings, VersionState, open_coordinator
from common.errors import FailedPrecondition
from common.identity import document_id
from common.rpc import ChannelSettings
from indexer.golden import Exam, GoldenQuery, Miss
from indexer.query_client import QueryClient
from indexer.verification import verify
from tests.integration.indexer.query_servers import LARGE, SMALL, Installation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from common.chroma import Chroma
    from common.coordination import VersionRecord
    from indexer.verification import Examined

WORDS = ["granite", "willow", "harbour", "thunder"]
EXAM = Exam(
    (
        GoldenQuery("granite", ("file:///granite",)),
        GoldenQuery("willow", ("willow",)),
        GoldenQuery("harbour", (document_id("file:///harbour"),)),
        GoldenQuery("thunder", ("thunder",)),
    ),
    threshold=0.5,
    max_drop=0.2,
    depth=1,
)


@pytest.fixture
async def installation(chroma: Chroma, tmp_path: Path) -> AsyncIterator[Installation]:
    coordinator = open_coordinator(CoordinatorSettings(path=tmp_path / "coordinator"))
    yield Installation(chroma, coordinator)
    await coordinator.aclose()


async def examined(
    installation: Installation,
    record: VersionRecord,
    exam: Exam = EXAM,
    embedders: Sequence[object] = (SMALL,),
) -> Examined:
    async with AsyncExitStack() as stack:
        for embedder in embedders:
            await stack.enter_async_context(installation.query_server(embedder))  # type: ignore[arg-type]  # an Embedder
        ask = await stack.enter_async_context(
            QueryClient.open("", ChannelSettings(), installation.coordinator)
        )
        active = await installation.registry.pointer("default", "docs")
        store = await installation.store(record)
        return await verify(store, record, exam=exam, ask=ask, active=active)


async def test_a_version_that_finds_all_passes(installation: Installation) -> None:
    await installation.version(WORDS[1:], active=True)
    found = await examined(installation, await installation.version(WORDS))
    assert found.verdict.passed
    golden = found.verdict.golden
    assert golden is not None
    assert (golden.queries, golden.candidate, golden.active) == (4, 1.0, 0.75)
    assert (golden.active_version, golden.threshold, golden.depth) == (1, 0.5, 1)
    assert (found.misses, found.verdict.findings) == ((), ())


async def test_a_version_that_lost_a_source_falls_behind_the_active_one_and_says_which(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    record = await installation.version(WORDS[:3])
    found = await examined(installation, record)
    assert not found.verdict.passed
    (miss,) = found.misses
    assert (miss.query, miss.missing, miss.active_finds) == ("thunder", ("thunder",), True)
    assert found.verdict.findings == (
        "golden queries score 0.7500, more than 0.2 below the 1.0000 of the active version 1",
        'golden query "thunder" does not find thunder; the active version finds all',
    )
    tolerant = await examined(installation, record, replace(EXAM, max_drop=0.25))
    assert tolerant.verdict.passed
    assert tolerant.misses == (miss,)
    strict = await examined(installation, record, replace(EXAM, max_drop=1.0, threshold=0.8))
    assert strict.verdict.findings[0] == "golden queries score 0.7500, below the threshold of 0.8"


async def test_an_active_version_of_another_embedder_is_not_compared(
    installation: Installation,
) -> None:
    await installation.version(WORDS, SMALL, active=True)
    record = await installation.version(WORDS[:3], LARGE)
    found = await examined(installation, record, embedders=(SMALL, LARGE))
    golden = found.verdict.golden
    assert golden is not None
    assert (golden.candidate, golden.active, golden.active_version) == (0.75, None, 0)
    assert found.verdict.passed
    assert [miss.active_finds for miss in found.misses] == [False]
    with pytest.raises(FailedPrecondition, match="start a query server that embeds"):
        await examined(installation, record, embedders=(SMALL,))


async def test_an_empty_version_finds_nothing_and_one_that_builds_cannot_be_asked(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    found = await examined(installation, await installation.version([]))
    assert found.verdict.golden is not None
    assert found.verdict.golden.candidate == 0
    assert found.misses[0] == Miss("granite", ("file:///granite",), (), active_finds=True)
    building = await installation.version(WORDS)
    building = await installation.registry.set_state(building, VersionState.BUILDING)
    with pytest.raises(FailedPrecondition, match="building"):
        await examined(installation, building)
