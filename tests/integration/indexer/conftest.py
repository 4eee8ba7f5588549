"""A real Chroma, a real coordinator and both services of the indexer on a real gRPC server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from common.chroma import Chroma, ChromaSettings, open_chroma
from common.coordination import Builds, CoordinatorSettings, IndexRegistry, open_coordinator
from common.embedding import EmbeddingSettings, open_embedder
from common.errors import SluiceError
from common.rpc import GrpcServer, ServerSettings, open_channel, translate_rpc_error
from indexer.chunking import ChunkingSettings
from indexer.serve import open_indexer
from indexer.settings import IndexerSettings
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2, index_pb2_grpc
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path
    from typing import TypeAlias

    from common.coordination import Coordinator

    StreamCall: TypeAlias = grpc.aio.StreamStreamCall[
        index_pb2.IndexDocumentsRequest, index_pb2.IndexDocumentsResponse
    ]

MAX_BATCH_BYTES = 2**16


@pytest.fixture
async def chroma(tmp_path: Path) -> AsyncIterator[Chroma]:
    opened = open_chroma(ChromaSettings(mode="embedded", path=tmp_path / "chroma"))
    yield opened
    await opened.aclose()


class OpenStream:
    """A stream that stays open between two batches."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call

    async def send(self, *documents: document_pb2.Document) -> list[index_pb2.Acknowledgement]:
        """Index one batch, or raise what ended the stream."""
        batch = index_pb2.DocumentBatch(documents=documents)
        await self._call.write(index_pb2.IndexDocumentsRequest(batch=batch))
        return list((await self.read()).acknowledgements.acknowledgements)

    async def read(self) -> index_pb2.IndexDocumentsResponse:
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise translate_rpc_error(error) from error
        assert isinstance(response, index_pb2.IndexDocumentsResponse)
        return response

    async def end(self) -> None:
        """Close it and wait until the server has."""
        await self._call.done_writing()
        assert await self._call.code() is grpc.StatusCode.OK


@dataclass
class Running:
    """The services as a client sees them, and what stands behind them."""

    address: str
    index: index_pb2_grpc.IndexServiceAsyncStub
    collections: collections_pb2_grpc.CollectionsServiceAsyncStub
    coordinator: Coordinator
    registry: IndexRegistry
    chroma: Chroma
    settings: IndexerSettings

    async def send(
        self,
        *batches: Iterable[document_pb2.Document],
        collection: str = "docs",
        index_version: int = 0,
    ) -> list[index_pb2.Acknowledgement]:
        """Index batches on one stream and return the acknowledgements."""
        opening = index_pb2.StreamOpening(collection=collection, index_version=index_version)
        requests = [
            index_pb2.IndexDocumentsRequest(opening=opening),
            *(
                index_pb2.IndexDocumentsRequest(batch=index_pb2.DocumentBatch(documents=batch))
                for batch in batches
            ),
        ]
        return [
            acknowledgement
            for response in (await self.stream(requests))[1:]
            for acknowledgement in response.acknowledgements.acknowledgements
        ]

    async def stream(
        self, requests: list[index_pb2.IndexDocumentsRequest]
    ) -> list[index_pb2.IndexDocumentsResponse]:
        """Send all messages; return all responses, or raise what ended the stream."""
        responses, error = await self.stream_until_error(requests)
        if error is not None:
            raise translate_rpc_error(error)
        return responses

    async def stream_until_error(
        self, requests: list[index_pb2.IndexDocumentsRequest]
    ) -> tuple[list[index_pb2.IndexDocumentsResponse], grpc.aio.AioRpcError | None]:
        responses: list[index_pb2.IndexDocumentsResponse] = []
        try:
            async for response in self.index.IndexDocuments(iter(requests)):
                responses.append(response)  # noqa: PERF401 — kept if the stream fails
        except grpc.aio.AioRpcError as error:
            return responses, error
        return responses, None

    async def listed(self, prefix: str = "", index_version: int = 0) -> dict[str, int]:
        """Source URIs and versions of the documents held."""
        request = index_pb2.ListDocumentsRequest(
            collection="docs", source_uri_prefix=prefix, index_version=index_version
        )
        return {
            document.source_uri: document.version
            async for response in self.index.ListDocuments(request)
            for document in response.documents
        }

    async def create(self, name: str = "docs") -> collections_pb2.Collection:
        request = collections_pb2.CreateCollectionRequest(collection=name, if_absent=True)
        return (await self.collections.CreateCollection(request)).collection

    async def opened(self, index_version: int = 0) -> OpenStream:
        """A stream into a version of the collection docs, pinned by the server."""
        opening = index_pb2.StreamOpening(collection="docs", index_version=index_version)
        call = self.index.IndexDocuments()
        await call.write(index_pb2.IndexDocumentsRequest(opening=opening))
        stream = OpenStream(call)
        assert (await stream.read()).HasField("opened")
        return stream

    async def begin(self, builder: str = "a builder") -> collections_pb2.BeginVersionResponse:
        request = collections_pb2.BeginVersionRequest(collection="docs", builder=builder)
        return await self.collections.BeginVersion(request)

    async def verify(
        self, number: int, fence: int = 0, expected: int | None = None
    ) -> collections_pb2.VerifyVersionResponse:
        return await self.collections.VerifyVersion(
            collections_pb2.VerifyVersionRequest(
                collection="docs", index_version=number, fence=fence, expected_documents=expected
            )
        )

    async def end(self, number: int, fence: int) -> collections_pb2.EndBuildResponse:
        request = collections_pb2.EndBuildRequest(
            collection="docs", index_version=number, fence=fence
        )
        return await self.collections.EndBuild(request)

    async def activate(
        self, number: int, fence: int = 0, *, force: bool = False, requested_by: str = ""
    ) -> collections_pb2.ActivateVersionResponse:
        return await self.collections.ActivateVersion(
            collections_pb2.ActivateVersionRequest(
                collection="docs",
                index_version=number,
                fence=fence,
                force=force,
                requested_by=requested_by,
            )
        )

    async def built(self, *documents: document_pb2.Document) -> int:
        """Build a version, verify it and end the build; its number."""
        begun = await self.begin()
        number = begun.version.number
        if documents:
            await self.send(documents, index_version=number)
        assert (await self.verify(number, begun.fence)).passed
        await self.end(number, begun.fence)
        return number

    async def swapped(self, *documents: document_pb2.Document) -> int:
        """Build a version and activate it; its number."""
        number = await self.built(*documents)
        assert (await self.activate(number)).changed
        return number

    async def delete(self, number: int) -> collections_pb2.DeleteVersionResponse:
        request = collections_pb2.DeleteVersionRequest(collection="docs", index_version=number)
        return await self.collections.DeleteVersion(request)

    async def repair(self, number: int = 0) -> collections_pb2.RepairVersionResponse:
        request = collections_pb2.RepairVersionRequest(collection="docs", index_version=number)
        return await self.collections.RepairVersion(request)

    async def describe(self) -> collections_pb2.Collection:
        request = collections_pb2.DescribeCollectionRequest(collection="docs")
        return (await self.collections.DescribeCollection(request)).collection

    async def states(self) -> dict[int, int]:
        return {one.number: one.state for one in (await self.describe()).versions}

    async def lose_build_lock(self, number: int) -> None:
        """Let the lease of a build end, as if its builder stood still for too long."""
        build = await Builds(self.coordinator).current("default", "docs")
        assert build is not None
        assert build.version == number
        await self.coordinator.lease(build.lease, build.ttl_s).revoke()


