"""Writers beside swaps, repairs and deletions: what is refused, and what waits for whom."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from common.coordination import (
    CoordinatorSettings,
    IndexRegistry,
    hold,
    maintenance,
    maintenance_lock,
    pinned,
)
from common.errors import Contended, FailedPrecondition, NotFound, Unavailable
from indexer.store import ChromaVectorStore
from sluice.collections.v1 import collections_pb2 as pb
from sluice.index.v1 import index_pb2
from tests.integration.etcd import Etcd
from tests.integration.indexer.conftest import document, open_running, refusal, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from common.chroma import Chroma
    from common.coordination import HeldLock, VersionRecord
    from indexer.reconcile import HeldChunk
    from tests.integration.indexer.conftest import Running

ACTIVE, RETIRED, FAILED = (
    pb.VERSION_STATE_ACTIVE,
    pb.VERSION_STATE_RETIRED,
    pb.VERSION_STATE_FAILED,
)


async def delete_documents(running: Running, version: int) -> None:
    deletion = index_pb2.DocumentDeletion(document_id="0" * 32)
    await running.index.DeleteDocuments(
        index_pb2.DeleteDocumentsRequest(
            collection="docs", index_version=version, documents=[deletion]
        )
    )


class TestASwapInMidStream:
    async def test_ends_the_stream_and_names_the_active_version(
        self, pair: tuple[Running, Running]
    ) -> None:
        one, another = pair
        await one.create()
        stream = await one.opened()
        assert len(await stream.send(document("a"))) == 1
        await another.swapped(document("b"))
        error = await refusal(stream.send(document("c")))
        assert isinstance(error, FailedPrecondition)
        assert "version 1 of collection docs is retired; version 2 is active" in error.message
        assert set(await one.listed(index_version=1)) == {"file:///a"}

    async def test_lets_a_builder_write_on_to_what_became_active(self, running: Running) -> None:
        await running.create()
        await running.swapped()
        stream = await running.opened(2)
        await running.verify(2)  # changes the record, not whether it takes writes
        assert len(await stream.send(document("a"))) == 1
        await stream.end()

    async def test_refuses_deletions_from_the_retired_version(self, running: Running) -> None:
        await running.create()
        await delete_documents(running, 1)
        await running.swapped()
        error = await refusal(delete_documents(running, 1))
        assert isinstance(error, FailedPrecondition)
        assert "version 2 is active" in error.message


async def test_an_outage_of_etcd_in_mid_stream_says_when_to_send_the_batch_again(
    tmp_path: Path, chroma: Chroma
) -> None:
    with Etcd(tmp_path / "etcd") as etcd:
        settings = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), timeout_ms=1000)
        async with open_running(chroma, settings) as running:
            await running.create()
            stream = await running.opened()
            assert len(await stream.send(document("a"))) == 1
            await asyncio.to_thread(etcd.kill)
            for write in (stream.send(document("b")), running.opened()):
                error = await refusal(write)
                assert isinstance(error, Unavailable)
                assert error.retry_after_ms
            await asyncio.to_thread(etcd.start)

            async def goes_on() -> bool:
                with suppress(Unavailable):
                    return len(await (await running.opened()).send(document("b"))) == 1
                return False

            await until(goes_on)
            assert set(await running.listed()) == {"file:///a", "file:///b"}


class TestRepair:
    async def test_is_refused_while_a_stream_writes_and_says_through_whom(
        self, pair: tuple[Running, Running]
    ) -> None:
        one, another = pair
        await one.create()
        stream = await one.opened()
        error = await refusal(another.repair())
        assert isinstance(error, FailedPrecondition)
        assert "one indexer" in error.message
        assert len(await stream.send(document("a"))) == 1
        await stream.end()

        async def let_go() -> bool:
            return not await pinned(one.coordinator, "", "docs", 1)

        await until(let_go)
        assert (await another.repair()).deleted_chunks == 0

    async def test_keeps_streams_and_deletions_out(self, pair: tuple[Running, Running]) -> None:
        one, another = pair
        await one.create()
        async with maintenance(another.coordinator, "", "docs", holder="a repair"):
            for write in (one.opened(), delete_documents(one, 1)):
                error = await refusal(write)
                assert isinstance(error, Contended)
                assert "a repair" in error.message
                assert error.retry_after_ms
            assert isinstance(await refusal(one.repair()), Contended)
        assert len(await (await one.opened()).send(document("a"))) == 1

    async def test_mends_what_can_be_mended_and_names_the_rest(self, running: Running) -> None:
        await running.create()
        await running.send([document("a", 1), document("b")])
        collection = await running.chroma.collection("default.docs.v000001")
        old = await collection.get(include=("metadatas", "documents", "embeddings"))
        assert old.embeddings is not None
        await running.send([document("a", 2, "anew. " * 40)])
        await collection.upsert(
            ids=old.ids,
            embeddings=old.embeddings,
            documents=old.documents or [],
            metadatas=old.metadatas or [],
        )
        kept = await running.verify(0)
        assert {fault.kind for fault in kept.faults} == {pb.FAULT_KIND_SURPLUS}
        surplus = sum(fault.surplus_chunks for fault in kept.faults)
        assert surplus > 0
        repaired = await running.repair()
        assert (repaired.deleted_chunks, repaired.incomplete_documents) == (surplus, 0)
        assert (await running.verify(0, expected=2)).passed

        ids = (await collection.get(include=())).ids
        await collection.delete([id_ for id_ in ids if id_.endswith(":1")])
        repaired = await running.repair()
        assert repaired.incomplete_documents == len(repaired.incomplete) == 2
        assert {one.source_uri for one in repaired.incomplete} == {"file:///a", "file:///b"}
        await running.send([document("a", 2, "anew. " * 40), document("b")])
        assert (await running.verify(0, expected=2)).passed

    async def test_ends_what_it_is_mending_before_writers_may_begin(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its caller goes away in the middle of a deletion."""
        mending, go_on = asyncio.Event(), asyncio.Event()
        delete = ChromaVectorStore.delete

        async def slowly(store: ChromaVectorStore, chunk_ids: Sequence[str]) -> None:
            mending.set()
            await go_on.wait()
            await delete(store, chunk_ids)

        async def over() -> bool:
            return await running.coordinator.get(maintenance_lock("", "docs")) is None

        await running.create()
        await running.send([document("a")])
        collection = await running.chroma.collection("default.docs.v000001")
        ids = (await collection.get(include=())).ids
        await collection.delete([id_ for id_ in ids if id_.endswith(":0")])
        monkeypatch.setattr(ChromaVectorStore, "delete", slowly)
        call = running.collections.RepairVersion(pb.RepairVersionRequest(collection="docs"))
        await mending.wait()
        call.cancel()
        try:
            with pytest.raises(TimeoutError):
                await until(over, within_s=0.5)
        finally:
            go_on.set()
        await until(over)
        assert not (await collection.get(include=())).ids

    async def test_of_a_version_whose_writer_stood_still_leaves_it_nothing_to_acknowledge(
        self, pair: tuple[Running, Running], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, another = pair
        writing, go_on = asyncio.Event(), asyncio.Event()
        delete = ChromaVectorStore.delete

        async def slowly(store: ChromaVectorStore, chunk_ids: Sequence[str]) -> None:
            writing.set()  # the new state is written, the old one is still to go
            await go_on.wait()
            await delete(store, chunk_ids)

        async def put_again() -> bool:
            return bool(await pinned(another.coordinator, "", "docs", 1))

        await one.create()
        stream = await one.opened()
        await stream.send(document("a", 1))
        monkeypatch.setattr(ChromaVectorStore, "delete", slowly)
        batch = asyncio.create_task(stream.send(document("a", 2, "anew. " * 40)))
        await writing.wait()
        async with hold(another.coordinator, maintenance_lock("", "docs"), holder="a repair"):
            (pin,) = (await another.coordinator.list("pins/default/docs/1/")).entries
            await another.coordinator.lease(pin.lease, 1).revoke()
        await until(put_again)
        go_on.set()
        error = await refusal(batch)
        assert isinstance(error, Unavailable)
        assert error.retry_after_ms
        assert len(await (await one.opened()).send(document("a", 2, "anew. " * 40))) == 1

    async def test_deletes_nothing_once_its_lock_is_in_doubt(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It stood still before it deletes: that it did is noticed while it asks for the record."""
        locks: list[HeldLock] = []
        asked = 0
        version = IndexRegistry.version

        @asynccontextmanager
        async def seen(*args: Any, **kwargs: Any) -> AsyncIterator[HeldLock]:
            async with maintenance(*args, **kwargs) as lock:
                locks.append(lock)
                yield lock

        async def slowly(*args: Any) -> VersionRecord:
            nonlocal asked
            asked += 1
            if asked == 3:  # when it began, when it held the lock, and now
                locks[0].lost.set()
            return await version(*args)

        await running.create()
        await running.send([document("a")])
        collection = await running.chroma.collection("default.docs.v000001")
        ids = (await collection.get(include=())).ids
        await collection.delete([id_ for id_ in ids if id_.endswith(":0")])
        left = (await collection.get(include=())).ids
        monkeypatch.setattr("indexer.versions.maintenance", seen)
        monkeypatch.setattr(IndexRegistry, "version", slowly)
        error = await refusal(running.repair())
        assert "maintenance lock" in error.message
        assert left
        assert (await collection.get(include=())).ids == left

    async def test_is_not_for_what_is_being_built_or_was_given_up(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        assert isinstance(await refusal(running.repair(2)), FailedPrecondition)
        await running.end(2, begun.fence)
        assert isinstance(await refusal(running.repair(2)), FailedPrecondition)
        assert isinstance(await refusal(running.repair(9)), NotFound)


class TestDeletingAVersion:
    async def test_waits_for_whoever_lists_it(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listing, go_on = asyncio.Event(), asyncio.Event()
        chunks = ChromaVectorStore.chunks

        async def slowly(store: ChromaVectorStore, chunk_ids: Sequence[str]) -> list[HeldChunk]:
            listing.set()
            await go_on.wait()
            return await chunks(store, chunk_ids)

        await running.create()
        await running.send([document("a")])
        await running.swapped()
        monkeypatch.setattr(ChromaVectorStore, "chunks", slowly)
        listed = asyncio.create_task(running.listed(index_version=1))
        await listing.wait()
        response = await running.delete(1)
        assert (response.pending, list(response.used_by)) == (True, ["this indexer"])
        go_on.set()
        assert await listed == {"file:///a": 1}
        assert not (await running.delete(1)).pending

    async def test_waits_for_its_writers_and_is_collected_when_they_let_go(
        self, pair: tuple[Running, Running]
    ) -> None:
        one, another = pair
        await one.create()
        begun = await one.begin()
        stream = await one.opened(2)
        await one.lose_build_lock(2)
        response = await another.delete(2)
        assert (response.pending, list(response.used_by)) == (True, ["one indexer"])
        assert (await another.states())[2] == FAILED
        assert "default.docs.v000002" in await one.chroma.collections()
        assert (await another.delete(2)).pending  # can be asked again

        assert isinstance(await refusal(stream.send(document("a"))), FailedPrecondition)
        assert isinstance(await refusal(one.verify(2, begun.fence)), FailedPrecondition)

        async def let_go() -> bool:
            return not await pinned(one.coordinator, "", "docs", 2)

        await until(let_go)
        assert not (await another.delete(2)).pending
        assert await one.states() == {1: ACTIVE}
        assert await one.chroma.collections() == ["default.docs.v000001"]

    async def test_is_refused_while_it_is_built(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        error = await refusal(running.delete(2))
        assert isinstance(error, FailedPrecondition)
        assert "being built" in error.message
        await running.end(2, begun.fence)
        assert not (await running.delete(2)).pending
        assert await running.states() == {1: ACTIVE}
