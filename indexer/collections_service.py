"""CollectionsService on the wire: collections and their versions, in registry and vector store.

Every method can be repeated after a crash in its middle. The order of its steps makes sure that
nothing reads what is half there: a store is made before its version can be written or activated,
and the pointer goes before what it points to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from common.coordination import CollectionState, VersionState
from common.coordination.codec import pointer_message
from common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from common.identity import check_collection, check_tenant
from indexer import inventory, messages
from sluice.collections.v1 import collections_pb2 as pb
from sluice.collections.v1 import collections_pb2_grpc

if TYPE_CHECKING:
    from typing import TypeAlias, TypeVar

    import grpc

    from common.coordination import ChunkingSpec, IndexRegistry, VersionRecord
    from common.embedding import EmbedderSpec
    from indexer.store import StoreCatalog
    from indexer.versions import Versions

    Request = TypeVar("Request")
    Response = TypeVar("Response")
    Context: TypeAlias = grpc.aio.ServicerContext[Request, Response]


class CollectionsServicer(collections_pb2_grpc.CollectionsServiceServicer):
    """Serves ``sluice.collections.v1.CollectionsService``."""

    def __init__(
        self,
        registry: IndexRegistry,
        stores: StoreCatalog,
        versions: Versions,
        *,
        embedder: EmbedderSpec,
        chunking: ChunkingSpec,
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._versions = versions
        self._embedder = embedder
        self._chunking = chunking
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
                await self._activate_empty_version(state)
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
        state = await self._registry.collection(tenant, name)
        await self._registry.delete_pointer(tenant, name)
        for record in state.versions:
            await self._stores.delete(record.store_collection)
        await self._registry.delete_collection(tenant, name)
        return pb.DeleteCollectionResponse()

    async def BeginVersion(  # noqa: N802
        self,
        request: pb.BeginVersionRequest,
        context: Context[pb.BeginVersionRequest, pb.BeginVersionResponse],
    ) -> pb.BeginVersionResponse:
        """See the contract."""
        del context
        tenant, name = check_tenant(request.tenant), check_collection(request.collection)
        await self._registry.collection(tenant, name)
        record = await self._registry.begin_version(tenant, name, self._embedder, self._chunking)
        await self._stores.create(record.store_collection)
        return pb.BeginVersionResponse(version=messages.index_version(record))

    async def VerifyVersion(  # noqa: N802
        self,
        request: pb.VerifyVersionRequest,
        context: Context[pb.VerifyVersionRequest, pb.VerifyVersionResponse],
    ) -> pb.VerifyVersionResponse:
        """See the contract."""
        del context
        record = await self._versions.record(
            request.tenant, request.collection, request.index_version
        )
        expected = request.expected_documents if request.HasField("expected_documents") else None
        store = await self._stores.open(record.store_collection)
        found = await inventory.verify(store, expected_documents=expected)
        passed = not found.findings
        if passed:
            building = record.state is VersionState.BUILDING
            record = await self._registry.set_state(
                record,
                VersionState.READY if building else record.state,
                documents=found.documents,
                chunks=found.chunks,
            )
        return pb.VerifyVersionResponse(
            version=messages.index_version(record, (found.documents, found.chunks)),
            passed=passed,
            findings=found.findings,
        )

    async def ActivateVersion(  # noqa: N802
        self,
        request: pb.ActivateVersionRequest,
        context: Context[pb.ActivateVersionRequest, pb.ActivateVersionResponse],
    ) -> pb.ActivateVersionResponse:
        """See the contract."""
        del context
        pointer, changed = await self._registry.activate(
            check_tenant(request.tenant),
            check_collection(request.collection),
            _named_version(request.index_version),
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
            check_tenant(request.tenant), check_collection(request.collection)
        )
        return pb.RollBackCollectionResponse(active=pointer_message(pointer))

    async def DeleteVersion(  # noqa: N802
        self,
        request: pb.DeleteVersionRequest,
        context: Context[pb.DeleteVersionRequest, pb.DeleteVersionResponse],
    ) -> pb.DeleteVersionResponse:
        """See the contract."""
        del context
        number = _named_version(request.index_version)
        record = await self._versions.record(request.tenant, request.collection, number)
        if record.state is VersionState.ACTIVE:
            raise FailedPrecondition(
                f"version {number} of {record.collection} is active; activate another first"
            )
        # A failed version cannot be activated, so nobody reads it while its store goes.
        if record.state is not VersionState.FAILED:
            record = await self._registry.set_state(record, VersionState.FAILED)
        await self._stores.delete(record.store_collection)
        await self._registry.delete_version(record)
        return pb.DeleteVersionResponse()

    async def _state(self, tenant: str, name: str) -> CollectionState:
        try:
            return await self._registry.collection(tenant, name)
        except NotFound:
            return CollectionState(tenant, name, None, ())

    async def _activate_empty_version(self, state: CollectionState) -> None:
        """Give a collection its first version, going on where a crash left one half made."""
        record = await self._half_made(state) or await self._registry.begin_version(
            state.tenant, state.name, self._embedder, self._chunking
        )
        await self._stores.create(record.store_collection)
        if record.state is VersionState.BUILDING:
            record = await self._registry.set_state(
                record, VersionState.READY, documents=0, chunks=0
            )
        await self._registry.activate(state.tenant, state.name, record.number)

    async def _half_made(self, state: CollectionState) -> VersionRecord | None:
        for record in state.versions:
            if (
                record.state in {VersionState.BUILDING, VersionState.READY}
                and (record.embedder, record.chunking) == (self._embedder, self._chunking)
                and not await (await self._stores.create(record.store_collection)).count()
            ):
                return record
        return None

    async def _counts(self, record: VersionRecord) -> tuple[int, int]:
        try:
            store = await self._stores.open(record.store_collection)
        except NotFound:
            return 0, 0
        return len(await store.heads()), await store.count()


def _named_version(number: int) -> int:
    if not number:
        raise InvalidArgument("name a version, from 1", field="index_version")
    return number
