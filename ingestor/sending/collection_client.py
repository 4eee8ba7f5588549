"""The collections service as a job sees it: which version is active, and the building of others.

Translates between the contract and plain values; every failure arrives as a ``SluiceError``. Calls
that are safe to repeat go to any indexer that answers, and are repeated a bounded number of times
where they fail for a while. Who builds holds a lock, whose fence goes with each of its calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from common.discovery import Unconnected, is_passing
from common.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from common.rpc import translate_rpc_error
from ingestor.sending.index_client import IndexTarget
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.errors import SluiceError
    from common.golden import GoldenCase
    from ingestor.sending.indexers import Indexers
    from ingestor.settings import StreamSettings

# A whole version is read, at some 4,500 chunks a second on one busy core: 65 million in this time.
# A server that dies meanwhile is noticed by the channel's keepalive, and a lost lock ends it.
_VERIFY_TIMEOUT_S = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A version that is being built.

    Attributes:
        target: the version.
        fence: of the build lock; goes with each call of its builder.
        ttl_s: how long the lock outlives its last renewal.
    """

    target: IndexTarget
    fence: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a collection stands: its active version and the build under way; 0 and "" for none."""

    active: int
    building: int
    builder: str
    since: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is, over all its roots: what was acknowledged."""

    documents: int = 0
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class Exam:
    """Golden queries that a new version has to pass; None leaves a bound to the server.

    Attributes:
        cases: at most 2,000.
        threshold: least score, 0 to 1.
        max_drop: how much less than the active version it may score, 0 to 1.
    """

    cases: tuple[GoldenCase, ...]
    threshold: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True, slots=True)
class GoldenScore:
    """How well golden queries found what they should, 0 to 1; ``active`` is None if not asked."""

    queries: int
    depth: int
    threshold: float
    candidate: float
    active: float | None
    active_version: int


