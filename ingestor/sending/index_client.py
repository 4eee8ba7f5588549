"""The index service as a job sees it: streams, deletions and listings of one index version.

Translates between the contracts and plain values; every failure arrives as a ``SluiceError``.
Calls that are safe to repeat go to any indexer that answers, and are repeated a bounded number of
times where they fail for a while.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from common.errors import SluiceError, Unavailable
from common.rpc import translate_rpc_error
from ingestor.sending.indexers import Attempts
from ingestor.sending.stream import IndexStream, Receipt
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from ingestor.sending.indexers import Indexers
    from ingestor.settings import StreamSettings

T = TypeVar("T")

MAX_DELETIONS = 1_000
MAX_CONTAINERS = 100


@dataclass(frozen=True, slots=True)
class IndexTarget:
    """The index version that a job writes; ``created_at`` tells it from others of its number."""

    tenant: str
    collection: str
    version: int
    created_at: str


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """A document that the index holds; ``container_uri`` is empty for one that is its source.

    Of a ``fragment`` no revision is complete: a writer was killed, and nobody finds it.
    """

    source_uri: str
    container_uri: str
    version: int
    fragment: bool = False


class IndexClient:
    """Writes one index version."""

    def __init__(
        self,
        indexers: Indexers,
        target: IndexTarget,
        settings: StreamSettings,
        *,
        timeout_s: float,
    ) -> None:
        self._indexers = indexers
        self._settings = settings
        self._timeout_s = timeout_s
        self.target = target

    def stream(self, job_id: str, on_receipt: Callable[[T, Receipt], None]) -> IndexStream[T]:
        """A stream into the version; see ``IndexStream``."""
        opening = index_pb2.StreamOpening(
            tenant=self.target.tenant,
            collection=self.target.collection,
            index_version=self.target.version,
            job_id=job_id,
        )
        return IndexStream(self._indexers, opening, self._settings, on_receipt)

    async def delete(self, documents: Sequence[tuple[str, int]]) -> int:
        """Delete documents by id unless the index holds a newer version; how many there were.

        Args:
            documents: 1 to 1,000 of (document id, greatest version that may be deleted).
        """
        request = self._deletion()
        for document_id, version in documents:
            request.documents.add(document_id=document_id, version=version)
        response = await self._delete(request)
        deleted = index_pb2.DELETION_OUTCOME_DELETED
        return sum(result.outcome == deleted for result in response.results)

    async def delete_containers(self, containers: Sequence[tuple[str, int]]) -> int:
        """Delete all documents of containers but those of newer versions; how many there were.

        Args:
            containers: any number of (container URI, greatest version that may be deleted, 0 for
                any); no URI twice.

        Raises:
            Unavailable: the indexer made no headway, call after call.
        """
        deleted = 0
        for start in range(0, len(containers), MAX_CONTAINERS):
            left = dict(containers[start : start + MAX_CONTAINERS])
            barren = 0
            while left:
                request = self._deletion()
                for container_uri, version in left.items():
                    request.containers.add(container_uri=container_uri, version=version)
                results = (await self._delete(request)).container_results
                before, step = len(left), sum(result.deleted for result in results)
                deleted += step
                for result in results:
                    if result.complete:
                        left.pop(result.container_uri, None)
                barren = 0 if step or len(left) < before else barren + 1
                if barren >= self._settings.max_attempts:
                    raise Unavailable(
                        f"{barren} calls deleted nothing of {len(left)} files whose documents are "
                        "to go; see the indexer's log, then start the job again"
                    )
        return deleted

    async def documents(
        self, source_uri_prefix: str, *, fragments: bool = False
    ) -> AsyncGenerator[Sequence[HeldDocument], None]:
        """What the version holds under a prefix, in batches and in no particular order.

        Args:
            source_uri_prefix: of the documents.
            fragments: also documents of which no revision is complete.

        Raises:
            Unavailable: nothing came for the time of a call. A listing that has begun is not taken
                up again: its caller may start anew.
        """
        request = index_pb2.ListDocumentsRequest(
            tenant=self.target.tenant,
            collection=self.target.collection,
            index_version=self.target.version,
            source_uri_prefix=source_uri_prefix,
            fragments=fragments,
        )
        attempts = Attempts(self._indexers, self._settings)
        has_begun = False
        while True:
            try:
                async with attempts.channel() as channel:
                    call: Any = index_pb2_grpc.IndexServiceStub(channel).ListDocuments(request)
                    try:
                        while (response := await self._next(call)) is not grpc.aio.EOF:
                            has_begun = True
                            yield [
                                HeldDocument(
                                    one.source_uri, one.container_uri, one.version, one.fragment
                                )
                                for one in response.documents
                            ]
                    finally:
                        call.cancel()
                    return
            except grpc.aio.AioRpcError as error:
                failure = translate_rpc_error(error)
            except SluiceError as error:
                failure = error
            if has_begun:
                raise failure
            await attempts.failed(failure)

    async def _next(self, call: Any) -> Any:  # noqa: ANN401 — the stubs' call types are partial
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call.read()
        except TimeoutError:
            raise Unavailable(
                f"the indexer sent nothing more of its listing for {self._timeout_s:g} s"
            ) from None

    def _deletion(self) -> index_pb2.DeleteDocumentsRequest:
        return index_pb2.DeleteDocumentsRequest(
            tenant=self.target.tenant,
            collection=self.target.collection,
            index_version=self.target.version,
        )

    async def _delete(
        self, request: index_pb2.DeleteDocumentsRequest
    ) -> index_pb2.DeleteDocumentsResponse:
        async def call(channel: grpc.aio.Channel) -> index_pb2.DeleteDocumentsResponse:
            stub: Any = index_pb2_grpc.IndexServiceStub(channel)
            response: index_pb2.DeleteDocumentsResponse = await stub.DeleteDocuments(
                request, timeout=self._timeout_s
            )
            return response

        return await self._indexers.call(call, self._settings)
