"""Which index version a request writes to or reads, and whether it may.

The coordinator's record decides; the vector store is opened only for a version that passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.coordination import VersionState
from common.errors import EmbedderMismatch, FailedPrecondition
from common.identity import ConsistencyToken, check_collection, check_tenant, encode_token
from indexer.pipeline import Target

if TYPE_CHECKING:
    from common.coordination import ChunkingSpec, IndexRegistry, VersionRecord
    from common.embedding import EmbedderSpec
    from indexer.store import StoreCatalog, VectorStore

_WRITABLE = frozenset({VersionState.BUILDING, VersionState.ACTIVE})


@dataclass(frozen=True, slots=True)
class WritableVersion:
    """A version that takes writes.

    Attributes:
        number: of the version.
        target: its store.
        token: a reader that brings it reads what is written.
    """

    number: int
    target: Target
    token: str


class Versions:
    """Opens index versions for the services of this process."""

    def __init__(
        self,
        registry: IndexRegistry,
        stores: StoreCatalog,
        *,
        embedder: EmbedderSpec,
        chunking: ChunkingSpec,
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._embedder = embedder
        self._chunking = chunking

    async def record(self, tenant: str, collection: str, number: int) -> VersionRecord:
        """The record of a version, of the active one for number 0.

        Raises:
            InvalidArgument: a malformed name.
            NotFound: no such collection or version.
            FailedPrecondition: number is 0 and no version is active.
        """
        return await self._registry.version(
            check_tenant(tenant), check_collection(collection), number
        )

    async def open(self, tenant: str, collection: str, number: int) -> VectorStore:
        """The store of a version, for reading; errors as for ``record``."""
        return await self._stores.open(
            (await self.record(tenant, collection, number)).store_collection
        )

    async def open_for_deleting(self, tenant: str, collection: str, number: int) -> Target:
        """The store of a version that takes writes.

        Raises:
            FailedPrecondition: the version does not take writes; else as for ``record``.
        """
        return await self._open_writable(await self.record(tenant, collection, number))

    async def open_for_writing(self, tenant: str, collection: str, number: int) -> WritableVersion:
        """A version that takes documents from this process.

        Raises:
            FailedPrecondition: the version does not take writes, or has another chunking.
            EmbedderMismatch: it was written with another embedder; else as for ``record``.
        """
        record = await self.record(tenant, collection, number)
        name = f"version {record.number} of {record.collection}"
        if record.embedder != self._embedder:
            raise EmbedderMismatch(
                f"{name} was written with {_named(record.embedder)}, this indexer embeds with "
                f"{_named(self._embedder)}; rebuild it as a new version or configure its embedder"
            )
        if record.chunking != self._chunking:
            raise FailedPrecondition(
                f"{name} was written with chunking {record.chunking.fingerprint()}, this indexer "
                f"cuts {self._chunking.fingerprint()}; rebuild it as a new version or configure "
                "its chunking"
            )
        target = await self._open_writable(record)
        return WritableVersion(record.number, target, await self._token(record))

    async def _open_writable(self, record: VersionRecord) -> Target:
        if record.state not in _WRITABLE:
            raise FailedPrecondition(
                f"version {record.number} of {record.collection} is {record.state.value} and takes "
                "no writes; write to the active version or begin a new one"
            )
        name = record.store_collection
        if record.state is VersionState.BUILDING:
            # A crash right after the version was begun may have left it without a store.
            return Target(name, await self._stores.create(name))
        return Target(name, await self._stores.open(name))

    async def _token(self, record: VersionRecord) -> str:
        """A version that is not active is read at the next activation at the earliest."""
        pointer = await self._registry.pointer(record.tenant, record.collection)
        generation = pointer.generation if pointer else 0
        if pointer is None or pointer.version != record.number:
            generation += 1
        return encode_token(
            ConsistencyToken(record.tenant, record.collection, record.number, generation)
        )


def _named(spec: EmbedderSpec) -> str:
    return f"{spec.model} ({spec.variant}, {spec.dimension} dimensions, {spec.digest[:12]})"
