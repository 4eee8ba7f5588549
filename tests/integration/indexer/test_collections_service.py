"""CollectionsService over the wire, with what a crash in the middle of a method leaves behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from common.coordination import VersionState
from common.errors import NotFound, Unavailable
from sluice.collections.v1 import collections_pb2 as pb
from tests.integration.indexer.conftest import document

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.integration.indexer.conftest import Running

READY, ACTIVE, RETIRED, BUILDING = (
    pb.VERSION_STATE_READY,
    pb.VERSION_STATE_ACTIVE,
    pb.VERSION_STATE_RETIRED,
    pb.VERSION_STATE_BUILDING,
)


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code()


async def begin(running: Running) -> pb.IndexVersion:
    request = pb.BeginVersionRequest(collection="docs")
    return (await running.collections.BeginVersion(request)).version


async def verify(
    running: Running, number: int, expected: int | None = None
) -> pb.VerifyVersionResponse:
    return await running.collections.VerifyVersion(
        pb.VerifyVersionRequest(
            collection="docs", index_version=number, expected_documents=expected
        )
    )


async def activate(running: Running, number: int) -> pb.ActivateVersionResponse:
    return await running.collections.ActivateVersion(
        pb.ActivateVersionRequest(collection="docs", index_version=number)
    )


async def describe(running: Running) -> pb.Collection:
    request = pb.DescribeCollectionRequest(collection="docs")
    return (await running.collections.DescribeCollection(request)).collection


async def states(running: Running) -> dict[int, int]:
    return {version.number: version.state for version in (await describe(running)).versions}


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
        code = await code_of(running.collections.CreateCollection(again))
        assert code is grpc.StatusCode.ALREADY_EXISTS
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

    @pytest.mark.parametrize(("tenant", "name"), [("", ""), ("", "A"), ("-", "docs"), ("", "é")])
    async def test_malformed_names_are_refused(
        self, running: Running, tenant: str, name: str
    ) -> None:
        request = pb.CreateCollectionRequest(tenant=tenant, collection=name)
        code = await code_of(running.collections.CreateCollection(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
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
    (version,) = (await describe(running)).versions
    assert version.counts.documents == 2
    assert version.counts.chunks == sum(ack.chunk_count for ack in acks)


class TestSwapping:
    async def test_build_verify_activate_and_roll_back(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        built = await begin(running)
        assert (built.number, built.state) == (2, BUILDING)
        acks = await running.send([document("a", 2), document("b")], index_version=2)
        verified = await verify(running, 2, expected=2)
        assert (verified.passed, list(verified.findings)) == (True, [])
        assert verified.version.state == READY
        assert verified.version.counts.documents == 2
        assert verified.version.counts.chunks == sum(ack.chunk_count for ack in acks)
        assert await running.listed() == {"file:///a": 1}

        response = await activate(running, 2)
        assert response.changed
        assert (response.active.version, response.active.generation) == (2, 2)
        assert response.active.previous_version == 1
        assert await running.listed() == {"file:///a": 2, "file:///b": 1}
        assert await states(running) == {1: RETIRED, 2: ACTIVE}
        assert not (await activate(running, 2)).changed

        request = pb.RollBackCollectionRequest(collection="docs")
        back = await running.collections.RollBackCollection(request)
        assert (back.active.version, back.active.generation) == (1, 3)
        assert await running.listed() == {"file:///a": 1}

    async def test_what_is_not_verified_is_not_activated(self, running: Running) -> None:
        await running.create()
        await begin(running)
        assert await code_of(activate(running, 2)) is grpc.StatusCode.FAILED_PRECONDITION
        assert await code_of(activate(running, 9)) is grpc.StatusCode.NOT_FOUND
        assert await code_of(activate(running, 0)) is grpc.StatusCode.INVALID_ARGUMENT
        assert (await describe(running)).active.version == 1

    async def test_nothing_to_roll_back_to(self, running: Running) -> None:
        await running.create()
        request = pb.RollBackCollectionRequest(collection="docs")
        code = await code_of(running.collections.RollBackCollection(request))
        assert code is grpc.StatusCode.FAILED_PRECONDITION


class TestVerifying:
    async def damaged(self, running: Running, *endings: str) -> None:
        """Delete chunks of documents a, b, … by the ends of their ids."""
        collection = await running.chroma.collection("default.docs.v000002")
        ids = (await collection.get(include=())).ids
        await collection.delete([id_ for id_ in ids if id_.endswith(endings)])

    async def test_a_count_that_does_not_hold_leaves_the_state(self, running: Running) -> None:
        await running.create()
        await begin(running)
        await running.send([document("a")], index_version=2)
        response = await verify(running, 2, expected=5)
        assert not response.passed
        assert list(response.findings) == ["holds 1 complete documents, expected 5"]
        assert (await states(running))[2] == BUILDING
        assert (await verify(running, 2, expected=1)).passed

    @pytest.mark.parametrize("ordinal", [0, 1])
    async def test_missing_chunks_are_found(self, running: Running, ordinal: int) -> None:
        await running.create()
        await begin(running)
        await running.send([document("a"), document("b")], index_version=2)
        await self.damaged(running, f":{ordinal}")
        response = await verify(running, 2)
        assert not response.passed
        assert len(response.findings) == 2
        assert all("chunks are missing" in finding for finding in response.findings)
        assert response.version.counts.documents == 0
        assert (await states(running))[2] == BUILDING

    @pytest.mark.parametrize("left", ["all of it", "no head"])
    async def test_leftovers_of_another_state_are_found_and_a_replay_heals(
        self, running: Running, left: str
    ) -> None:
        await running.create()
        await begin(running)
        await running.send([document("a", 1)], index_version=2)
        collection = await running.chroma.collection("default.docs.v000002")
        old = await collection.get(include=("metadatas", "documents", "embeddings"))
        await running.send([document("a", 2, "anew. " * 40)], index_version=2)
        assert old.embeddings is not None
        await collection.upsert(
            ids=old.ids,
            embeddings=old.embeddings,
            documents=old.documents or [],
            metadatas=old.metadatas or [],
        )
        if left == "no head":
            await collection.delete([id_ for id_ in old.ids if id_.endswith(":0")])
        response = await verify(running, 2)
        assert "chunks of another state" in response.findings[0]
        await running.send([document("a", 2, "anew. " * 40)], index_version=2)
        assert (await verify(running, 2)).passed

    async def test_chunks_that_were_moved_by_half_are_found(self, running: Running) -> None:
        await running.create()
        await begin(running)
        await running.send([document("a", 1)], index_version=2)
        collection = await running.chroma.collection("default.docs.v000002")
        (moved, *_) = [id_ for id_ in (await collection.get()).ids if not id_.endswith(":0")]
        await collection.update_metadata([moved], [{"_version": 2}])
        assert "differ in version" in (await verify(running, 2)).findings[0]

    async def test_findings_are_bounded(self, running: Running) -> None:
        await running.create()
        await begin(running)
        many = [document(f"{n}") for n in range(128)]
        await running.send(many[:64], many[64:], index_version=2)
        await self.damaged(running, ":1")
        findings = (await verify(running, 2)).findings
        assert len(findings) == 100
        assert findings[-1] == "and 29 more findings"

    async def test_an_active_version_is_verified_in_place(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        response = await verify(running, 0, expected=1)
        assert response.passed
        assert response.version.state == ACTIVE


@pytest.fixture
def failing(running: Running, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A store that deletes nothing, until it is undone."""

    async def fail(name: str) -> None:
        raise Unavailable(f"{name} cannot be deleted now")

    monkeypatch.setattr(running.chroma, "delete_collection", fail)
    return monkeypatch


