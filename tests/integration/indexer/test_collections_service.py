"""CollectionsService over the wire, with what a crash in the middle of a method leaves behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from common.coordination import IndexRegistry, VersionState
from common.errors import (
    AlreadyExists,
    Contended,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from indexer.store import ChromaVectorStore
from sluice.collections.v1 import collections_pb2 as pb
from tests.integration.indexer.conftest import document, refusal

if TYPE_CHECKING:
    from common.coordination import VersionRecord
    from tests.integration.indexer.conftest import Running

READY, ACTIVE, RETIRED, BUILDING, FAILED = (
    pb.VERSION_STATE_READY,
    pb.VERSION_STATE_ACTIVE,
    pb.VERSION_STATE_RETIRED,
    pb.VERSION_STATE_BUILDING,
    pb.VERSION_STATE_FAILED,
)


class TestCreating:
    async def test_gives_an_empty_active_version(self, running: Running) -> None:
        request = pb.CreateCollectionRequest(collection="docs")
        response = await running.collections.CreateCollection(request)
        assert response.created
        collection = response.collection
        assert (collection.tenant, collection.name) == ("default", "docs")
        assert (collection.active.version, collection.active.generation) == (1, 1)
        (version,) = collection.versions
        assert (version.number, version.state) == (1, ACTIVE)
        assert (version.counts.documents, version.counts.chunks) == (0, 0)
        assert (version.chunking.chunk_tokens, version.chunking.overlap_tokens) == (16, 4)
        assert (version.embedder.dimension, version.embedder.variant) == (32, "hashing")
        assert version.store_collection == "default.docs.v000001"
        assert version.HasField("activated_at")
        assert await running.chroma.collections() == ["default.docs.v000001"]

    async def test_an_existing_one_is_an_error_unless_allowed(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        again = pb.CreateCollectionRequest(collection="docs")
        assert isinstance(await refusal(running.collections.CreateCollection(again)), AlreadyExists)
        again.if_absent = True
        response = await running.collections.CreateCollection(again)
        assert not response.created
        assert response.collection.active.generation == 1
        assert await running.listed() == {"file:///a": 1}

    @pytest.mark.parametrize("state", [VersionState.BUILDING, VersionState.READY])
    async def test_goes_on_where_a_crash_left_it(
        self, running: Running, state: VersionState
    ) -> None:
        await running.create("other")
        like = await running.registry.version("default", "other", 0)
        half = await running.registry.begin_version("default", "docs", like.embedder, like.chunking)
        if state is VersionState.READY:
            await running.registry.set_state(half, state, documents=0, chunks=0)
        created = await running.create()
        assert created.active.version == half.number == 1
        await running.send([document("a")])
        assert await running.listed() == {"file:///a": 1}

    async def test_two_at_once_make_one(self, running: Running) -> None:
        made = await asyncio.gather(*(running.create() for _ in range(4)))
        assert {(c.active.version, c.active.generation) for c in made} == {(1, 1)}

    async def test_two_indexers_at_once_keep_what_was_acknowledged(
        self, pair: tuple[Running, Running], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, another = pair
        beginning, go_on = asyncio.Event(), asyncio.Event()
        begin_version = IndexRegistry.begin_version

        async def late(*args: Any) -> VersionRecord:
            monkeypatch.undo()
            beginning.set()  # it has read that there is no such collection
            await go_on.wait()
            return await begin_version(*args)

        monkeypatch.setattr(IndexRegistry, "begin_version", late)
        creating = asyncio.create_task(another.create())
        await beginning.wait()
        await one.create()
        await one.send([document("a")])
        go_on.set()
        assert isinstance(await refusal(creating), Contended)
        assert (await another.create()).active.version == 1
        assert await another.listed() == {"file:///a": 1}
        assert await one.states() == {1: ACTIVE, 2: FAILED}

    @pytest.mark.parametrize(("tenant", "name"), [("", ""), ("", "A"), ("-", "docs"), ("", "é")])
    async def test_malformed_names_are_refused(
        self, running: Running, tenant: str, name: str
    ) -> None:
        request = pb.CreateCollectionRequest(tenant=tenant, collection=name)
        error = await refusal(running.collections.CreateCollection(request))
        assert isinstance(error, InvalidArgument)
        assert await running.chroma.collections() == []


async def test_collections_are_listed_by_name_within_their_tenant(running: Running) -> None:
    for name in ("b", "a"):
        await running.create(name)
    await running.collections.CreateCollection(
        pb.CreateCollectionRequest(tenant="acme", collection="c")
    )
    for tenant, names in (("", ["a", "b"]), ("acme", ["c"]), ("nobody", [])):
        request = pb.ListCollectionsRequest(tenant=tenant)
        response = await running.collections.ListCollections(request)
        assert [collection.name for collection in response.collections] == names


async def test_describing_counts_now(running: Running) -> None:
    await running.create()
    acks = await running.send([document("a"), document("b")])
    (version,) = (await running.describe()).versions
    assert version.counts.documents == 2
    assert version.counts.chunks == sum(ack.chunk_count for ack in acks)


async def test_describing_passes_over_a_store_that_goes_meanwhile(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.create()
    number = await running.built(document("a"))
    heads = ChromaVectorStore.heads

    counts = iter((1, number))

    async def too_late(store: ChromaVectorStore) -> list[str]:
        if next(counts) == number:
            await running.chroma.delete_collection(f"default.docs.v{number:06}")
        return await heads(store)

    await running.send([document("b")])
    monkeypatch.setattr(ChromaVectorStore, "heads", too_late)
    described = await running.describe()
    assert [one.counts.documents for one in described.versions] == [1, 0]


class TestSwapping:
    async def test_build_verify_activate_and_roll_back(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        begun = await running.begin()
        assert (begun.version.number, begun.version.state) == (2, BUILDING)
        acks = await running.send([document("a", 2), document("b")], index_version=2)
        verified = await running.verify(2, begun.fence, expected=2)
        assert (verified.passed, list(verified.findings)) == (True, [])
        assert verified.version.state == READY
        assert verified.version.counts.documents == 2
        assert verified.version.counts.chunks == sum(ack.chunk_count for ack in acks)
        assert await running.listed() == {"file:///a": 1}

        response = await running.activate(2, begun.fence)
        await running.end(2, begun.fence)
        assert response.changed
        assert (response.active.version, response.active.generation) == (2, 2)
        assert response.active.previous_version == 1
        assert await running.listed() == {"file:///a": 2, "file:///b": 1}
        assert await running.states() == {1: RETIRED, 2: ACTIVE}
        assert not (await running.activate(2)).changed

        request = pb.RollBackCollectionRequest(collection="docs")
        back = await running.collections.RollBackCollection(request)
        assert (back.active.version, back.active.generation) == (1, 3)
        assert await running.listed() == {"file:///a": 1}

        number = await running.swapped()
        request.to_version = 2
        forth = await running.collections.RollBackCollection(request)
        assert (forth.active.version, forth.active.previous_version) == (2, number)

    async def test_what_was_never_active_is_not_rolled_back_to(self, running: Running) -> None:
        await running.create()
        number = await running.built()
        request = pb.RollBackCollectionRequest(collection="docs", to_version=number)
        error = await refusal(running.collections.RollBackCollection(request))
        assert isinstance(error, FailedPrecondition)
        request.to_version = 9
        assert isinstance(await refusal(running.collections.RollBackCollection(request)), NotFound)
        assert (await running.describe()).active.version == 1

    async def test_what_is_not_verified_is_not_activated(self, running: Running) -> None:
        await running.create()
        await running.begin()
        assert isinstance(await refusal(running.activate(2)), FailedPrecondition)
        assert isinstance(await refusal(running.activate(9)), NotFound)
        assert isinstance(await refusal(running.activate(0)), InvalidArgument)
        assert (await running.describe()).active.version == 1

    async def test_nothing_to_roll_back_to(self, running: Running) -> None:
        await running.create()
        request = pb.RollBackCollectionRequest(collection="docs")
        error = await refusal(running.collections.RollBackCollection(request))
        assert isinstance(error, FailedPrecondition)


@pytest.fixture
def failing(running: Running, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A store that deletes nothing, until it is undone."""

    async def fail(name: str) -> None:
        raise Unavailable(f"{name} cannot be deleted now")

    monkeypatch.setattr(running.chroma, "delete_collection", fail)
    return monkeypatch


