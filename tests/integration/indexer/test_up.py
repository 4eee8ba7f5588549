"""``sluice up``: its indexer asks its own query service golden queries, at whatever port it got."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from common.embedding import EmbeddingSettings
from common.rpc import ServerSettings, open_channel
from sluice.collections.v1 import collections_pb2 as pb
from sluice.collections.v1 import collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc
from standalone.serve import UpConfig, UpSettings, run
from tests.integration.indexer.conftest import document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import grpc

WORDS = ["granite", "willow", "harbour"]
GOLDEN = [pb.GoldenQuery(query=word, expected=[word]) for word in WORDS]


@asynccontextmanager
async def up(data_dir: Path) -> AsyncIterator[grpc.aio.Channel]:
    config = UpConfig(
        embedding=EmbeddingSettings(kind="hashing", dimension=64),
        up=UpSettings(data_dir=data_dir, server=ServerSettings(listen="127.0.0.1:0")),
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(run(config, stop=stop, on_ready=ready.set_result))
    address = await asyncio.wait_for(ready, 30)
    async with open_channel(address) as channel:
        yield channel
    stop.set()
    await asyncio.wait_for(serving, 30)


async def send(channel: grpc.aio.Channel, version: int, words: list[str]) -> None:
    opening = index_pb2.StreamOpening(collection="docs", index_version=version)
    batch = index_pb2.DocumentBatch(documents=[document(word, content=word) for word in words])
    requests = [
        index_pb2.IndexDocumentsRequest(opening=opening),
        index_pb2.IndexDocumentsRequest(batch=batch),
    ]
    stub: index_pb2_grpc.IndexServiceAsyncStub = index_pb2_grpc.IndexServiceStub(channel)
    responses = [response async for response in stub.IndexDocuments(iter(requests))]
    assert len(responses[1].acknowledgements.acknowledgements) == len(words)


async def test_golden_queries_decide_on_a_version_and_name_what_is_missed(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as channel:
        stub: collections_pb2_grpc.CollectionsServiceAsyncStub
        stub = collections_pb2_grpc.CollectionsServiceStub(channel)
        await stub.CreateCollection(pb.CreateCollectionRequest(collection="docs"))
        await send(channel, 0, WORDS)
        begun = await stub.BeginVersion(pb.BeginVersionRequest(collection="docs"))
        await send(channel, 2, WORDS[1:])
        request = pb.VerifyVersionRequest(
            collection="docs",
            index_version=2,
            fence=begun.fence,
            expected_documents=2,
            golden_queries=GOLDEN,
            golden_depth=1,
        )
        short = await stub.VerifyVersion(request)
        assert not short.passed
        assert short.golden.candidate < short.golden.active == 1.0
        assert short.golden.active_version == 1
        assert [(miss.query, list(miss.missing)) for miss in short.misses] == [
            ("granite", ["granite"])
        ]
        assert short.misses[0].active_finds
        assert any("granite" in finding for finding in short.findings)

        begun = await rebuilt(stub, begun.fence)
        await send(channel, 3, WORDS)
        request.index_version, request.fence, request.expected_documents = 3, begun.fence, 3
        whole = await stub.VerifyVersion(request)
        assert whole.passed
        assert whole.golden.candidate == 1.0
        assert whole.version.verdict.golden == whole.golden
        activation = pb.ActivateVersionRequest(
            collection="docs", index_version=3, fence=begun.fence
        )
        assert (await stub.ActivateVersion(activation)).changed


async def rebuilt(
    stub: collections_pb2_grpc.CollectionsServiceAsyncStub, fence: int
) -> pb.BeginVersionResponse:
    await stub.EndBuild(pb.EndBuildRequest(collection="docs", index_version=2, fence=fence))
    return await stub.BeginVersion(pb.BeginVersionRequest(collection="docs"))
