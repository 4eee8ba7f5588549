"""The Python client of Sluice: every call of the contracts with a deadline and our own errors.

    async with SluiceClient("127.0.0.1:50051") as sluice:
        answer = await sluice.search(SearchQuery("how do I rotate keys", collection="docs"))

One client may be shared by any number of tasks of one event loop. Failed calls raise the classes
of ``common.errors``. Over the servers that an etcd target announces each call is balanced by
itself; one that is safe to repeat goes on to the next server where one is unavailable, any other
only where it was not sent. It must never repeat anything else. A stream ends with its server.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from client.answers import SearchQuery, SearchResponse, to_request, to_response
from client.collection_calls import CollectionCalls
from client.indexing import Acknowledgement, Document, index_documents
from common.connection import DEFAULT_TARGET
from common.discovery import Fleet, Retry, Target, balanced, open_fleet
from common.errors import InvalidArgument, Unavailable
from common.rpc import ChannelSettings, is_unconnected, translate_rpc_error
from common.telemetry import Stage, span
from sluice.collections.v1 import collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Sequence,
    )
    from types import TracebackType

    from common.coordination import CoordinatorSettings
    from common.errors import SluiceError
    from sluice.collections.v1.collections_pb2_grpc import CollectionsServiceAsyncStub

R = TypeVar("R")

DEFAULT_CHANNEL = ChannelSettings()
# A stream lives as long as there is work.
STREAM_TIMEOUT_S = 86_400.0
# What grpc.aio puts over the server's status when a write meets it (grpc/grpc issue 36066).
_LOST_STATUS = "Internal error from Core"


class SluiceClient(CollectionCalls):
    """A connection to the servers of one installation.

    Args:
        target: HOST:PORT, as gRPC names it, or ``etcd:///sluice/indexer`` for all servers that are
            announced there (see ``common.discovery.Target``); connects on first use.
        settings: TLS, retries and bounds.
        query_target: where queries go, if it is another server; for an etcd target the query
            servers of that installation unless it is set.
        tenant: whose collections; empty means "default".
        timeout_s: deadline of a call over all its attempts, in seconds.
        coordinator: endpoints, TLS and user of etcd, for etcd targets; None for the defaults.

    Raises:
        ConfigurationError: a target is none.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        settings: ChannelSettings = DEFAULT_CHANNEL,
        *,
        query_target: str | None = None,
        tenant: str = "",
        timeout_s: float = 30.0,
        coordinator: CoordinatorSettings | None = None,
    ) -> None:
        self._target = target
        queries = Target.parse(target).of_service("query").text
        self._query_target = Target.parse(query_target or queries).text
        self._coordinator = coordinator
        self._settings = settings
        self._tenant = tenant
        self._timeout_s = timeout_s
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._indexers = indexers = await self._open(self._target, "indexer")
            self._queries = queries = indexers
            if self._query_target != self._target:
                self._queries = queries = await self._open(self._query_target, "query")
        except BaseException:
            await self._closing.aclose()
            raise
        repeated, once = self._balanced(indexers, repeat=True), self._balanced(indexers)
        self._index = index_pb2_grpc.IndexServiceStub(repeated)
        self._repeated_collections = collections_pb2_grpc.CollectionsServiceStub(repeated)
        self._collections = collections_pb2_grpc.CollectionsServiceStub(once)
        self._query = query_pb2_grpc.QueryServiceStub(self._balanced(queries, repeat=True))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._closing.aclose()

    async def _open(self, target: str, service: str) -> Fleet:
        return await self._closing.enter_async_context(
            open_fleet(target, self._settings, self._coordinator, service=service)
        )

    def _balanced(self, fleet: Fleet, *, repeat: bool = False) -> grpc.aio.Channel:
        # The channel to a single server repeats by itself.
        rounds = self._settings.max_attempts if fleet.is_followed else 1
        return balanced(fleet, Retry(max_attempts=rounds), repeat=repeat)

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

        The stream stays with the server it was opened to, and ends with it.

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

        async with self._queries.one() as channel:
            call = query_pb2_grpc.QueryServiceStub(channel).SearchStream(
                requests(), timeout=timeout_s
            )
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

    async def _on_collections(
        self, call: Callable[[CollectionsServiceAsyncStub], Awaitable[R]], *, repeat: bool
    ) -> R:
        with self._our_errors(), _fitting():
            return await call(self._repeated_collections if repeat else self._collections)

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

        The stream stays with the server it was opened to, and ends with it; sending a document
        again is safe.

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
        async with self._indexers.one() as channel:
            call = index_pb2_grpc.IndexServiceStub(channel).IndexDocuments(timeout=timeout_s)
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
