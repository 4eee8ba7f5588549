"""The Python client of Sluice: every call of the contracts with a deadline and our own errors.

    async with SluiceClient("127.0.0.1:50051") as sluice:
        answer = await sluice.search(SearchQuery("how do I rotate keys", collection="docs"))

One client may be shared by any number of tasks of one event loop. Failed calls raise the classes
of ``common.errors``. It must never retry on its own: the channel repeats what is safe to repeat.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Self

import grpc

from client.answers import SearchQuery, SearchResponse, to_request, to_response
from client.indexing import Acknowledgement, Document, index_documents
from client.versions import (
    ActivePointer,
    Collection,
    IndexVersion,
    Verification,
    to_collection,
    to_pointer,
    to_version,
)
from common.connection import DEFAULT_TARGET
from common.errors import InvalidArgument, Unavailable
from common.rpc import ChannelSettings, is_unconnected, open_channel, translate_rpc_error
from common.telemetry import Stage, span
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
    from types import TracebackType

    from common.errors import SluiceError

DEFAULT_CHANNEL = ChannelSettings()
# Verifying reads a whole version; a stream lives as long as there is work.
VERIFY_TIMEOUT_S = 900.0
STREAM_TIMEOUT_S = 86_400.0
# What grpc.aio puts over the server's status when a write meets it (grpc/grpc issue 36066).
_LOST_STATUS = "Internal error from Core"


class SluiceClient:
    """A connection to the servers of one installation.

    Args:
        target: HOST:PORT, as gRPC names it; connects on first use.
        settings: TLS, retries and bounds.
        query_target: where queries go, if it is another server.
        tenant: whose collections; empty means "default".
        timeout_s: deadline of a call, in seconds.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        settings: ChannelSettings = DEFAULT_CHANNEL,
        *,
        query_target: str | None = None,
        tenant: str = "",
        timeout_s: float = 30.0,
    ) -> None:
        self._target = target
        self._query_target = query_target or target
        self._settings = settings
        self._tenant = tenant
        self._timeout_s = timeout_s
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        channel = open_channel(self._target, self._settings)
        self._closing.push_async_callback(channel.close)
        query_channel = channel
        if self._query_target != self._target:
            query_channel = open_channel(self._query_target, self._settings)
            self._closing.push_async_callback(query_channel.close)
        self._index = index_pb2_grpc.IndexServiceStub(channel)
        self._collections = collections_pb2_grpc.CollectionsServiceStub(channel)
        self._query = query_pb2_grpc.QueryServiceStub(query_channel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._closing.aclose()

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if is_unconnected(error):
                targets = " or ".join(dict.fromkeys((self._target, self._query_target)))
                raise Unavailable(
                    f"no server answers at {targets}; start one with `sluice up`, or name its "
                    "address with --target or client.target"
                ) from error
            if error.details() == _LOST_STATUS:
                raise Unavailable(
                    "the server ended the stream while it was written to; try again"
                ) from error
            raise translate_rpc_error(error) from error

    # Queries

    async def search(self, query: SearchQuery, *, timeout_s: float | None = None) -> SearchResponse:
        """Answer one query, within ``timeout_s`` seconds."""
        with (
            span(Stage.CLIENT_SEARCH, collection=query.collection),
            self._our_errors(),
            _fitting(),
        ):
            request = to_request(query, self._tenant)
            answer = await self._query.Search(request, timeout=timeout_s or self._timeout_s)
        return to_response(answer)

    async def search_stream(
        self, queries: AsyncIterable[SearchQuery], *, timeout_s: float = STREAM_TIMEOUT_S
    ) -> AsyncIterator[tuple[int, SearchResponse | SluiceError]]:
        """Answer many queries on one stream, in the order the server is done with them.

        Yields:
            The number of the query, counted from 0, and its answer or the error it ended with.

        Raises:
            InvalidArgument: a query does not fit a message.
        """
        failures: list[Exception] = []

        async def requests() -> AsyncIterator[query_pb2.SearchStreamRequest]:
            sequence = 0
            try:
                async for query in queries:
                    with _fitting():
                        search = to_request(query, self._tenant)
                    yield query_pb2.SearchStreamRequest(sequence=sequence, search=search)
                    sequence += 1
            except Exception as error:
                failures.append(error)
                raise

        call = self._query.SearchStream(requests(), timeout=timeout_s)
        try:
            with self._our_errors():
                async for message in call:
                    if message.HasField("error"):
                        yield message.sequence, _error_of(message.error)
                    else:
                        yield message.sequence, to_response(message.response)
        except asyncio.CancelledError:
            # grpc.aio cancels a call whose requests fail, and drops the reason.
            if failures:
                raise failures[0] from None
            raise
        finally:
            call.cancel()

    # Collections

    async def create(self, collection: str, *, if_absent: bool = False) -> Collection:
        """Create a collection with an empty active version."""
        with self._our_errors(), _fitting():
            request = collections_pb2.CreateCollectionRequest(
                tenant=self._tenant, collection=collection, if_absent=if_absent
            )
            response = await self._collections.CreateCollection(request, timeout=self._timeout_s)
        return to_collection(response.collection)

    async def collections(self) -> tuple[Collection, ...]:
        """All collections of the tenant, by name."""
        with self._our_errors(), _fitting():
            request = collections_pb2.ListCollectionsRequest(tenant=self._tenant)
            response = await self._collections.ListCollections(request, timeout=self._timeout_s)
        return tuple(to_collection(collection) for collection in response.collections)

    async def describe(self, collection: str) -> Collection:
        """One collection with every version still kept, counted now."""
        with self._our_errors(), _fitting():
            request = collections_pb2.DescribeCollectionRequest(
                tenant=self._tenant, collection=collection
            )
            response = await self._collections.DescribeCollection(request, timeout=self._timeout_s)
        return to_collection(response.collection)

    async def delete(self, collection: str, *, version: int | None = None) -> None:
        """Delete a collection, or only one version of it that is not active."""
        with self._our_errors(), _fitting():
            if version is None:
                whole = collections_pb2.DeleteCollectionRequest(
                    tenant=self._tenant, collection=collection
                )
                await self._collections.DeleteCollection(whole, timeout=self._timeout_s)
            else:
                part = collections_pb2.DeleteVersionRequest(
                    tenant=self._tenant, collection=collection, index_version=version
                )
                await self._collections.DeleteVersion(part, timeout=self._timeout_s)

    async def begin_version(self, collection: str) -> IndexVersion:
        """Begin the next version beside the active one."""
        with self._our_errors(), _fitting():
            request = collections_pb2.BeginVersionRequest(
                tenant=self._tenant, collection=collection
            )
            response = await self._collections.BeginVersion(request, timeout=self._timeout_s)
        return to_version(response.version)

    async def verify(
        self, collection: str, *, version: int = 0, expected_documents: int | None = None
    ) -> Verification:
        """Check that every document of a version is complete; 0 means the active version."""
        with self._our_errors(), _fitting():
            request = collections_pb2.VerifyVersionRequest(
                tenant=self._tenant,
                collection=collection,
                index_version=version,
                expected_documents=expected_documents,
            )
            response = await self._collections.VerifyVersion(request, timeout=VERIFY_TIMEOUT_S)
        return Verification(to_version(response.version), response.passed, tuple(response.findings))

    async def activate(self, collection: str, version: int) -> tuple[ActivePointer, bool]:
        """Make a version the active one; False if it was active already."""
        with self._our_errors(), _fitting():
            request = collections_pb2.ActivateVersionRequest(
                tenant=self._tenant, collection=collection, index_version=version
            )
            response = await self._collections.ActivateVersion(request, timeout=self._timeout_s)
        return to_pointer(response.active), response.changed

    async def roll_back(self, collection: str) -> ActivePointer:
        """Activate the version that was active before."""
        with self._our_errors(), _fitting():
            request = collections_pb2.RollBackCollectionRequest(
                tenant=self._tenant, collection=collection
            )
            response = await self._collections.RollBackCollection(request, timeout=self._timeout_s)
        return to_pointer(response.active)

    # Documents

    async def index_documents(
        self,
        documents: AsyncIterable[Document],
        *,
        collection: str,
        version: int = 0,
        job_id: str = "",
        timeout_s: float = STREAM_TIMEOUT_S,
    ) -> AsyncIterator[Acknowledgement]:
        """Index documents; each is acknowledged exactly once, after its write is durable.

        Args:
            documents: read only as fast as the server takes them.
            collection: where to.
            version: of the index; 0 means the active one.
            job_id: names the job in logs and traces.
            timeout_s: deadline of the whole stream, in seconds.

        Raises:
            InvalidArgument: a document is larger than a batch may be.
        """
        opening = index_pb2.StreamOpening(
            tenant=self._tenant, collection=collection, index_version=version, job_id=job_id
        )
        call = self._index.IndexDocuments(timeout=timeout_s)
        try:
            with self._our_errors():
                async for acknowledgement in index_documents(call, opening, documents):
                    yield acknowledgement
        finally:
            call.cancel()

    async def delete_documents(
        self, document_ids: Sequence[str], *, collection: str, version: int = 0
    ) -> dict[str, str]:
        """Delete up to 1,000 documents.

        Returns:
            For each id ``deleted``, ``absent`` or ``superseded``.
        """
        with self._our_errors(), _fitting():
            request = index_pb2.DeleteDocumentsRequest(
                tenant=self._tenant,
                collection=collection,
                index_version=version,
                documents=[index_pb2.DocumentDeletion(document_id=id_) for id_ in document_ids],
            )
            response = await self._index.DeleteDocuments(request, timeout=self._timeout_s)
        return {
            result.document_id: index_pb2.DeletionOutcome.Name(result.outcome)
            .removeprefix("DELETION_OUTCOME_")
            .lower()
            for result in response.results
        }


@contextmanager
def _fitting() -> Iterator[None]:
    """Around the making of a request: what does not fit a message is the caller's fault."""
    try:
        yield
    except UnicodeError:
        raise InvalidArgument("text must be valid Unicode; check its encoding") from None
    except ValueError:
        raise InvalidArgument("a number is beyond the range of its field") from None


def _error_of(message: query_pb2.SearchError) -> SluiceError:
    """The error one query of a stream ended with, as if it had ended a call of its own."""
    code = next(
        (code for code in grpc.StatusCode if code.value[0] == message.code),
        grpc.StatusCode.UNKNOWN,
    )
    nothing = grpc.aio.Metadata()
    return translate_rpc_error(
        grpc.aio.AioRpcError(code, nothing, nothing, details=message.message)
    )
