"""Word statistics are loaded beside the searches, followed, bounded, and never in the way."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.coordination import Routes, StatisticsRegistry, VersionState, WordStatisticsRecord
from common.identity import store_collection
from common.word_parts import WordParts
from common.word_table import WordTable, encode
from query.index_version import IndexVersion
from query.word_statistics import FollowedStatistics
from rerank_zig import ANALYSIS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.chroma import Chroma
    from common.coordination import Coordinator, Pointer
    from rerank_zig import WordStatistics
    from tests.integration.query.written_index import WrittenIndex

MIB = 2**20
WITHIN_S = 20
FIRST, SECOND, THIRD = {7: 2, 11: 1}, {7: 3, 11: 1, 2**32 - 1: 3}, {5: 1}


class Parts(WordParts):
    """Counts what is read, and lets it pass when the test says so."""

    def __init__(self, chroma: Chroma) -> None:
        super().__init__(chroma)
        self.open = asyncio.Event()
        self.open.set()
        self.reads: list[str] = []

    async def read(self, store_collection: str, table: str, parts: int, *, max_bytes: int) -> bytes:
        self.reads.append(table)
        await self.open.wait()
        return await super().read(store_collection, table, parts, max_bytes=max_bytes)


@pytest.fixture
def parts(chroma: Chroma) -> Parts:
    return Parts(chroma)


@asynccontextmanager
async def following(
    coordinator: Coordinator, parts: WordParts, *, max_bytes: int = MIB, keep_s: float = 600
) -> AsyncIterator[FollowedStatistics]:
    async with AsyncExitStack() as stack:
        routes = await Routes.open(coordinator)
        stack.push_async_callback(routes.aclose)
        followed = FollowedStatistics(
            routes, parts, max_bytes=max_bytes, keep_s=keep_s, retry_s=0.05
        )
        stack.push_async_callback(followed.aclose)
        yield followed


async def publish(
    coordinator: Coordinator,
    parts: WordParts,
    table: str,
    frequencies: dict[int, int],
    *,
    number: int = 1,
    collection: str = "docs",
    analysis: int = ANALYSIS,
    digest: str = "",
) -> WordStatisticsRecord:
    chunks = max(frequencies.values(), default=0)
    blob = encode(
        WordTable(
            analysis=analysis,
            chunks=chunks,
            text_words=90,
            title_words=9,
            hashes=np.array(list(frequencies), np.uint32),
            frequencies=np.array(list(frequencies.values()), np.uint32),
        )
    )
    record = WordStatisticsRecord(
        tenant="default",
        collection=collection,
        number=number,
        table=table,
        chunks=chunks,
        terms=len(frequencies),
        text_words=90,
        title_words=9,
        parts=await parts.write(store_collection("default", collection, number), table, blob),
        digest=digest or hashlib.sha256(blob).hexdigest(),
        counted_at=datetime.now(UTC),
        analysis=analysis,
    )
    await announce(coordinator, record)
    return record


async def announce(coordinator: Coordinator, record: WordStatisticsRecord) -> None:
    registry = StatisticsRegistry(coordinator)
    seen = await registry.see(record.tenant, record.collection, record.number)
    assert seen is not None
    assert await registry.publish(seen, record)


def terms(statistics: WordStatistics | None) -> dict[int, int] | None:
    if statistics is None:
        return None
    pairs = zip(statistics.hashes.tolist(), statistics.frequencies.tolist(), strict=True)
    return dict(pairs)


async def until_knows(
    followed: FollowedStatistics, version: IndexVersion, expected: dict[int, int] | None
) -> None:
    async with asyncio.timeout(WITHIN_S):
        while terms(followed.of(version)) != expected:  # noqa: ASYNC110 — asking is what is shown
            await asyncio.sleep(0.005)


async def until(condition) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 — nothing tells that something was dropped
            await asyncio.sleep(0.005)


@pytest.fixture
async def pointer(index: WrittenIndex) -> Pointer:
    return await index.activate(await index.begin())


async def test_what_is_published_is_known_soon_and_whole(coordinator, parts, pointer) -> None:
    version = IndexVersion.active(pointer)
    async with following(coordinator, parts) as followed:
        assert followed.of(version) is None
        await publish(coordinator, parts, "one", FIRST)
        await until_knows(followed, version, FIRST)
        statistics = followed.of(version)
        assert statistics is not None
        assert (statistics.chunks, statistics.text_words, statistics.title_words) == (2, 90, 9)
        await publish(coordinator, parts, "two", SECOND)
        await until_knows(followed, version, SECOND)
    assert followed.bytes == 0


async def test_what_was_published_before_is_loaded_before_anybody_asks(
    coordinator, parts, pointer
) -> None:
    await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts) as followed:
        await until(lambda: followed.bytes)
        assert terms(followed.of(IndexVersion.active(pointer))) == FIRST


async def test_asking_never_waits_and_the_last_table_serves_meanwhile(
    coordinator, parts, pointer
) -> None:
    version = IndexVersion.active(pointer)
    await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts) as followed:
        await until_knows(followed, version, FIRST)
        parts.open.clear()
        await publish(coordinator, parts, "two", SECOND)
        await until(lambda: parts.reads[-1] == "two")
        assert terms(followed.of(version)) == FIRST
        parts.open.set()
        await until_knows(followed, version, SECOND)


async def test_the_same_table_confirmed_anew_is_not_read_again(coordinator, parts, pointer) -> None:
    version = IndexVersion.active(pointer)
    record = await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts) as followed:
        await until_knows(followed, version, FIRST)
        await announce(coordinator, record)
        await publish(coordinator, parts, "other", FIRST)
        await publish(coordinator, parts, "two", SECOND)
        await until_knows(followed, version, SECOND)
    assert parts.reads == ["one", "two"]


async def test_parts_that_are_gone_are_told_once_and_asked_for_again(
    coordinator, parts, pointer, caplog
) -> None:
    version = IndexVersion.active(pointer)
    record = await publish(coordinator, parts, "one", FIRST)
    store = version.store_collection
    await parts.delete(store, await parts.ids(store))
    with caplog.at_level(logging.WARNING):
        async with following(coordinator, parts) as followed:
            async with asyncio.timeout(WITHIN_S):
                while len(parts.reads) < 3:
                    assert followed.of(version) is None
                    await asyncio.sleep(0.005)
            blob_parts = await publish(coordinator, parts, "spare", FIRST)
            assert blob_parts.digest == record.digest
            await until_knows(followed, version, FIRST)
    told = [one for one in caplog.records if "cannot be loaded" in one.message]
    assert len(told) == 1
    assert told[0].index_version == 1


@pytest.mark.parametrize("wrong", ["digest", "analysis", "frequency", "terms", "too large"])
async def test_a_table_that_does_not_fit_is_not_used_and_the_last_one_stays(
    coordinator, parts, pointer, caplog, wrong
) -> None:
    version = IndexVersion.active(pointer)
    await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts, max_bytes=32) as followed:
        await until_knows(followed, version, FIRST)
        with caplog.at_level(logging.WARNING):
            match wrong:
                case "digest":
                    await publish(coordinator, parts, "bad", SECOND, digest="00" * 32)
                case "analysis":
                    await publish(coordinator, parts, "bad", SECOND, analysis=ANALYSIS + 1)
                case "too large":
                    many = dict.fromkeys(range(1, 6), 1)
                    await publish(coordinator, parts, "bad", many)
                case "frequency" | "terms" as field:
                    await publish_at_odds(coordinator, parts, field)
            await until(lambda: "cannot be loaded" in caplog.text)
        assert terms(followed.of(version)) == FIRST


async def publish_at_odds(coordinator, parts, field: str) -> None:
    """A table of which the record, digest included, does not agree with itself."""
    frequency = 9 if field == "frequency" else 1
    blob = encode(
        WordTable(ANALYSIS, 2, 9, 9, np.array([7], np.uint32), np.array([frequency], np.uint32))
    )
    record = WordStatisticsRecord(
        tenant="default",
        collection="docs",
        number=1,
        table="bad",
        chunks=2,
        terms=1 if field == "frequency" else 0,
        text_words=9,
        title_words=9,
        parts=await parts.write("default.docs.v000001", "bad", blob),
        digest=hashlib.sha256(blob).hexdigest(),
        counted_at=datetime.now(UTC),
        analysis=ANALYSIS,
    )
    await announce(coordinator, record)


async def test_a_version_without_chunks_has_none(coordinator, parts, pointer) -> None:
    version = IndexVersion.active(pointer)
    await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts) as followed:
        await until_knows(followed, version, FIRST)
        await publish(coordinator, parts, "empty", {})
        await until_knows(followed, version, None)


async def test_the_tables_of_a_deleted_version_are_dropped(index, coordinator, parts) -> None:
    record = await index.begin()
    await index.activate(await index.begin())
    await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts) as followed:
        version = IndexVersion.recorded(record)
        await until_knows(followed, version, FIRST)
        failed = await index.registry.fail(record, "no longer wanted")
        await index.registry.delete_version(failed)
        await until_knows(followed, version, None)
        assert followed.bytes == 0


async def test_after_a_swap_the_new_tables_come_and_the_old_ones_go(
    index, coordinator, parts, pointer
) -> None:
    old = IndexVersion.active(pointer)
    await publish(coordinator, parts, "one", FIRST)
    async with following(coordinator, parts, keep_s=0.05) as followed:
        await until_knows(followed, old, FIRST)
        record = await index.begin()
        await publish(coordinator, parts, "two", THIRD, number=2)
        await index.activate(record)
        await until(lambda: followed.bytes == 8)
        assert parts.reads == ["one", "two"]
        assert terms(followed.of(IndexVersion.recorded(record))) == THIRD


async def test_all_tables_together_are_bounded_and_the_one_not_used_goes(
    index, coordinator, parts
) -> None:
    versions = {}
    for name in ("a", "b", "c"):
        versions[name] = IndexVersion.active(await index.activate(await index.begin(name)))
        await publish(coordinator, parts, f"table-{name}", FIRST, collection=name)
    async with following(coordinator, parts, max_bytes=32) as followed:
        await until_knows(followed, versions["a"], FIRST)
        await until_knows(followed, versions["b"], FIRST)
        assert followed.bytes == 32
        assert terms(followed.of(versions["a"])) == FIRST
        await until_knows(followed, versions["c"], FIRST)
        assert followed.bytes == 32
        assert terms(followed.of(versions["a"])) == FIRST
        assert followed.of(versions["b"]) is None


async def test_a_failed_version_is_never_asked_for(index, coordinator, parts) -> None:
    record = await index.begin()
    async with following(coordinator, parts) as followed:
        await index.registry.set_state(record, VersionState.FAILED)
        assert followed.of(IndexVersion.recorded(record)) is None
    assert parts.reads == []
