"""A real Chroma, a real coordinator and both services of the indexer on a real gRPC server."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from common.chroma import Chroma, ChromaSettings, open_chroma
from common.coordination import CoordinatorSettings, IndexRegistry, open_coordinator
from common.embedding import EmbeddingSettings, open_embedder
from common.rpc import GrpcServer, ServerSettings, open_channel, translate_rpc_error
from indexer.chunking import ChunkingSettings
from indexer.serve import open_indexer
from indexer.settings import IndexerSettings
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

import grpc

MAX_BATCH_BYTES = 2**16


@pytest.fixture
async def chroma(tmp_path: Path) -> AsyncIterator[Chroma]:
    opened = open_chroma(ChromaSettings(mode="embedded", path=tmp_path / "chroma"))
    yield opened
    await opened.aclose()


@dataclass
class Running:
    """The services as a client sees them, and what stands behind them."""

    address: str
    index: index_pb2_grpc.IndexServiceAsyncStub
    collections: collections_pb2_grpc.CollectionsServiceAsyncStub
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


@pytest.fixture
async def running(tmp_path: Path, chroma: Chroma) -> AsyncIterator[Running]:
    settings = IndexerSettings(
        server=ServerSettings(listen="127.0.0.1:0"),
        max_batch_documents=64,
        max_batch_bytes=MAX_BATCH_BYTES,
        max_document_bytes=2**15,
        max_streams=2,
        opening_timeout_s=1,
        slice_chunks=8,
    )
    async with AsyncExitStack() as stack:
        coordinator = open_coordinator(CoordinatorSettings(path=tmp_path / "coordinator"))
        stack.push_async_callback(coordinator.aclose)
        registry = IndexRegistry(coordinator)
        embedder = open_embedder(EmbeddingSettings(kind="hashing", dimension=32))
        stack.push_async_callback(embedder.aclose)
        bindings = await open_indexer(
            stack,
            indexer=settings,
            chunking=ChunkingSettings(chunk_tokens=16, overlap_tokens=4),
            chroma=chroma,
            registry=registry,
            embedder=embedder,
        )
        server = await stack.enter_async_context(GrpcServer.open(settings.server, bindings))
        channel = await stack.enter_async_context(open_channel(server.address))
        yield Running(
            address=server.address,
            index=index_pb2_grpc.IndexServiceStub(channel),
            collections=collections_pb2_grpc.CollectionsServiceStub(channel),
            registry=registry,
            chroma=chroma,
            settings=settings,
        )


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
