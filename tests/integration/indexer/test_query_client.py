"""Golden queries at real query servers: those that can answer do, and if none can, that is said."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from common.coordination import CoordinatorSettings, open_coordinator
from common.errors import FailedPrecondition, InvalidArgument, NotFound
from common.identity import document_id
from common.rpc import ChannelSettings, GrpcServer, ServerSettings, ServiceBinding, open_channel
from indexer.golden import FoundSource
from indexer.query_client import QueryClient
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.integration.indexer.query_servers import LARGE, SMALL, Installation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from common.chroma import Chroma

WORDS = ["granite", "willow", "harbour"]


@pytest.fixture
async def installation(chroma: Chroma, tmp_path: Path) -> AsyncIterator[Installation]:
    coordinator = open_coordinator(CoordinatorSettings(path=tmp_path / "coordinator"))
    yield Installation(chroma, coordinator)
    await coordinator.aclose()


@asynccontextmanager
async def asking(installation: Installation, target: str = "") -> AsyncIterator[QueryClient]:
    async with QueryClient.open(target, ChannelSettings(), installation.coordinator) as client:
        yield client


def source(word: str) -> FoundSource:
    return FoundSource(f"file:///{word}", document_id(f"file:///{word}"))


async def test_each_version_is_searched_by_its_number_at_a_server_of_its_embedder(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    await installation.version([*WORDS, "thunder"], LARGE)
    async with (
        installation.query_server(SMALL),
        installation.query_server(LARGE),
        asking(installation) as ask,
    ):
        for _ in range(3):  # whichever server's turn it is
            for version in (1, 2):
                for word in WORDS:
                    assert (await ask("", "docs", version, word, 2))[0] == source(word)
        assert source("thunder") in await ask("default", "docs", 2, "thunder", 1)
        assert source("thunder") not in await ask("default", "docs", 1, "thunder", 3)
        assert [len(await ask("", "docs", 2, "here they speak", n)) for n in (1, 3, 9)] == [1, 3, 4]


async def test_without_a_server_of_its_embedder_it_is_said_what_to_start(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    await installation.version(WORDS, LARGE)
    async with (
        installation.query_server(SMALL),
        installation.query_server(SMALL),
        asking(installation) as ask,
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await ask("", "docs", 2, "willow", 1)
        assert "version 2 of collection docs; start a query server that embeds" in str(
            refused.value
        )
        assert f"was written with {LARGE.spec.model}" in str(refused.value)
        assert await ask("", "docs", 1, "willow", 1) == [source("willow")]


async def test_without_any_server_it_is_said_that_one_is_needed(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    async with asking(installation) as ask:
        with pytest.raises(FailedPrecondition, match="need a query server: no query server is ann"):
            await ask("", "docs", 1, "willow", 1)
    async with installation.query_server(announced=False) as server:
        address = server.address
        async with asking(installation, address) as ask:
            assert await ask("", "docs", 1, "willow", 1) == [source("willow")]
    async with asking(installation, address) as ask:
        with pytest.raises(FailedPrecondition, match="need a query server: no server answers"):
            await ask("", "docs", 1, "willow", 1)


async def test_a_server_that_is_gone_is_passed_over_also_for_one_that_comes(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    async with installation.query_server(announced=False) as stopped:
        gone = stopped.address
    async with installation.announced(gone), asking(installation) as ask:
        with pytest.raises(FailedPrecondition, match=gone):
            await ask("", "docs", 1, "willow", 1)
        async with installation.query_server() as server:
            fleet = ask._fleet  # to wait until the server is known
            async with asyncio.timeout(10):
                while server.address not in (known := await fleet.addresses()):
                    await fleet.changed(known)
            for _ in range(4):
                assert await ask("", "docs", 1, "willow", 1) == [source("willow")]


async def test_what_no_other_server_could_do_better_is_not_asked_again(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    async with (
        installation.query_server(),
        installation.query_server(),
        asking(installation) as ask,
    ):
        with pytest.raises(NotFound):
            await ask("", "docs", 7, "willow", 1)
        with pytest.raises(InvalidArgument, match="text"):
            await ask("", "docs", 1, "x" * 9000, 1)


def older_service(channel: grpc.aio.Channel) -> ServiceBinding:
    """A server from before versions could be named: it passes every search on without."""
    stub = query_pb2_grpc.QueryServiceStub(channel)
    name = query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name

    async def search(request: query_pb2.SearchRequest, _: object) -> query_pb2.SearchResponse:
        request.index_version = 0
        return await stub.Search(request)

    handler = grpc.unary_unary_rpc_method_handler(
        search,
        request_deserializer=query_pb2.SearchRequest.FromString,
        response_serializer=query_pb2.SearchResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(name, {"Search": handler})
    return ServiceBinding(name, lambda server: server.add_generic_rpc_handlers((handlers,)))


async def test_an_older_server_that_searches_the_active_version_instead_is_not_believed(
    installation: Installation,
) -> None:
    await installation.version(WORDS, active=True)
    await installation.version([])
    async with installation.query_server(announced=False) as server:
        async with open_channel(server.address) as channel:
            listening = ServerSettings(listen="127.0.0.1:0")
            async with (
                GrpcServer.open(listening, [older_service(channel)]) as old,
                installation.announced(old.address),
                asking(installation) as ask,
            ):
                assert await ask("", "docs", 1, "willow", 1) == [source("willow")]
                with pytest.raises(FailedPrecondition, match="searched version 1 instead"):
                    await ask("", "docs", 2, "willow", 1)
        async with installation.announced(server.address), asking(installation) as ask:
            assert await ask("", "docs", 2, "willow", 1) == []
