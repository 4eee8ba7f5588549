"""IndexService on the wire: contracts to domain and back, and the rules of the stream.

A stream overlaps its batches: while one is embedded the next is already being chunked. Batches in
work are bounded, and beyond the bound nothing more is read, so the sender waits.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, TypeAlias, cast

from common.errors import DeadlineExceeded, InvalidArgument, Overloaded
from common.identity import is_document_id
from common.rpc import Deadline
from common.telemetry import Metric, gauge_add
from indexer import inventory, messages
from indexer.containers import ContainerDeletion, delete_containers
from indexer.document import SOURCE_URI_RULE, is_source_uri
from indexer.pipeline import Deletion
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    import grpc

    from indexer.document import Document
    from indexer.inventory import Listed
    from indexer.pipeline import IndexPipeline, Result
    from indexer.settings import IndexerSettings
    from indexer.target import Target
    from indexer.versions import Versions, WritableVersion

    Batch: TypeAlias = asyncio.Task[list[Result]]

Request: TypeAlias = index_pb2.IndexDocumentsRequest
Response: TypeAlias = index_pb2.IndexDocumentsResponse

RETRY_AFTER_MS = 1_000
MAX_DELETIONS = 1_000
MAX_JOB_ID_BYTES = 128
MAX_CONTAINERS = 100
MAX_PREFIX_BYTES = 4096
# A client's gRPC takes 4 MiB by default, and one listed document has at most about 8 KiB.
LISTED_BYTES = 2**20
# For clients that set no deadline.
DELETION_TIMEOUT_S = 60.0
LISTING_TIMEOUT_S = 3_600.0


class IndexServicer(index_pb2_grpc.IndexServiceServicer):
    """Serves ``sluice.index.v1.IndexService``."""

    def __init__(
        self, settings: IndexerSettings, pipeline: IndexPipeline, versions: Versions
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._versions = versions
        self._streams = 0

    async def IndexDocuments(  # noqa: N802 — named by the contract
        self,
        request_iterator: AsyncIterator[Request],
        context: grpc.aio.ServicerContext[Request, Response],
    ) -> AsyncGenerator[Response]:
        """See the contract."""
        del context
        # Iterators are closed here, not when they are collected: that may be after the loop ended.
        with self._admitted():
            async with aclosing(
                cast("AsyncGenerator[Request]", aiter(request_iterator))
            ) as requests:
                opening = _opening(await self._first(requests))
                async with self._versions.writing(
                    opening.tenant, opening.collection, opening.index_version
                ) as version:
                    yield self._opened(version)
                    stream = _BatchStream(self._settings, self._pipeline, version.target)
                    async with aclosing(stream.results(requests)) as batches:
                        async for results in batches:
                            yield _acknowledged(results, version)

    async def DeleteDocuments(  # noqa: N802 — named by the contract
        self,
        request: index_pb2.DeleteDocumentsRequest,
        context: grpc.aio.ServicerContext[
            index_pb2.DeleteDocumentsRequest, index_pb2.DeleteDocumentsResponse
        ],
    ) -> index_pb2.DeleteDocumentsResponse:
        """See the contract."""
        # Containers get half the time: what was deleted by then is still to be answered.
        deadline = Deadline.after(Deadline.of(context, DELETION_TIMEOUT_S).remaining_s() / 2)
        if not request.documents and not request.containers:
            raise InvalidArgument(
                f"give 1 to {MAX_DELETIONS} documents or 1 to {MAX_CONTAINERS} containers",
                field="documents",
            )
        deletions = _deletions(request.documents)
        containers = _container_deletions(request.containers)
        async with self._versions.deleting(
            request.tenant, request.collection, request.index_version
        ) as target:
            outcomes = await self._pipeline.delete(target, deletions) if deletions else []
            emptied = await delete_containers(self._pipeline, target, containers, deadline)
        return index_pb2.DeleteDocumentsResponse(
            results=[
                messages.deletion_result(deletion.document_id, outcome)
                for deletion, outcome in zip(deletions, outcomes, strict=True)
            ],
            container_results=[
                messages.container_deletion_result(deletion.container_uri, outcome)
                for deletion, outcome in zip(containers, emptied, strict=True)
            ],
        )

    async def ListDocuments(  # noqa: N802 — named by the contract
        self,
        request: index_pb2.ListDocumentsRequest,
        context: grpc.aio.ServicerContext[
            index_pb2.ListDocumentsRequest, index_pb2.ListDocumentsResponse
        ],
    ) -> AsyncGenerator[index_pb2.ListDocumentsResponse]:
        """See the contract."""
        deadline = Deadline.of(context, LISTING_TIMEOUT_S)
        if len(request.source_uri_prefix.encode()) > MAX_PREFIX_BYTES:
            raise InvalidArgument(f"at most {MAX_PREFIX_BYTES} bytes", field="source_uri_prefix")
        record = await self._versions.record(
            request.tenant, request.collection, request.index_version
        )
        async with self._versions.reading(record) as store:
            listing = inventory.documents(
                store, request.source_uri_prefix, fragments=request.fragments
            )
            async with aclosing(listing) as pages:
                async for listed in pages:
                    for response in _listing(listed):
                        yield response
                    deadline.check("the next page of the listing")

    def _opened(self, version: WritableVersion) -> Response:
        return Response(
            opened=index_pb2.StreamOpened(
                index_version=version.number,
                max_batch_documents=self._settings.max_batch_documents,
                max_batch_bytes=self._settings.max_batch_bytes,
                max_document_bytes=self._settings.max_document_bytes,
            )
        )

    async def _first(self, requests: AsyncIterator[Request]) -> Request | None:
        """The first message; a client that sends none must not keep others out."""
        limit_s = self._settings.opening_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await anext(requests, None)
        except TimeoutError:
            raise DeadlineExceeded(f"opening: none came within {limit_s:g} s") from None

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._streams >= self._settings.max_streams:
            raise Overloaded(
                f"{self._streams} streams are open, the most this indexer takes; try again",
                retry_after_ms=RETRY_AFTER_MS,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


class _BatchStream:
    """The batches of one stream, taken in and given out at the same time."""

    def __init__(self, settings: IndexerSettings, pipeline: IndexPipeline, target: Target) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._target = target
        self._slots = asyncio.Semaphore(settings.batches_per_stream)
        # Bounded by the slots; the last item is None or what ended the stream.
        self._batches: asyncio.Queue[Batch | Exception | None] = asyncio.Queue()
        self._stop = asyncio.Event()

    async def results(self, requests: AsyncIterator[Request]) -> AsyncGenerator[list[Result]]:
        """Results of each batch, in the order of the batches; a broken rule is raised after them.

        Closing it tells the batches under way to stop.
        """
        reader = asyncio.create_task(self._read(requests))
        try:
            while (batch := await self._batches.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                # Shielded: a batch is told to stop, never cancelled.
                yield await asyncio.shield(batch)
                self._slots.release()  # only now, so that results nobody reads do not pile up
        finally:
            self._stop.set()
            reader.cancel()
            await asyncio.wait([reader])

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        try:
            async for request in requests:
                documents = self._documents(request)
                await self._slots.acquire()
                self._batches.put_nowait(self._submit(documents, request.ByteSize()))
        except Exception as error:  # noqa: BLE001 — raised again by results(), in its turn
            self._batches.put_nowait(error)
        else:
            self._batches.put_nowait(None)

    def _submit(self, documents: Sequence[Document], size: int) -> Batch:
        gauge_add(Metric.BYTES_IN_FLIGHT, size)
        batch = self._pipeline.submit(self._target, documents, self._stop)
        batch.add_done_callback(lambda _: gauge_add(Metric.BYTES_IN_FLIGHT, -size))
        return batch

    def _documents(self, request: Request) -> list[Document]:
        if request.WhichOneof("message") != "batch":
            raise InvalidArgument("after the opening each message is a batch", field="batch")
        most, size = self._settings.max_batch_documents, request.batch.ByteSize()
        if not 1 <= len(request.batch.documents) <= most:
            raise InvalidArgument(f"a batch has 1 to {most} documents", field="batch.documents")
        if size > self._settings.max_batch_bytes:
            raise InvalidArgument(
                f"has {size} bytes; at most {self._settings.max_batch_bytes}, send fewer documents",
                field="batch",
            )
        documents = [messages.document_from(message) for message in request.batch.documents]
        named = [d.key for d in documents if d.document_id or d.source_uri]
        if len(set(named)) != len(named):
            raise InvalidArgument(
                "the same document twice in one batch; send its states in different batches",
                field="batch.documents.document_id",
            )
        return documents


def _acknowledged(results: Sequence[Result], version: WritableVersion) -> Response:
    acknowledgements = [messages.acknowledgement(result, version.token) for result in results]
    return Response(
        acknowledgements=index_pb2.AcknowledgementBatch(acknowledgements=acknowledgements)
    )


def _opening(first: Request | None) -> index_pb2.StreamOpening:
    if first is None or first.WhichOneof("message") != "opening":
        raise InvalidArgument("the first message of the stream must be it", field="opening")
    if len(first.opening.job_id.encode()) > MAX_JOB_ID_BYTES:
        raise InvalidArgument(f"at most {MAX_JOB_ID_BYTES} bytes", field="opening.job_id")
    return first.opening


def _deletions(documents: Sequence[index_pb2.DocumentDeletion]) -> list[Deletion]:
    if len(documents) > MAX_DELETIONS:
        raise InvalidArgument(f"give 1 to {MAX_DELETIONS} documents", field="documents")
    for document in documents:
        if not is_document_id(document.document_id):
            raise InvalidArgument(
                "use 32 lower-case hexadecimal digits", field="documents.document_id"
            )
        if document.version < 0:
            raise InvalidArgument("use 0 for any version", field="documents.version")
    if len({document.document_id for document in documents}) != len(documents):
        raise InvalidArgument("the same document twice", field="documents.document_id")
    return [Deletion(document.document_id, document.version) for document in documents]


def _container_deletions(
    containers: Sequence[index_pb2.ContainerDeletion],
) -> list[ContainerDeletion]:
    if len(containers) > MAX_CONTAINERS:
        raise InvalidArgument(f"give 1 to {MAX_CONTAINERS} containers", field="containers")
    for container in containers:
        if not is_source_uri(container.container_uri):
            raise InvalidArgument(SOURCE_URI_RULE, field="containers.container_uri")
        if container.version < 0:
            raise InvalidArgument("use 0 for any version", field="containers.version")
    if len({container.container_uri for container in containers}) != len(containers):
        raise InvalidArgument("the same container twice", field="containers.container_uri")
    return [
        ContainerDeletion(container.container_uri, container.version) for container in containers
    ]


def _listing(listed: Sequence[Listed]) -> Iterator[index_pb2.ListDocumentsResponse]:
    """The documents in messages of a bounded size."""
    response, size = index_pb2.ListDocumentsResponse(), 0
    for one in listed:
        document = messages.indexed_document(one)
        if size + document.ByteSize() > LISTED_BYTES:
            yield response
            response, size = index_pb2.ListDocumentsResponse(), 0
        response.documents.append(document)
        size += document.ByteSize()
    if response.documents:
        yield response