SETTINGS = IndexerSettings(
    server=ServerSettings(listen="127.0.0.1:0"),
    max_batch_documents=64,
    max_batch_bytes=MAX_BATCH_BYTES,
    max_document_bytes=2**15,
    max_streams=2,
    opening_timeout_s=1,
    slice_chunks=8,
)


@asynccontextmanager
async def open_running(
    chroma: Chroma,
    coordinator: CoordinatorSettings,
    *,
    settings: IndexerSettings = SETTINGS,
    chunk_tokens: int = 16,
    holder: str = "this indexer",
) -> AsyncIterator[Running]:
    """An indexer of its own, as a process is: it shares only the stores and the coordinator."""
    async with AsyncExitStack() as stack:
        shared = open_coordinator(coordinator)
        stack.push_async_callback(shared.aclose)
        embedder = open_embedder(EmbeddingSettings(kind="hashing", dimension=32))
        stack.push_async_callback(embedder.aclose)
        bindings = await open_indexer(
            stack,
            indexer=settings,
            chunking=ChunkingSettings(chunk_tokens=chunk_tokens, overlap_tokens=4),
            chroma=chroma,
            coordinator=shared,
            embedder=embedder,
            holder=holder,
        )
        server = await stack.enter_async_context(GrpcServer.open(settings.server, bindings))
        channel = await stack.enter_async_context(open_channel(server.address))
        yield Running(
            address=server.address,
            index=index_pb2_grpc.IndexServiceStub(channel),
            collections=collections_pb2_grpc.CollectionsServiceStub(channel),
            coordinator=shared,
            registry=IndexRegistry(shared),
            chroma=chroma,
            settings=settings,
        )


@pytest.fixture
async def running(tmp_path: Path, chroma: Chroma) -> AsyncIterator[Running]:
    settings = CoordinatorSettings(path=tmp_path / "coordinator")
    async with open_running(chroma, settings) as opened:
        yield opened


@pytest.fixture
async def pair(tmp_path: Path, chroma: Chroma) -> AsyncIterator[tuple[Running, Running]]:
    """Two indexers that meet in etcd and in the vector store alone."""
    with Etcd(tmp_path / "etcd") as etcd:
        settings = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,))
        async with (
            open_running(chroma, settings, holder="one indexer") as one,
            open_running(chroma, settings, holder="another indexer") as another,
        ):
            yield one, another


async def refusal(call: Awaitable[object]) -> SluiceError:
    """What a call is refused with; a SluiceError passes as it is."""
    with pytest.raises((grpc.aio.AioRpcError, SluiceError)) as failure:
        await call
    match failure.value:
        case grpc.aio.AioRpcError() as status:
            return translate_rpc_error(status)
        case SluiceError() as error:
            return error
    raise AssertionError


async def until(holds: Callable[[], Awaitable[bool]], *, within_s: float = 20) -> None:
    """Wait for a condition that no event tells."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 — there is no event to wait for
            await asyncio.sleep(0.02)


def document(
    name: str, version: int = 1, content: str = "", **fields: object
) -> document_pb2.Document:
    return document_pb2.Document(
        source_uri=f"file:///{name}",
        version=version,
        content=content or f"{name} has a text of its own. " * 12,
        **fields,  # type: ignore[arg-type]  # fields of the message
    )


@pytest.fixture(name="document")
def _document() -> object:
    return document
