"""The calls of the collections service: what there is, builds, verdicts and swaps.

They are a part of ``SluiceClient``, which says how a call reaches a server and how its errors come
back; nothing here knows channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from client.verification import to_repaired, to_verification
from client.versions import to_collection, to_pointer, to_version
from sluice.collections.v1 import collections_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from client.verification import Exam, Repaired, Verification
    from client.versions import ActivePointer, Collection, IndexVersion
    from sluice.collections.v1.collections_pb2_grpc import CollectionsServiceAsyncStub

R = TypeVar("R")

# Verifying and repairing read a whole version, at some 4,500 chunks a second on one busy core: 65
# million in this time. A server that dies meanwhile is noticed by the channel's keepalive.
VERIFY_TIMEOUT_S = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A build that was begun: its version, and the fence that lets its builder go on.

    Attributes:
        version: in state ``building``.
        fence: for ``renew_build``, ``verify``, ``activate`` and ``end_build``.
        ttl_s: how long the build lock outlives its last renewal.
    """

    version: IndexVersion
    fence: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """Whether a version's store is gone, or goes when those have let go that still use it."""

    pending: bool = False
    used_by: tuple[str, ...] = ()


class CollectionCalls(ABC):
    """The calls; each raises the classes of ``common.errors``."""

    _tenant: str
    _timeout_s: float

    @abstractmethod
    async def _on_collections(
        self, call: Callable[[CollectionsServiceAsyncStub], Awaitable[R]], *, repeat: bool
    ) -> R:
        """Make one call; with ``repeat`` a server that fails may be followed by another."""

    async def create(self, collection: str, *, if_absent: bool = False) -> Collection:
        """Create a collection with an empty active version."""
        response = await self._on_collections(
            lambda stub: stub.CreateCollection(
                pb.CreateCollectionRequest(
                    tenant=self._tenant, collection=collection, if_absent=if_absent
                ),
                timeout=self._timeout_s,
            ),
            repeat=if_absent,
        )
        return to_collection(response.collection)

    async def collections(self) -> tuple[Collection, ...]:
        """All collections of the tenant, by name."""
        response = await self._on_collections(
            lambda stub: stub.ListCollections(
                pb.ListCollectionsRequest(tenant=self._tenant), timeout=self._timeout_s
            ),
            repeat=True,
        )
        return tuple(to_collection(collection) for collection in response.collections)

    async def describe(self, collection: str) -> Collection:
        """One collection with every version still kept, counted now."""
        response = await self._on_collections(
            lambda stub: stub.DescribeCollection(
                pb.DescribeCollectionRequest(tenant=self._tenant, collection=collection),
                timeout=self._timeout_s,
            ),
            repeat=True,
        )
        return to_collection(response.collection)

    async def delete(self, collection: str, *, version: int | None = None) -> Deleted:
        """Delete a collection, or only one version of it that is not active."""
        if version is None:
            await self._on_collections(
                lambda stub: stub.DeleteCollection(
                    pb.DeleteCollectionRequest(tenant=self._tenant, collection=collection),
                    timeout=self._timeout_s,
                ),
                repeat=False,
            )
            return Deleted()
        response = await self._on_collections(
            lambda stub: stub.DeleteVersion(
                pb.DeleteVersionRequest(
                    tenant=self._tenant, collection=collection, index_version=version
                ),
                timeout=self._timeout_s,
            ),
            repeat=False,
        )
        return Deleted(response.pending, tuple(response.used_by))

    async def begin_version(self, collection: str, *, builder: str, ttl_s: int = 0) -> Begun:
        """Take the build lock and begin the next version beside the active one.

        Args:
            collection: which.
            builder: told to those it keeps out, at most 256 bytes.
            ttl_s: how long the lock outlives its last renewal; 0 leaves it to the server (15).

        Raises:
            Contended: another builds; the message says who and since when.
        """
        response = await self._on_collections(
            lambda stub: stub.BeginVersion(
                pb.BeginVersionRequest(
                    tenant=self._tenant, collection=collection, builder=builder, ttl_s=ttl_s
                ),
                timeout=self._timeout_s,
            ),
            repeat=False,
        )
        return Begun(to_version(response.version), response.fence, response.ttl_s)

    async def renew_build(
        self,
        collection: str,
        version: int,
        fence: int,
        *,
        documents: int = 0,
        chunks: int = 0,
        documents_per_s: float = 0.0,
    ) -> None:
        """Keep the build lock and say how far the build is.

        Raises:
            FailedPrecondition: the lock was lost; begin another version.
        """
        await self._on_collections(
            lambda stub: stub.RenewBuild(
                pb.RenewBuildRequest(
                    tenant=self._tenant,
                    collection=collection,
                    index_version=version,
                    fence=fence,
                    documents=documents,
                    chunks=chunks,
                    documents_per_s=documents_per_s,
                ),
                timeout=self._timeout_s,
            ),
            repeat=True,
        )

    async def end_build(
        self, collection: str, version: int, fence: int, *, reason: str = ""
    ) -> IndexVersion | None:
        """Release the build lock; a version still building is given up for the reason.

        Returns:
            The version as it is now; None where it is kept no longer.
        """
        response = await self._on_collections(
            lambda stub: stub.EndBuild(
                pb.EndBuildRequest(
                    tenant=self._tenant,
                    collection=collection,
                    index_version=version,
                    fence=fence,
                    reason=reason,
                ),
                timeout=self._timeout_s,
            ),
            repeat=True,
        )
        return to_version(response.version) if response.HasField("version") else None

    async def verify(
        self,
        collection: str,
        *,
        version: int = 0,
        expected_documents: int | None = None,
        fence: int = 0,
        golden: Exam | None = None,
    ) -> Verification:
        """Check that every document of a version is complete, and ask it golden queries.

        Args:
            collection: which.
            version: 0 means the active one.
            expected_documents: it must hold; None for any number.
            fence: of the builder, which ends the build; 0 for everybody else.
            golden: queries to ask; None for none.
        """
        response = await self._on_collections(
            lambda stub: stub.VerifyVersion(
                _verify_request(
                    self._tenant, collection, version, expected_documents, fence, golden
                ),
                timeout=VERIFY_TIMEOUT_S,
            ),
            repeat=not fence,
        )
        return to_verification(response)

    async def repair(self, collection: str, *, version: int = 0) -> Repaired:
        """Delete chunks of no complete document; 0 means the active version.

        Raises:
            FailedPrecondition: the version is being written.
        """
        response = await self._on_collections(
            lambda stub: stub.RepairVersion(
                pb.RepairVersionRequest(
                    tenant=self._tenant, collection=collection, index_version=version
                ),
                timeout=VERIFY_TIMEOUT_S,
            ),
            repeat=True,
        )
        return to_repaired(response)

    async def activate(
        self,
        collection: str,
        version: int,
        *,
        fence: int = 0,
        force: bool = False,
        requested_by: str = "",
    ) -> tuple[ActivePointer, bool]:
        """Make a version the active one; False if it was active already.

        Args:
            collection: which.
            version: READY or RETIRED.
            fence: of the builder; 0 for everybody else.
            force: although it fell short of its verification.
            requested_by: kept in its record; needed with ``force``.

        Raises:
            FailedPrecondition: it cannot be activated; the message says why.
        """
        response = await self._on_collections(
            lambda stub: stub.ActivateVersion(
                pb.ActivateVersionRequest(
                    tenant=self._tenant,
                    collection=collection,
                    index_version=version,
                    fence=fence,
                    force=force,
                    requested_by=requested_by,
                ),
                timeout=self._timeout_s,
            ),
            repeat=True,
        )
        return to_pointer(response.active), response.changed

    async def roll_back(self, collection: str, *, to_version: int = 0) -> ActivePointer:
        """Activate a version that was active before; 0 means the last such."""
        response = await self._on_collections(
            lambda stub: stub.RollBackCollection(
                pb.RollBackCollectionRequest(
                    tenant=self._tenant, collection=collection, to_version=to_version
                ),
                timeout=self._timeout_s,
            ),
            # A repeat would take it back: the last such is then the one just left.
            repeat=to_version > 0,
        )
        return to_pointer(response.active)


def _verify_request(
    tenant: str,
    collection: str,
    version: int,
    expected_documents: int | None,
    fence: int,
    golden: Exam | None,
) -> pb.VerifyVersionRequest:
    request = pb.VerifyVersionRequest(
        tenant=tenant,
        collection=collection,
        index_version=version,
        expected_documents=expected_documents,
        fence=fence,
    )
    if golden is not None:
        for case in golden.cases:
            request.golden_queries.add(query=case.query, expected=case.expected)
        if golden.threshold is not None:
            request.golden_threshold = golden.threshold
        if golden.max_drop is not None:
            request.golden_max_drop = golden.max_drop
        request.golden_depth = golden.depth
    return request
