"""Passes that meet writes, each other, deletions and faults: who is last publishes the truth."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import pytest

from common.coordination import StatisticsRegistry, keys
from common.errors import Contended, NotFound, Unavailable
from common.word_parts import WordParts, words_collection
from common.word_table import encode
from indexer.settings import WordCountSettings
from indexer.store import ChromaCatalog, ChromaVectorStore
from indexer.word_counts import Counter, Counting, Ledgers, Publisher, publisher
from indexer.word_counts.counting import VERIFIED_WITHIN_S
from rerank_zig import ANALYSIS, RerankLibrary
from tests.integration.indexer.conftest import document, until
from tests.word_recount import published, recounted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from common.chroma import ChromaCollection
    from common.coordination import VersionRecord
    from common.word_table import WordTable
    from indexer.store import ChunkWords, VectorStore
    from tests.integration.indexer.conftest import Running

STORE = "default.docs.v000001"


class WatchedStore(ChromaVectorStore):
    """Tells how many chunks were read, and lets something happen after a listing or a reading."""

    def __init__(self, collection: ChromaCollection, catalog: WatchedCatalog) -> None:
        super().__init__(collection)
        self._catalog = catalog

    async def pages(self) -> AsyncGenerator[list[str], None]:
        async with aclosing(super().pages()) as pages:
            async for page in pages:
                yield page
        self._catalog.listings += 1
        if self._catalog.then:
            await self._catalog.then.pop(0)()

    async def words(self, chunk_ids: Sequence[str]) -> list[ChunkWords]:
        self._catalog.read += len(chunk_ids)
        found = await super().words(chunk_ids)
        if self._catalog.then_read:
            await self._catalog.then_read.pop(0)()
        return found


class WatchedCatalog(ChromaCatalog):
    def __init__(self, running: Running) -> None:
        super().__init__(running.chroma)
        self.listings = 0
        self.read = 0
        self.then: list[Callable[[], Awaitable[object]]] = []
        self.then_read: list[Callable[[], Awaitable[object]]] = []

    async def open(self, name: str) -> VectorStore:
        return WatchedStore(await self._chroma.collection(name), self)


class Indexer:
    """One that counts; several of them meet in the stores and the coordinator alone."""

    def __init__(self, running: Running, folder: Path | None) -> None:
        self.stores = WatchedCatalog(running)
        self.ledgers = Ledgers(folder, ANALYSIS)
        self.parts = WordParts(running.chroma)
        self.publisher = Publisher(StatisticsRegistry(running.coordinator), self.parts)
        self.counter = Counter(self.stores, self.ledgers, self.publisher, RerankLibrary.load())


@pytest.fixture
async def indexers(running: Running, tmp_path: Path) -> AsyncIterator[Callable[[str], Indexer]]:
    opened: list[Indexer] = []

    def opening(folder: str = "") -> Indexer:
        opened.append(Indexer(running, tmp_path / folder if folder else None))
        return opened[-1]

    yield opening
    for one in opened:
        await one.ledgers.aclose()


@pytest.fixture
async def record(running: Running) -> VersionRecord:
    await running.create()
    await running.send([document("a", title="A title"), document("b")])
    return await running.registry.version("", "docs", 1)


async def check_exact(running: Running) -> None:
    assert await published(running.chroma, running.coordinator, 1) == await recounted(
        running.chroma, 1
    )


@pytest.mark.parametrize("folder", ["", "ledgers"])
async def test_only_new_chunks_are_read_again(running, record, indexers, folder) -> None:
    one = indexers(folder)
    await one.counter.count(record)
    all_chunks = one.stores.read
    assert all_chunks == (await recounted(running.chroma, 1))["chunks"]
    (ack,) = await running.send([document("c")])
    await one.counter.count(record)
    assert one.stores.read == all_chunks + ack.chunk_count
    await check_exact(running)


async def test_a_folder_spares_the_next_process_the_reading(running, record, indexers) -> None:
    first = indexers("ledgers")
    await first.counter.count(record)
    await first.ledgers.aclose()
    second = indexers("ledgers")
    await second.counter.count(record)
    assert second.stores.read == 0
    await check_exact(running)


async def test_a_ledger_that_was_damaged_is_counted_anew(
    running, record, indexers, tmp_path, caplog
) -> None:
    first = indexers("ledgers")
    await first.counter.count(record)
    await first.ledgers.aclose()
    (file,) = (tmp_path / "ledgers").glob("*.sqlite")
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    second = indexers("ledgers")
    await running.send([document("c")])
    await second.counter.count(record)
    assert "thrown away" in caplog.text
    await check_exact(running)


async def test_a_count_that_began_earlier_never_wins(running, record, indexers) -> None:
    slow, fast = indexers(), indexers()

    async def meanwhile() -> None:
        await running.send([document("c", content="words that came later")])
        await fast.counter.count(record)

    slow.stores.then.append(meanwhile)
    await slow.counter.count(record)
    assert slow.stores.listings == 2
    await check_exact(running)


async def test_not_even_where_all_is_as_it_was_published(running, record, indexers) -> None:
    slow, fast = indexers(), indexers()
    await fast.counter.count(record)
    (ack,) = await running.send([document("c")])

    async def meanwhile() -> None:
        store = await running.chroma.collection(STORE)
        ids = (await store.get(include=())).ids
        await store.delete([id_ for id_ in ids if id_.startswith(ack.document_id)])
        await fast.counter.count(record)

    slow.stores.then_read.append(meanwhile)
    await slow.counter.count(record)
    assert slow.stores.listings == 2
    await check_exact(running)


async def test_one_that_is_always_overtaken_gives_up_for_now(running, record, indexers) -> None:
    slow, fast = indexers(), indexers()

    async def meanwhile() -> None:
        await fast.counter.count(record)

    slow.stores.then.extend([meanwhile] * 9)
    with pytest.raises(Contended):
        await slow.counter.count(record)
    await check_exact(running)
    (table,) = {id_.partition(":")[0] for id_ in await slow.parts.ids(STORE)}
    seen = await StatisticsRegistry(running.coordinator).see("", "docs", 1)
    assert seen is not None
    assert seen.published is not None
    assert seen.published.table == table


async def test_a_draft_of_one_that_died_goes_with_the_next_publication(
    running, record, indexers
) -> None:
    one = indexers()
    await one.parts.write(STORE, "dead", b"a draft")
    await one.counter.count(record)
    assert "dead:0" not in await one.parts.ids(STORE)
    await check_exact(running)


async def test_a_draft_written_meanwhile_stays(record, indexers) -> None:
    one = indexers()

    async def meanwhile() -> None:
        await one.parts.write(STORE, "alive", b"a draft")

    one.stores.then.append(meanwhile)
    await one.counter.count(record)
    assert "alive:0" in await one.parts.ids(STORE)


async def test_a_collection_deleted_meanwhile_stays_deleted(running, record, indexers) -> None:
    one = indexers()

    async def meanwhile() -> None:
        await running.registry.delete_pointer("", "docs")
        failed = await running.registry.version("", "docs", 1)
        await running.registry.fail(failed, "deleted on request")
        await running.registry.delete_collection("", "docs")

    one.stores.then.append(meanwhile)
    assert await one.counter.count(record) is None
    assert words_collection(STORE) not in await running.chroma.collections()
    assert await running.coordinator.get(keys.statistics_key("", "docs", 1)) is None


async def test_a_store_deleted_meanwhile_ends_the_count(record, indexers) -> None:
    one = indexers()

    async def meanwhile() -> None:
        await one.stores.delete(STORE)

    one.stores.then.append(meanwhile)
    with pytest.raises(NotFound):
        await one.counter.count(record)


async def test_what_a_newer_release_counted_is_left(record, indexers) -> None:
    newer, older = indexers(), indexers()
    newer.ledgers.analysis = ANALYSIS + 1
    counted = await newer.counter.count(record)
    assert counted.analysis == ANALYSIS + 1
    assert await older.counter.count(record) == counted
    assert older.stores.listings == 0


class Failing:
    """A counter that fails until it is told not to."""

    def __init__(self, counter: Counter, failures: int) -> None:
        self.counter = counter
        self.failures = failures

    async def count(self, record: VersionRecord) -> object:
        if self.failures:
            self.failures -= 1
            raise Unavailable("not now") if self.failures % 2 else RuntimeError("not now")
        return await self.counter.count(record)


async def test_faults_neither_end_the_counting_nor_are_forgotten(
    running, record, indexers, caplog
) -> None:
    one = indexers()
    failing = Failing(one.counter, 4)
    settings = WordCountSettings(interval_s=0.01)
    counting = Counting(running.registry, failing, one.ledgers, settings)  # type: ignore[arg-type]  # as one
    task = asyncio.create_task(counting.run())
    try:

        async def exact() -> bool:
            there = await published(running.chroma, running.coordinator, 1)
            return there == await recounted(running.chroma, 1)

        await until(exact)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    told = [one for one in caplog.records if "could not be counted" in one.message]
    assert len(told) == 4
    assert told[1].retry_s > told[0].retry_s
    assert record.number == told[0].index_version
    assert VERIFIED_WITHIN_S > 0


async def test_the_ledgers_of_other_versions_go(record, indexers, tmp_path) -> None:
    one = indexers("ledgers")
    await one.counter.count(record)
    await one.ledgers.keep_only({STORE})
    assert len(list((tmp_path / "ledgers").iterdir())) == 1
    await one.ledgers.keep_only(set())
    assert list((tmp_path / "ledgers").iterdir()) == []


async def test_a_verification_that_was_given_up_leaves_the_version_to_be_counted(
    running, record, indexers
) -> None:
    one = indexers()
    begun, never = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        begun.set()
        await never.wait()

    one.stores.then.append(held)
    settings = WordCountSettings(interval_s=0.01)
    counting = Counting(running.registry, one.counter, one.ledgers, settings)
    counting.written(record)
    verifying = asyncio.create_task(counting.bring_up_to_date(record))
    await begun.wait()
    verifying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await verifying
    assert [due.record for due in counting._due.values()] == [record]


async def test_a_table_of_a_version_that_is_gone_goes_when_it_is_met(
    running, record, indexers
) -> None:
    one = indexers()
    await one.counter.count(record)
    failed = await running.registry.begin_version("", "docs", record.embedder, record.chunking)
    await one.parts.write(failed.store_collection, "late", b"by one that died as it took it back")
    await running.registry.fail(failed, "deleted on request")
    assert await one.counter.count(failed) is None
    assert words_collection(failed.store_collection) not in await running.chroma.collections()
    await check_exact(running)


async def test_a_table_is_packed_beside_the_loop(
    running, record, indexers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = indexers()
    threads: list[threading.Thread] = []

    def watched(table: WordTable) -> bytes:
        threads.append(threading.current_thread())
        return encode(table)

    monkeypatch.setattr(publisher, "encode", watched)
    await one.counter.count(record)
    assert threads
    assert threading.main_thread() not in threads
    await check_exact(running)


async def test_records_of_others_keep_no_version_from_being_counted(
    running, record, indexers
) -> None:
    store = (await running.chroma.collection(STORE))._collection
    (some,) = (await asyncio.to_thread(store.get, limit=1, include=["embeddings"]))["embeddings"]
    await asyncio.to_thread(store.upsert, ids=["bare"], embeddings=[some])
    chunks = (await indexers().counter.count(record)).chunks
    assert chunks == await asyncio.to_thread(store.count)


async def test_a_ledger_that_opens_as_the_process_ends_is_closed(tmp_path) -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    ledgers = Ledgers(tmp_path, ANALYSIS)
    busy = threading.Event()
    blocking = asyncio.ensure_future(ledgers.call(busy.wait))

    async def use() -> None:
        async with ledgers.opened("one"):
            raise AssertionError

    using = asyncio.create_task(use())
    await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    closing = asyncio.create_task(ledgers.aclose())
    await asyncio.sleep(0)
    busy.set()
    await closing
    await blocking
    assert not faults
    again = Ledgers(tmp_path, ANALYSIS)
    async with again.opened("one"):  # nobody else has it open
        pass
    await again.aclose()