class TestDeletingVersions:
    async def test_goes_with_its_store(self, running: Running) -> None:
        await running.create()
        await running.built()
        await running.delete(2)
        assert await running.states() == {1: ACTIVE}
        assert await running.chroma.collections() == ["default.docs.v000001"]
        assert isinstance(await refusal(running.delete(2)), NotFound)
        assert (await running.begin()).version.number == 3

    async def test_the_active_one_stays(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        assert isinstance(await refusal(running.delete(1)), FailedPrecondition)
        assert isinstance(await refusal(running.delete(0)), InvalidArgument)
        assert await running.listed() == {"file:///a": 1}

    async def test_can_be_repeated_after_a_crash_in_its_middle(self, running: Running) -> None:
        await running.create()
        await running.built()
        record = await running.registry.version("default", "docs", 2)
        await running.registry.set_state(record, VersionState.FAILED)
        await running.chroma.delete_collection(record.store_collection)
        await running.delete(2)
        assert await running.states() == {1: ACTIVE}

    async def test_one_whose_store_is_going_cannot_be_activated(
        self, running: Running, failing: pytest.MonkeyPatch
    ) -> None:
        await running.create()
        await running.built()
        assert isinstance(await refusal(running.delete(2)), Unavailable)
        assert isinstance(await refusal(running.activate(2)), FailedPrecondition)
        failing.undo()
        await running.delete(2)
        assert await running.states() == {1: ACTIVE}


class TestDeletingCollections:
    async def delete(self, running: Running) -> None:
        await running.collections.DeleteCollection(pb.DeleteCollectionRequest(collection="docs"))

    async def test_goes_with_all_versions(self, running: Running) -> None:
        await running.create()
        await running.begin()
        await self.delete(running)
        assert await running.chroma.collections() == []
        with pytest.raises(NotFound):
            await running.registry.collection("default", "docs")
        assert isinstance(await refusal(self.delete(running)), NotFound)

    async def test_can_be_repeated_after_a_crash_in_its_middle(self, running: Running) -> None:
        await running.create()
        await running.begin()
        await running.registry.delete_pointer("default", "docs")
        await running.chroma.delete_collection("default.docs.v000001")
        await self.delete(running)
        assert await running.chroma.collections() == []

    async def test_the_pointer_goes_before_any_store(
        self, running: Running, failing: pytest.MonkeyPatch
    ) -> None:
        await running.create()
        assert isinstance(await refusal(self.delete(running)), Unavailable)
        assert await running.registry.pointer("default", "docs") is None
        failing.undo()
        await self.delete(running)
        assert await running.chroma.collections() == []

    @pytest.mark.parametrize("begins", ["begin", "create"])
    async def test_leaves_no_store_of_a_version_that_begins_meanwhile(
        self, running: Running, monkeypatch: pytest.MonkeyPatch, begins: str
    ) -> None:
        making, go_on = asyncio.Event(), asyncio.Event()
        create = running.chroma.create_collection

        async def slowly(name: str) -> object:
            making.set()
            await go_on.wait()
            return await create(name)

        if begins == "begin":
            await running.create()
        monkeypatch.setattr(running.chroma, "create_collection", slowly)
        beginning = asyncio.ensure_future(getattr(running, begins)())
        await making.wait()
        await self.delete(running)
        go_on.set()
        error = await refusal(beginning)
        assert isinstance(error, Contended)
        assert "deleted" in error.message
        assert await running.chroma.collections() == []

    async def test_goes_on_only_when_nothing_was_begun_meanwhile(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deleting, go_on = asyncio.Event(), asyncio.Event()
        delete = running.chroma.delete_collection

        async def slowly(name: str) -> None:
            deleting.set()
            await go_on.wait()
            await delete(name)

        await running.create()
        monkeypatch.setattr(running.chroma, "delete_collection", slowly)
        going = asyncio.create_task(self.delete(running))
        await deleting.wait()
        await running.begin()
        go_on.set()
        assert isinstance(await refusal(going), Contended)
        await self.delete(running)
        assert await running.chroma.collections() == []
        with pytest.raises(NotFound):
            await running.registry.collection("default", "docs")

    async def test_one_created_anew_is_empty(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        await self.delete(running)
        await running.create()
        assert await running.listed() == {}

    async def test_one_created_over_what_a_crash_left_is_empty(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        await running.registry.delete_pointer("default", "docs")
        await running.create()
        assert await running.listed() == {}