@dataclass(frozen=True, slots=True)
class GoldenMiss:
    """A golden query, what it did not find, its first hits, and whether the active version does."""

    query: str
    missing: tuple[str, ...]
    found: tuple[str, ...]
    active_finds: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification says; it passed if and only if there are no findings."""

    findings: tuple[str, ...] = ()
    golden: GoldenScore | None = None
    misses: tuple[GoldenMiss, ...] = ()


class CollectionClient:
    """Creates a collection and builds versions of it."""

    def __init__(self, indexers: Indexers, settings: StreamSettings, *, timeout_s: float) -> None:
        self._indexers = indexers
        self._settings = settings
        self._timeout_s = timeout_s

    async def active(self, tenant: str, collection: str) -> IndexTarget:
        """The active version, of a new collection if there was none.

        FailedPrecondition if the collection has no active version.
        """
        request = collections_pb2.CreateCollectionRequest(
            tenant=tenant, collection=collection, if_absent=True
        )
        response = await self._repeat("CreateCollection", request)
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
        """Numbers of the versions that the collection keeps; NotFound if it is gone."""
        found = await self._listed(tenant, collection)
        return frozenset(version.number for version in found.versions)

    async def begin_version(
        self, tenant: str, collection: str, *, builder: str = "", ttl_s: int = 0
    ) -> Begun:
        """Take the build lock and begin the next version beside the active one.

        Args:
            tenant: whose collection.
            collection: its name.
            builder: told to those whom the lock keeps out.
            ttl_s: how long the lock outlives its last renewal; 0 leaves it to the server.

        Raises:
            Contended: another builds; at once.
        """
        request = collections_pb2.BeginVersionRequest(
            tenant=tenant, collection=collection, builder=builder, ttl_s=ttl_s
        )
        # Not sent twice: every call takes a number, and the lock would keep the second one out.
        response = await self._repeat("BeginVersion", request, goes_on=_is_unsent)
        return Begun(
            _target(tenant, collection, response.version), response.fence, response.ttl_s or ttl_s
        )

    async def renew_build(
        self, begun: Begun, progress: Progress, documents_per_s: float, *, timeout_s: float
    ) -> None:
        """Renew the build lock, in one attempt.

        Raises:
            FailedPrecondition, NotFound: it was lost.
            SluiceError: nobody knows; the next attempt goes to another indexer.
        """
        request = collections_pb2.RenewBuildRequest(
            **_named(begun),
            documents=progress.documents,
            chunks=progress.chunks,
            documents_per_s=documents_per_s,
        )
        indexers = self._indexers
        address = await indexers.preferred()
        try:
            async with indexers.channel(address) as channel:
                await _call(channel, "RenewBuild", request, timeout_s)
        except grpc.aio.AioRpcError as error:
            failure = translate_rpc_error(error)
            if isinstance(failure, Unavailable | DeadlineExceeded):
                indexers.turn_from(address)
            raise failure from None
        indexers.answered(address)

    async def end_build(self, begun: Begun, reason: str) -> None:
        """Release the build lock; a version that was not verified fails for this reason."""
        await self._repeat(
            "EndBuild", collections_pb2.EndBuildRequest(**_named(begun), reason=reason)
        )

    async def standing(self, tenant: str, collection: str) -> Standing:
        """How the collection stands now; NotFound if it is gone."""
        found = await self._listed(tenant, collection)
        build = found.build
        since = build.since.ToJsonString() if build.HasField("since") else ""
        return Standing(found.active.version, build.version, build.builder, since)

    async def _listed(self, tenant: str, collection: str) -> collections_pb2.Collection:
        """The collection without counts, which a description would make; never makes one."""
        request = collections_pb2.ListCollectionsRequest(tenant=tenant)
        response: collections_pb2.ListCollectionsResponse
        response = await self._repeat("ListCollections", request)
        for found in response.collections:
            if found.name == collection:
                return found
        raise NotFound(f"there is no collection {collection}")

    async def verify(
        self, begun: Begun, expected_documents: int, exam: Exam | None = None
    ) -> Verification:
        """Check a version that was built and make it ready, which ends the writing to it."""
        request = collections_pb2.VerifyVersionRequest(
            **_named(begun), expected_documents=expected_documents
        )
        if exam is not None:
            for case in exam.cases:
                request.golden_queries.add(query=case.query, expected=case.expected)
            if exam.threshold is not None:
                request.golden_threshold = exam.threshold
            if exam.max_drop is not None:
                request.golden_max_drop = exam.max_drop
        timeout_s = max(self._timeout_s, _VERIFY_TIMEOUT_S)
        return _verification(await self._repeat("VerifyVersion", request, timeout_s))

    async def activate(self, begun: Begun, *, requested_by: str, force: bool = False) -> None:
        """Make a ready version the active one.

        Args:
            begun: the version and the lock under which it was built.
            requested_by: kept in its record where ``force`` counts.
            force: although it fell short of its verification.
        """
        request = collections_pb2.ActivateVersionRequest(
            **_named(begun), force=force, requested_by=requested_by
        )
        await self._repeat("ActivateVersion", request)

    async def _repeat(
        self,
        method: str,
        request: object,
        timeout_s: float | None = None,
        *,
        goes_on: Callable[[SluiceError], bool] = is_passing,
    ) -> Any:  # noqa: ANN401 — the response's type is the method's
        limit_s = timeout_s or self._timeout_s
        return await self._indexers.call(
            lambda channel: _call(channel, method, request, limit_s),
            self._settings,
            goes_on=goes_on,
        )


async def _call(channel: grpc.aio.Channel, method: str, request: object, timeout_s: float) -> Any:  # noqa: ANN401 — as above
    stub = collections_pb2_grpc.CollectionsServiceStub(channel)
    return await getattr(stub, method)(request, timeout=timeout_s)


def _is_unsent(error: SluiceError) -> bool:
    return isinstance(error, Unconnected)


def _target(tenant: str, collection: str, version: collections_pb2.IndexVersion) -> IndexTarget:
    created_at = version.created_at.ToJsonString()
    return IndexTarget(tenant, collection, version.number, created_at)


def _named(begun: Begun) -> dict[str, Any]:
    target = begun.target
    return {
        "tenant": target.tenant,
        "collection": target.collection,
        "index_version": target.version,
        "fence": begun.fence,
    }


def _verification(response: collections_pb2.VerifyVersionResponse) -> Verification:
    findings = () if response.passed else tuple(response.findings) or ("it did not pass",)
    golden = None
    if response.HasField("golden"):
        score = response.golden
        golden = GoldenScore(
            *(score.queries, score.depth, score.threshold, score.candidate),
            active=score.active if score.HasField("active") else None,
            active_version=score.active_version,
        )
    misses = tuple(
        GoldenMiss(miss.query, tuple(miss.missing), tuple(miss.found), miss.active_finds)
        for miss in response.misses
    )
    return Verification(findings, golden, misses)
