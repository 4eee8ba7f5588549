"""Deletions, listings and single calls: any indexer that answers, bounded in time and tries."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from common.connection import ConnectionSettings
from common.coordination import CoordinatorSettings, IndexRegistry, open_coordinator
from common.errors import CoordinatorUnavailable, NotFound, Unavailable
from common.rpc import GrpcServer, ServerSettings
from ingestor.sending.collection_client import CollectionClient
from ingestor.sending.index_client import HeldDocument, IndexClient, IndexTarget
from ingestor.sending.indexers import SERVICE, Indexers
from ingestor.settings import StreamSettings
from sluice.index.v1 import index_pb2, index_pb2_grpc
from tests.integration.etcd import Etcd
from tests.integration.ingestor.conftest import Recorder, bindings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TARGET = IndexTarget("default", "docs", 1, "2026-01-01T00:00:00Z")
SETTINGS = StreamSettings(first_delay_s=0.01, max_delay_s=0.02, max_attempts=3)


class Containers(index_pb2_grpc.IndexServiceServicer):
    """Holds containers, deletes a few of their documents at each call, lists in two batches."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.calls: list[list[tuple[str, int]]] = []
        self.step = 10
        self.stalls = False
        self.failures: list[Exception] = []

    async def DeleteDocuments(self, request, context):  # noqa: ARG002, N802 — the stub's names
        self.calls.append([(one.container_uri, one.version) for one in request.containers])
        if self.failures:
            raise self.failures.pop(0)
        response = index_pb2.DeleteDocumentsResponse()
        for one in request.containers:
            held = self.held.get(one.container_uri, 0)
            deleted = min(self.step, held)
            self.held[one.container_uri] = held - deleted
            response.container_results.add(
                container_uri=one.container_uri, deleted=deleted, complete=held == deleted
            )
        return response

    async def ListDocuments(self, request, context):  # noqa: ARG002, N802 — as above
        if self.failures:
            raise self.failures.pop(0)
        for number in range(2):
            response = index_pb2.ListDocumentsResponse()
            response.documents.add(source_uri=f"file:///a#{number}", version=number)
            response.documents[0].container_uri = "file:///a" if number else ""
            yield response
            if self.stalls:
                await asyncio.Event().wait()


@asynccontextmanager
async def serving(*recorders: Recorder, service=None) -> AsyncIterator[list[str]]:
    """The addresses of servers of these recorders, or of one with another index service."""
    async with AsyncExitStack() as stack:
        addresses = []
        for recorder in recorders or (Recorder(),):
            index, collections = bindings(recorder)
            if service is not None:
                index = type(index)(
                    "sluice.index.v1.IndexService",
                    lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(
                        service, server
                    ),
                )
            settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
            opened = GrpcServer.open(settings, [index, collections])
            addresses.append((await stack.enter_async_context(opened)).address)
        yield addresses


@pytest.fixture
async def containers() -> AsyncIterator[tuple[Containers, IndexClient]]:
    service = Containers()  # type: ignore[abstract]  # the rest is not used
    async with (
        serving(service=service) as addresses,
        Indexers.open(ConnectionSettings(target=addresses[0]), None) as indexers,
        asyncio.timeout(20),
    ):
        yield service, IndexClient(indexers, TARGET, SETTINGS, timeout_s=0.5)