class TestDeletingVersions:
    async def delete(self, running: Running, number: int) -> None:
        await running.collections.DeleteVersion(
            pb.DeleteVersionRequest(collection="docs", index_version=number)
        )

    async def test_goes_with_its_store(self, running: Running) -> None:
        await running.create()
        await begin(running)
        await self.delete(running, 2)
        assert await states(running) == {1: ACTIVE}
        assert await running.chroma.collections() == ["default.docs.v000001"]
        assert await code_of(self.delete(running, 2)) is grpc.StatusCode.NOT_FOUND
        assert (await begin(running)).number == 3

    async def test_the_active_one_stays(self, running: Running) -> None:
        await running.create()
        await running.send([document("a")])
        assert await code_of(self.delete(running, 1)) is grpc.StatusCode.FAILED_PRECONDITION
        assert await code_of(self.delete(running, 0)) is grpc.StatusCode.INVALID_ARGUMENT
        assert await running.listed() == {"file:///a": 1}

    async def test_can_be_repeated_after_a_crash_in_its_middle(self, running: Running) -> None:
        await running.create()
        await begin(running)
        record = await running.registry.version("default", "docs", 2)
        await running.registry.set_state(record, VersionState.FAILED)
        await running.chroma.delete_collection(record.store_collection)
        await self.delete(running, 2)
        assert await states(running) == {1: ACTIVE}

    async def test_one_whose_store_is_going_cannot_be_activated(
        self, running: Running, failing: pytest.MonkeyPatch
    ) -> None:
        await running.create()
        await begin(running)
        assert (await verify(running, 2)).passed
        assert await code_of(self.delete(running, 2)) is grpc.StatusCode.UNAVAILABLE
        assert await code_of(activate(running, 2)) is grpc.StatusCode.FAILED_PRECONDITION
        failing.undo()
        await self.delete(running, 2)
        assert await states(running) == {1: ACTIVE}


class TestDeletingCollections:
    async def delete(self, running: Running) -> None:
        await running.collections.DeleteCollection(pb.DeleteCollectionRequest(collection="docs"))

    async def test_goes_with_all_versions(self, running: Running) -> None:
        await running.create()
        await begin(running)
        await self.delete(running)
        assert await running.chroma.collections() == []
        with pytest.raises(NotFound):
            await running.registry.collection("default", "docs")
        assert await code_of(self.delete(running)) is grpc.StatusCode.NOT_FOUND

    async def test_can_be_repeated_after_a_crash_in_its_middle(self, running: Running) -> None:
        await running.create()
        await begin(running)
        await running.registry.delete_pointer("default", "docs")
        await running.chroma.delete_collection("default.docs.v000001")
        await self.delete(running)
        assert await running.chroma.collections() == []

    async def test_the_pointer_goes_before_any_store(
        self, running: Running, failing: pytest.MonkeyPatch
    ) -> None:
        await running.create()
        assert await code_of(self.delete(running)) is grpc.StatusCode.UNAVAILABLE
        assert await running.registry.pointer("default", "docs") is None
        failing.undo()
        await self.delete(running)
        assert await running.chroma.collections() == []

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
