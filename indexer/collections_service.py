"""CollectionsService on the wire: collections and their versions, in registry and vector store.

Every method can be repeated after a crash in its middle. The order of its steps makes sure that
nothing reads what is half there: a store is made before its version can be written or activated,
and the pointer goes before what it points to. It translates and checks; what needs several steps
has a module of its own.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from common.coordination import CollectionState
from common.coordination.codec import pointer_message
from common.errors import AlreadyExists, InvalidArgument, NotFound, SluiceError
from common.identity import check_collection, check_tenant
from common.requester import MAX_BYTES as MAX_REQUESTER_BYTES
from indexer import messages
from indexer.collector import DELETED
from indexer.repair import repair
from sluice.collections.v1 import collections_pb2 as pb
from sluice.collections.v1 import collections_pb2_grpc

if TYPE_CHECKING:
    from typing import TypeAlias, TypeVar

    import grpc

    from common.coordination import Builds, IndexRegistry, VersionRecord
    from indexer.collector import Collector
    from indexer.examination import Examination
    from indexer.first_version import FirstVersions
    from indexer.pipeline import IndexPipeline
    from indexer.store import StoreCatalog
    from indexer.versions import Versions

    Request = TypeVar("Request")
    Response = TypeVar("Response")
    Context: TypeAlias = grpc.aio.ServicerContext[Request, Response]


DEFAULT_TTL_S = 15
MIN_TTL_S, MAX_TTL_S = 2, 600
# Of the reason for which a build was given up this much is kept.
MAX_REASON_CHARACTERS = 1_000


class CollectionsServicer(collections_pb2_grpc.CollectionsServiceServicer):
    """Serves ``sluice.collections.v1.CollectionsService``."""

    def __init__(
        self,
        registry: IndexRegistry,
        builds: Builds,
        stores: StoreCatalog,
        versions: Versions,
        *,
        first_versions: FirstVersions,
        examination: Examination,
        collector: Collector,
        pipeline: IndexPipeline,
    ) -> None:
        self._registry = registry
        self._builds = builds
        self._stores = stores
        self._versions = versions
        self._first_versions = first_versions
        self._examination = examination
        self._collector = collector
        self._pipeline = pipeline
        # Creating reads before it writes; between processes the registry's transactions decide.
        self._creating = asyncio.Lock()

    async def CreateCollection(  # noqa: N802 — named by the contract, as all below
        self,
        request: pb.CreateCollectionRequest,
        context: Context[pb.CreateCollectionRequest, pb.CreateCollectionResponse],
    ) -> pb.CreateCollectionResponse:
        """See the contract."""
        del context
        tenant, name = check_tenant(request.tenant), check_collection(request.collection)
        async with self._creating:
            state = await self._state(tenant, name)
            created = state.active is None
            if created:
                await self._first_versions.activate(state)
                state = await self._registry.collection(tenant, name)
            elif not request.if_absent:
                raise AlreadyExists(
                    f"tenant {tenant} has a collection {name}; choose another name or set if_absent"
                )
        return pb.CreateCollectionResponse(collection=messages.collection(state), created=created)

    async def ListCollections(  # noqa: N802
        self,
        request: pb.ListCollectionsRequest,
        context: Context[pb.ListCollectionsRequest, pb.ListCollectionsResponse],
    ) -> pb.ListCollectionsResponse:
        """See the contract."""
        del context
        states = await self._registry.collections(check_tenant(request.tenant))
        return pb.ListCollectionsResponse(collections=map(messages.collection, states))

    async def DescribeCollection(  # noqa: N802
        self,
        request: pb.DescribeCollectionRequest,
        context: Context[pb.DescribeCollectionRequest, pb.DescribeCollectionResponse],
    ) -> pb.DescribeCollectionResponse:
        """See the contract."""
        del context
        state = await self._registry.collection(
            check_tenant(request.tenant), check_collection(request.collection)
        )
        counts = {record.number: await self._counts(record) for record in state.versions}
        return pb.DescribeCollectionResponse(collection=messages.collection(state, counts))

    async def DeleteCollection(  # noqa: N802
        self,
        request: pb.DeleteCollectionRequest,
        context: Context[pb.DeleteCollectionRequest, pb.DeleteCollectionResponse],
    ) -> pb.DeleteCollectionResponse:
        """See the contract."""
        del context
        tenant, name = check_tenant(request.tenant), check_collection(request.collection)
        await self._registry.collection(tenant, name)  # NotFound if there is none
        await self._registry.delete_pointer(tenant, name)
        versions = (await self._state(tenant, name)).versions
        for record in versions:
            failed = await self._registry.fail(record, DELETED)
            await self._stores.delete(failed.store_collection)
        await self._registry.delete_collection(
            tenant, name, versions={record.number for record in versions}
        )
        return pb.DeleteCollectionResponse()

    async def BeginVersion(  # noqa: N802
        self,
        request: pb.BeginVersionRequest,
        context: Context[pb.BeginVersionRequest, pb.BeginVersionResponse],
    ) -> pb.BeginVersionResponse:
        """See the contract."""
        tenant, name = check_tenant(request.tenant), check_collection(request.collection)
        spec = self._first_versions
        record, build = await self._builds.begin(
            tenant,
            name,
            spec.embedder,
            spec.chunking,
            builder=_requester(request.builder, "builder") or context.peer(),
            ttl_s=_ttl_s(request.ttl_s),
        )
        try:
            await self._versions.create(record)
        except Exception:
            with suppress(SluiceError):  # the lock ends by itself then, a little later
                await self._builds.end(
                    tenant, name, record.number, build.fence, reason="its store could not be made"
                )
            raise
        return pb.BeginVersionResponse(
            version=messages.index_version(record), fence=build.fence, ttl_s=build.ttl_s
        )

    async def RenewBuild(  # noqa: N802
        self,
        request: pb.RenewBuildRequest,
        context: Context[pb.RenewBuildRequest, pb.RenewBuildResponse],
    ) -> pb.RenewBuildResponse:
        """See the contract."""
        del context
        if not 0 <= request.documents_per_s < math.inf:
            raise InvalidArgument("must be 0 or more", field="documents_per_s")
        await self._builds.renew(
            check_tenant(request.tenant),
            check_collection(request.collection),
            _named_version(request.index_version),
            _builders_fence(request.fence),
            documents=request.documents,
            chunks=request.chunks,
            documents_per_s=request.documents_per_s,
        )
        return pb.RenewBuildResponse()

    async def EndBuild(  # noqa: N802
        self,
        request: pb.EndBuildRequest,
        context: Context[pb.EndBuildRequest, pb.EndBuildResponse],
    ) -> pb.EndBuildResponse:
        """See the contract."""
        del context
        reason = " ".join(request.reason.split())
        record = await self._builds.end(
            check_tenant(request.tenant),
            check_collection(request.collection),
            _named_version(request.index_version),
            _builders_fence(request.fence),
            reason=reason[:MAX_REASON_CHARACTERS] or "its builder gave it up",
        )
        return pb.EndBuildResponse(version=messages.index_version(record) if record else None)

    async def VerifyVersion(  # noqa: N802
        self,
        request: pb.VerifyVersionRequest,
        context: Context[pb.VerifyVersionRequest, pb.VerifyVersionResponse],
    ) -> pb.VerifyVersionResponse:
        """See the contract."""
        del context
        fence, exam = _fence(request.fence), messages.exam(request)
        record = await self._versions.record(
            request.tenant, request.collection, request.index_version
        )
        expected = request.expected_documents if request.HasField("expected_documents") else None
        return messages.verified(
            *await self._examination.examine(
                record, fence=fence, expected_documents=expected, exam=exam
            )
        )

    async def RepairVersion(  # noqa: N802
        self,
        request: pb.RepairVersionRequest,
        context: Context[pb.RepairVersionRequest, pb.RepairVersionResponse],
    ) -> pb.RepairVersionResponse:
        """See the contract."""
        del context
        async with self._versions.repairing(
            request.tenant, request.collection, request.index_version
        ) as target:
            return messages.repaired(await repair(self._pipeline, target))

    async def ActivateVersion(  # noqa: N802
        self,
        request: pb.ActivateVersionRequest,
        context: Context[pb.ActivateVersionRequest, pb.ActivateVersionResponse],
    ) -> pb.ActivateVersionResponse:
        """See the contract."""
        del context
        requester = _requester(request.requested_by, "requested_by")
        if request.force and not requester:
            raise InvalidArgument("say who forces it, as user@host", field="requested_by")
        pointer, changed = await self._registry.activate(
            check_tenant(request.tenant),
            check_collection(request.collection),
            _named_version(request.index_version),
            fence=_fence(request.fence),
            force=request.force,
            requested_by=requester,
        )
        return pb.ActivateVersionResponse(active=pointer_message(pointer), changed=changed)

    async def RollBackCollection(  # noqa: N802
        self,
        request: pb.RollBackCollectionRequest,
        context: Context[pb.RollBackCollectionRequest, pb.RollBackCollectionResponse],
    ) -> pb.RollBackCollectionResponse:
        """See the contract."""
        del context
        pointer = await self._registry.roll_back(
            check_tenant(request.tenant),
            check_collection(request.collection),
            to_version=request.to_version,
        )
        return pb.RollBackCollectionResponse(active=pointer_message(pointer))

    async def DeleteVersion(  # noqa: N802
        self,
        request: pb.DeleteVersionRequest,
        context: Context[pb.DeleteVersionRequest, pb.DeleteVersionResponse],
    ) -> pb.DeleteVersionResponse:
        """See the contract."""
        del context
        record = await self._versions.record(
            request.tenant, request.collection, _named_version(request.index_version)
        )
        users = await self._collector.remove(record, DELETED)
        return pb.DeleteVersionResponse(
            pending=bool(users), used_by=sorted({user.holder for user in users})
        )

    async def _state(self, tenant: str, name: str) -> CollectionState:
        try:
            return await self._registry.collection(tenant, name)
        except NotFound:
            return CollectionState(tenant, name, None, ())

    async def _counts(self, record: VersionRecord) -> tuple[int, int]:
        try:
            store = await self._stores.open(record.store_collection)
            return len(await store.heads()), await store.count()
        except NotFound:
            return 0, 0


def _named_version(number: int) -> int:
    if not number:
        raise InvalidArgument("name a version, from 1", field="index_version")
    return number


def _builders_fence(fence: int) -> int:
    if fence < 1:
        raise InvalidArgument("give the one that BeginVersion gave", field="fence")
    return fence


def _fence(fence: int) -> int:
    if fence < 0:
        raise InvalidArgument("give the one that BeginVersion gave, or 0", field="fence")
    return fence


def _requester(name: str, field: str) -> str:
    if len(name.encode()) > MAX_REQUESTER_BYTES or not name.isprintable():
        raise InvalidArgument(f"at most {MAX_REQUESTER_BYTES} printable bytes", field=field)
    return name.strip()


def _ttl_s(ttl_s: int) -> int:
    if ttl_s and not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise InvalidArgument(
            f"{MIN_TTL_S} to {MAX_TTL_S} seconds, or 0 for {DEFAULT_TTL_S}", field="ttl_s"
        )
    return ttl_s or DEFAULT_TTL_S