async def test_containers_are_deleted_in_steps_until_they_are_complete(containers):
    service, client = containers
    service.held = {f"file:///{number}": number for number in range(250)}
    asked = [(uri, 7) for uri in service.held]
    assert await client.delete_containers(asked) == sum(range(250))
    assert not any(service.held.values())
    assert max(map(len, service.calls)) == 100
    assert {one for call in service.calls for one in call} == set(asked)
    # Each one is asked for no longer than it has something left.
    assert sum(map(len, service.calls)) == sum(max(1, -(-number // 10)) for number in range(250))
    assert await client.delete_containers([]) == 0


async def test_a_deletion_without_headway_ends(containers):
    service, client = containers
    service.held, service.step = {"file:///a": 5}, 0
    with pytest.raises(Unavailable, match="3 calls deleted nothing of 1 file"):
        await client.delete_containers([("file:///a", 1)])
    assert len(service.calls) == 3


async def test_a_deletion_is_repeated_where_that_may_help_and_not_elsewhere(containers):
    service, client = containers
    service.held = {"file:///a": 5}
    service.failures = [Unavailable("restarting", retry_after_ms=10_000)]
    assert await client.delete_containers([("file:///a", 1)]) == 5
    service.failures = [NotFound("no such version")]
    with pytest.raises(NotFound, match="no such version"):
        await client.delete_containers([("file:///a", 1)])
    assert service.failures == []


async def test_documents_come_in_batches(containers):
    service, client = containers
    service.failures = [Unavailable("restarting", retry_after_ms=10_000)]
    async with aclosing(client.documents("file:///")) as batches:
        found = [list(batch) async for batch in batches]
    assert found == [
        [HeldDocument("file:///a#0", "", 0)],
        [HeldDocument("file:///a#1", "file:///a", 1)],
    ]


async def test_a_listing_that_stalls_ends_and_is_not_begun_again(containers):
    service, client = containers
    service.stalls = True
    async with aclosing(client.documents("file:///")) as listing:
        assert len(await anext(listing)) == 1
        with pytest.raises(Unavailable, match=r"nothing more of its listing for 0\.5 s"):
            await anext(listing)


async def test_a_call_goes_to_another_indexer_and_stays_there(tmp_path: Path):
    recorders = [Recorder(), Recorder()]
    settings = CoordinatorSettings(kind="embedded", path=tmp_path / "coordinator.db")
    async with AsyncExitStack() as stack:
        coordinator = open_coordinator(settings)
        stack.push_async_callback(coordinator.aclose)
        registry = IndexRegistry(coordinator)
        addresses = await stack.enter_async_context(serving(*recorders))
        # The first in order is announced, and nobody is there.
        for address in ("127.0.0.1:1", *addresses):
            await stack.enter_async_context(registry.register(SERVICE, address, ttl_s=60))
        client = ConnectionSettings(target="127.0.0.1:1")
        indexers = await stack.enter_async_context(Indexers.open(client, coordinator))
        once = SETTINGS.model_copy(update={"max_attempts": 1})
        collections = CollectionClient(indexers, once, timeout_s=5)
        target = await collections.active("", "docs")
        # Not repeated, so it must be where the last call was answered.
        begun = await collections.begin_version("", "docs")
        assert (target.version, begun.target.version) == (1, 2)
        assert sorted(recorder.versions for recorder in recorders) == [[1], [1, 2]]
        index = IndexClient(indexers, target, once, timeout_s=5)
        assert await index.delete([("0" * 32, 1)]) == 0
        assert [batch async for batch in index.documents("x")] == []


async def test_beginning_a_version_is_not_repeated():
    client = ConnectionSettings(target="127.0.0.1:1")
    async with Indexers.open(client, None) as indexers:
        collections = CollectionClient(indexers, SETTINGS, timeout_s=5)
        with pytest.raises(Unavailable, match="no server answers"):
            await collections.begin_version("", "docs")


async def test_indexers_are_kept_while_the_coordinator_is_away(tmp_path: Path):
    async with AsyncExitStack() as stack:
        etcd = stack.enter_context(Etcd(tmp_path / "etcd"))
        coordinator = open_coordinator(
            CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), timeout_ms=500)
        )
        stack.push_async_callback(coordinator.aclose)
        addresses = await stack.enter_async_context(serving(Recorder()))
        registration = IndexRegistry(coordinator).register(SERVICE, addresses[0], ttl_s=60)
        await stack.enter_async_context(registration)
        client = ConnectionSettings(target="127.0.0.1:1")
        indexers = await stack.enter_async_context(Indexers.open(client, coordinator))
        assert await indexers.addresses() == (addresses[0],)
        await asyncio.to_thread(etcd.kill)
        collections = CollectionClient(indexers, SETTINGS, timeout_s=5)
        assert (await collections.active("", "docs")).version == 1
        fresh = await stack.enter_async_context(Indexers.open(client, coordinator))
        with pytest.raises(CoordinatorUnavailable):
            await fresh.addresses()


async def test_channels_to_those_that_left_are_closed(tmp_path: Path):
    settings = CoordinatorSettings(kind="embedded", path=tmp_path / "coordinator.db")
    async with AsyncExitStack() as stack:
        coordinator = open_coordinator(settings)
        stack.push_async_callback(coordinator.aclose)
        registry = IndexRegistry(coordinator)
        addresses = await stack.enter_async_context(serving(Recorder(), Recorder()))
        indexers = await stack.enter_async_context(
            Indexers.open(ConnectionSettings(target="127.0.0.1:1"), coordinator)
        )
        async with asyncio.timeout(20), registry.register(SERVICE, addresses[1], ttl_s=60):
            async with registry.register(SERVICE, addresses[0], ttl_s=60):
                async with indexers.channel(addresses[0]), indexers.channel(addresses[1]):
                    both = await indexers.addresses()
                assert set(indexers._channels) == set(addresses)
            assert await indexers.changed(both) == (addresses[1],)
            async with indexers.channel(addresses[1]):
                pass
            assert set(indexers._channels) == {addresses[1]}
