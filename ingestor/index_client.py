"""The index service as a job sees it: streams, deletions, listings and versions of a collection.

Translates between the contracts and plain values; every failure arrives as a ``SluiceError``.
Passing failures of calls that are safe to repeat are repeated, a bounded number of times.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from common.errors import FailedPrecondition
from common.rpc import translate_rpc_error
from ingestor.backoff import delay_s, is_passing
from ingestor.stream import IndexStream, Receipt
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ingestor.settings import StreamSettings

T = TypeVar("T")

MAX_DELETIONS = 1_000
# A whole version is read.
_VERIFY_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class IndexTarget:
    """The index version that a job writes; ``created_at`` tells it from others of its number."""

    tenant: str
    collection: str
    version: int
    created_at: str


class IndexClient:
    """Writes one index version."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        target: IndexTarget,
        settings: StreamSettings,
        *,
        timeout_s: float,
    ) -> None:
        self._stub: Any = index_pb2_grpc.IndexServiceStub(channel)
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
        return IndexStream(self._stub, opening, self._settings, on_receipt)

    async def delete(self, documents: Sequence[tuple[str, int]]) -> int:
        """Delete documents by id unless the index holds a newer version; how many there were.

        Args:
            documents: 1 to 1,000 of (document id, greatest version that may be deleted).
        """
        request = index_pb2.DeleteDocumentsRequest(
            tenant=self.target.tenant,
            collection=self.target.collection,
            index_version=self.target.version,
            documents=[
                index_pb2.DocumentDeletion(document_id=document_id, version=version)
                for document_id, version in documents
            ],
        )
        response = await _repeating(
            lambda: self._stub.DeleteDocuments(request, timeout=self._timeout_s), self._settings
        )
        deleted = index_pb2.DELETION_OUTCOME_DELETED
        return sum(result.outcome == deleted for result in response.results)

    async def documents(self, source_uri_prefix: str) -> dict[str, int]:
        """What the version holds under a prefix: versions by source URI."""
        request = index_pb2.ListDocumentsRequest(
            tenant=self.target.tenant,
            collection=self.target.collection,
            index_version=self.target.version,
            source_uri_prefix=source_uri_prefix,
        )

        async def listed() -> dict[str, int]:
            return {
                document.source_uri: document.version
                async for response in self._stub.ListDocuments(request)
                for document in response.documents
            }

        found: dict[str, int] = await _repeating(listed, self._settings)
        return found


class CollectionClient:
    """Creates a collection and builds versions of it."""

    def __init__(
        self, channel: grpc.aio.Channel, settings: StreamSettings, *, timeout_s: float
    ) -> None:
        self._stub: Any = collections_pb2_grpc.CollectionsServiceStub(channel)
        self._settings = settings
        self._timeout_s = timeout_s

    async def active(self, tenant: str, collection: str) -> IndexTarget:
        """The active version, of a new collection if there was none.

        FailedPrecondition if the collection has no active version.
        """
        request = collections_pb2.CreateCollectionRequest(
            tenant=tenant, collection=collection, if_absent=True
        )
        response = await self._repeat(self._stub.CreateCollection, request)
        found = response.collection
        if not found.HasField("active"):
            raise FailedPrecondition(
                f"collection {collection} has no active version; activate one with "
                f"`sluice collections activate`, or build one with --rebuild --activate"
            )
        for version in found.versions:
            if version.number == found.active.version:
                return _target(found.tenant or tenant, collection, version)
        raise FailedPrecondition(
            f"collection {collection}: there is no record of its active version "
            f"{found.active.version}; see `sluice collections show {collection}`"
        )

    async def kept_versions(self, tenant: str, collection: str) -> frozenset[int]:
        """Numbers of the versions that an existing collection keeps."""
        request = collections_pb2.CreateCollectionRequest(
            tenant=tenant, collection=collection, if_absent=True
        )
        response = await self._repeat(self._stub.CreateCollection, request)
        return frozenset(version.number for version in response.collection.versions)

    async def begin_version(self, tenant: str, collection: str) -> IndexTarget:
        """Begin the next version beside the active one."""
        request = collections_pb2.BeginVersionRequest(tenant=tenant, collection=collection)
        try:
            # Not repeated: every call takes a number.
            response = await self._stub.BeginVersion(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise translate_rpc_error(error) from None
        return _target(tenant, collection, response.version)

    async def verify(self, target: IndexTarget, expected_documents: int) -> tuple[str, ...]:
        """Check a version and make it ready; what was found wrong, nothing if it passed."""
        request = collections_pb2.VerifyVersionRequest(
            tenant=target.tenant,
            collection=target.collection,
            index_version=target.version,
            expected_documents=expected_documents,
        )
        timeout_s = max(self._timeout_s, _VERIFY_TIMEOUT_S)
        response = await self._repeat(self._stub.VerifyVersion, request, timeout_s)
        if response.passed:
            return ()
        return tuple(response.findings) or ("the version did not pass",)

    async def activate(self, target: IndexTarget) -> None:
        """Make a ready version the active one."""
        request = collections_pb2.ActivateVersionRequest(
            tenant=target.tenant, collection=target.collection, index_version=target.version
        )
        await self._repeat(self._stub.ActivateVersion, request)

    async def _repeat(
        self,
        method: Callable[..., Awaitable[Any]],
        request: object,
        timeout_s: float | None = None,
    ) -> Any:  # noqa: ANN401 — the response's type is the method's
        limit_s = timeout_s or self._timeout_s
        return await _repeating(lambda: method(request, timeout=limit_s), self._settings)


def _target(tenant: str, collection: str, version: collections_pb2.IndexVersion) -> IndexTarget:
    created_at = version.created_at.ToJsonString()
    return IndexTarget(tenant, collection, version.number, created_at)


async def _repeating(call: Callable[[], Awaitable[Any]], settings: StreamSettings) -> Any:  # noqa: ANN401 — whatever the call returns
    failures = 0
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            failure = translate_rpc_error(error)
        failures += 1
        if not is_passing(failure) or failures >= settings.max_attempts:
            raise failure
        await asyncio.sleep(delay_s(settings, failures, failure))
