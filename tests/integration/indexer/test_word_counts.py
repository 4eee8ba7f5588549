"""Words are counted beside the writes: what is published ends in what a recount gives."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from common.coordination import CoordinatorSettings, Put, StatisticsRegistry, keys
from common.errors import Unavailable
from common.word_parts import WordParts, words_collection
from indexer.word_counts import Counter
from sluice.collections.v1 import collections_pb2 as pb
from sluice.index.v1 import index_pb2
from tests.integration.etcd import Etcd
from tests.integration.indexer.conftest import SETTINGS, document, open_running, until
from tests.word_recount import published, recounted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from common.chroma import Chroma
    from common.coordination import VersionRecord
    from indexer.settings import IndexerSettings
    from tests.integration.indexer.conftest import Running

ACTIVE, READY = pb.VERSION_STATE_ACTIVE, pb.VERSION_STATE_READY


def counting(*, interval_s: float = 0.05, audit_s: float = 600) -> IndexerSettings:
    counts = SETTINGS.word_counts.model_copy(update={"interval_s": interval_s, "audit_s": audit_s})
    return SETTINGS.model_copy(update={"word_counts": counts})


@pytest.fixture
async def running(tmp_path: Path, chroma: Chroma) -> AsyncIterator[Running]:
    settings = CoordinatorSettings(path=tmp_path / "coordinator")
    async with open_running(chroma, settings, settings=counting()) as opened:
        yield opened


async def is_exact(running: Running, number: int = 1) -> bool:
    there = await published(running.chroma, running.coordinator, number)
    return there == await recounted(running.chroma, number)


async def until_exact(running: Running, number: int = 1) -> None:
    async def exact() -> bool:
        return await is_exact(running, number)

    await until(exact)


async def delete(running: Running, *document_ids: str) -> None:
    deletions = [index_pb2.DocumentDeletion(document_id=one) for one in document_ids]
    request = index_pb2.DeleteDocumentsRequest(collection="docs", documents=deletions)
    await running.index.DeleteDocuments(request)


async def test_what_is_written_changed_and_deleted_is_counted(running: Running) -> None:
    await running.create()
    acks = await running.send([document("a", title="A title"), document("b")])
    await until_exact(running)
    first = await recounted(running.chroma, 1)
    assert first["chunks"] > 2
    assert first["title_words"] > 0
    await running.send([document("a", version=2, content="another text of it, see NN-HA-42")])
    await until_exact(running)
    assert await recounted(running.chroma, 1) != first
    await delete(running, *(ack.document_id for ack in acks))
    await until_exact(running)
    assert (await recounted(running.chroma, 1))["chunks"] == 0


async def test_a_description_tells_what_was_counted(running: Running) -> None:
    await running.create()
    await running.send([document("a", title="A title"), document("b")])
    await until_exact(running)
    (version,) = (await running.describe()).versions
    counted, told = await recounted(running.chroma, 1), version.word_statistics
    assert (told.chunks, told.text_words, told.title_words, told.terms) == (
        counted["chunks"],
        counted["text_words"],
        counted["title_words"],
        len(counted["terms"]),
    )
    assert told.chunks == version.counts.chunks
    assert (told.analysis, told.parts) == (1, 1)


async def test_a_version_is_counted_before_it_is_ready(tmp_path: Path, chroma: Chroma) -> None:
    settings = CoordinatorSettings(path=tmp_path / "coordinator")
    async with open_running(chroma, settings, settings=counting(interval_s=3_600)) as running:
        await running.create()
        number = await running.built(document("a"), document("b"))
        assert await is_exact(running, number)
        assert (await recounted(chroma, number))["chunks"]


async def test_what_cannot_be_counted_is_verified_all_the_same(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(self: Counter, record: VersionRecord) -> None:
        del self, record
        raise Unavailable("the ledger lies on a disk that is full")

    await running.create()
    with monkeypatch.context() as patched:
        patched.setattr(Counter, "count", failing)
        number = await running.built(document("a"))
        assert (await running.states())[number] == READY
    assert "could not be counted" in caplog.text
    await until_exact(running, number)


async def test_what_a_repair_deletes_is_counted(running: Running) -> None:
    await running.create()
    await running.send([document("a"), document("b")])
    await until_exact(running)
    store = await running.chroma.collection("default.docs.v000001")
    ids = (await store.get(include=())).ids
    await store.delete([next(id_ for id_ in ids if id_.endswith(":0"))])
    assert not await is_exact(running)
    await running.repair()
    await until_exact(running)


async def test_a_deleted_version_leaves_nothing(running: Running) -> None:
    await running.create()
    number = await running.built(document("a"))
    await until_exact(running, number)
    name = words_collection(f"default.docs.v{number:06d}")
    assert name in await running.chroma.collections()
    assert not (await running.delete(number)).pending
    assert name not in await running.chroma.collections()
    key = keys.statistics_key("", "docs", number)
    assert await running.coordinator.get(key) is None


async def test_a_deleted_collection_leaves_nothing(running: Running) -> None:
    await running.create()
    await running.send([document("a")])
    await until_exact(running)
    request = pb.DeleteCollectionRequest(collection="docs")
    await running.collections.DeleteCollection(request)

    async def gone() -> bool:
        return not await running.chroma.collections()

    await until(gone)
    left = await running.coordinator.list(keys.statistics_prefix("", "docs"))
    assert left.entries == ()


async def test_an_audit_finds_what_nobody_told_of(tmp_path: Path, chroma: Chroma) -> None:
    coordinator = CoordinatorSettings(path=tmp_path / "coordinator")
    settings = counting(interval_s=3_600, audit_s=0.1)
    async with open_running(chroma, coordinator, settings=settings) as running:
        await running.create()
        await running.send([document("a")])
        await until_exact(running)
        store = await running.chroma.collection("default.docs.v000001")
        await store.delete((await store.get(include=())).ids[:1])
        await until_exact(running)


async def test_an_audit_mends_tables_that_were_damaged(tmp_path: Path, chroma: Chroma) -> None:
    coordinator = CoordinatorSettings(path=tmp_path / "coordinator")
    settings = counting(interval_s=3_600, audit_s=0.1)
    async with open_running(chroma, coordinator, settings=settings) as running:
        await running.create()
        await running.send([document("a")])
        await until_exact(running)
        before = (await running.describe()).versions[0].word_statistics
        await chroma.delete_collection(words_collection("default.docs.v000001"))

        async def mended() -> bool:
            now = (await running.describe()).versions[0].word_statistics
            return now.table != before.table

        await until(mended)
        await until_exact(running)
        store = "default.docs.v000001"
        assert len(await WordParts(chroma).ids(store)) == before.parts


async def test_a_key_that_cannot_be_read_is_replaced(tmp_path: Path, chroma: Chroma) -> None:
    coordinator = CoordinatorSettings(path=tmp_path / "coordinator")
    settings = counting(interval_s=3_600, audit_s=0.1)
    async with open_running(chroma, coordinator, settings=settings) as running:
        await running.create()
        await running.send([document("a")])
        await until_exact(running)
        await running.coordinator.transact([], [Put(keys.statistics_key("", "docs", 1), b"{")])
        await until_exact(running)


async def test_two_indexers_end_in_one_exact_table(tmp_path: Path, chroma: Chroma) -> None:
    with Etcd(tmp_path / "etcd") as etcd:
        settings = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,))
        async with (
            open_running(chroma, settings, settings=counting(interval_s=0.02)) as one,
            open_running(chroma, settings, settings=counting(interval_s=0.02)) as other,
        ):
            await one.create()
            rng = random.Random(3)
            for version in range(1, 13):
                writer = rng.choice([one, other])
                names = rng.sample("abcdefgh", 3)
                texts = [f"{name}{version} says {rng.random()}. " * 5 for name in names]
                await writer.send(
                    [document(name, version, text) for name, text in zip(names, texts, strict=True)]
                )
            await until_exact(one)
            # Drafts and old tables are gone once nobody counts any more.
            seen = await StatisticsRegistry(one.coordinator).see("default", "docs", 1)
            assert seen is not None
            assert seen.published is not None

            async def only_one_table() -> bool:
                seen = await StatisticsRegistry(one.coordinator).see("default", "docs", 1)
                assert seen is not None
                assert seen.published is not None
                ids = await WordParts(chroma).ids("default.docs.v000001")
                return {id_.partition(":")[0] for id_ in ids} == {seen.published.table}

            await until(only_one_table)
