"""Which index version a request writes to or reads, and whether it may.

The coordinator's record decides; the vector store is opened only for a version that passed. What
writes to a version pins it and asks before every batch whether it still takes writes: what wakes
up late, or goes on where another version was activated, must not be acknowledged.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from common.coordination import VersionState, maintenance
from common.errors import Contended, EmbedderMismatch, FailedPrecondition, NotFound
from common.identity import ConsistencyToken, check_collection, check_tenant, encode_token
from indexer.target import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.coordination import (
        ChunkingSpec,
        Coordinator,
        HeldLock,
        IndexRegistry,
        Pins,
        VersionRecord,
    )
    from common.embedding import EmbedderSpec
    from indexer.store import StoreCatalog, VectorStore

_MENDABLE = frozenset({VersionState.READY, VersionState.ACTIVE, VersionState.RETIRED})


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


def _unheard(record: VersionRecord) -> None:
    """Tell nobody."""
    del record


@dataclass(slots=True)
class _Guard:
    """Asks whether a version still takes writes: one exchange, by the record last seen."""

    registry: IndexRegistry
    record: VersionRecord

    async def check(self) -> None:
        self.record = await self.registry.check_writable(self.record)


class Versions:
    """Opens index versions for the services of this process."""

    def __init__(
        self,
        coordinator: Coordinator,
        registry: IndexRegistry,
        stores: StoreCatalog,
        pins: Pins,
        *,
        holder: str,
        embedder: EmbedderSpec,
        chunking: ChunkingSpec,
        changed: Callable[[VersionRecord], None] | None = None,
    ) -> None:
        """Construct it.

        Args:
            coordinator: where repairs lock writers out.
            registry: the records.
            stores: what they name.
            pins: those of this process.
            holder: this process, told to those that a repair keeps out.
            embedder: what this process embeds with.
            chunking: how it cuts.
            changed: told after each change of a version's store, if given; it must neither block
                nor fail.
        """
        self._coordinator = coordinator
        self._registry = registry
        self._stores = stores
        self._pins = pins
        self._holder = holder
        self._embedder = embedder
        self._chunking = chunking
        self._changed = changed or _unheard

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

    async def create(self, record: VersionRecord) -> VectorStore:
        """The store of a version that begins; made if it is not there.

        Raises:
            Contended: the version was deleted meanwhile; no store is left of it.
        """
        store = await self._stores.create(record.store_collection)
        state = VersionState.FAILED
        with suppress(NotFound):
            state = (await self.record(record.tenant, record.collection, record.number)).state
        # Whoever deletes a version makes it FAILED first and its store goes second: so one of the
        # two always sees the other.
        if state is VersionState.FAILED:
            await self._stores.delete(record.store_collection)
            raise Contended(
                f"version {record.number} of collection {record.collection} was deleted as it "
                "began; begin again if the collection is still wanted"
            )
        return store

    @asynccontextmanager
    async def reading(self, record: VersionRecord) -> AsyncIterator[VectorStore]:
        """The store of a version, kept there while the context is open; NotFound if it is gone."""
        named = (record.tenant, record.collection, record.number)
        try:
            await self._pins.read(*named)
            yield await self._stores.open(record.store_collection)
        finally:
            await self._pins.let_go(*named)

    @asynccontextmanager
    async def deleting(self, tenant: str, collection: str, number: int) -> AsyncIterator[Target]:
        """A version that takes deletions, pinned while the context is open.

        Raises:
            FailedPrecondition: the version does not take writes.
            Contended: a repair is under way in the collection; else as for ``record``.
        """
        async with self._written(await self.record(tenant, collection, number)) as target:
            yield target

    @asynccontextmanager
    async def writing(
        self, tenant: str, collection: str, number: int
    ) -> AsyncIterator[WritableVersion]:
        """A version that takes documents from this process, pinned while the context is open.

        Raises:
            FailedPrecondition: the version does not take writes, or has another chunking.
            EmbedderMismatch: it was written with another embedder.
            Contended: a repair is under way in the collection; else as for ``record``.
        """
        record = await self.record(tenant, collection, number)
        self._check_same_chunks(record)
        async with self._written(record) as target:
            yield WritableVersion(record.number, target, await self._token(record))

    @asynccontextmanager
    async def repairing(self, tenant: str, collection: str, number: int) -> AsyncIterator[Target]:
        """A version that nobody writes, nor may begin to, while the context is open.

        Raises:
            FailedPrecondition: the version is being built or was given up, or one of the
                collection is being written.
            Contended: another repair is under way; else as for ``record``.
        """
        record = await self.record(tenant, collection, number)
        async with (
            maintenance(
                self._coordinator, record.tenant, record.collection, holder=self._holder
            ) as lock,
            self.reading(record) as store,
        ):
            check = partial(self._check_mendable, record, lock)
            await check()
            mending = asyncio.Lock()
            try:
                changed = partial(self._changed, record)
                yield Target(record.store_collection, store, check, lambda: mending, changed)
            finally:
                async with mending:  # what is being mended ends first, and nothing more begins
                    lock.lost.set()

    @asynccontextmanager
    async def _written(self, record: VersionRecord) -> AsyncIterator[Target]:
        """Pinned first, then asked: a version given up between the two is seen as such."""
        held = partial(self._held, record)
        guard = _Guard(self._registry, record)
        async with self._pins.writing(record.tenant, record.collection, record.number):
            await guard.check()
            store = await self._stores.open(record.store_collection)
            changed = partial(self._changed, record)
            yield Target(record.store_collection, store, guard.check, held, changed)

    @asynccontextmanager
    async def _held(self, record: VersionRecord) -> AsyncIterator[None]:
        """Pinned for one batch; Unavailable on leaving if the pin did not stand all the time."""
        named = (record.tenant, record.collection, record.number)
        async with self._pins.writing(*named) as check_unbroken:
            yield
            await check_unbroken()

    async def _check_mendable(self, record: VersionRecord, lock: HeldLock) -> None:
        name = f"version {record.number} of {record.collection}"
        state = (await self.record(record.tenant, record.collection, record.number)).state
        # Asked last: who stood still is told while it waits for the record.
        if lock.lost.is_set():
            raise FailedPrecondition(f"the maintenance lock over {name} was lost; repair it again")
        if state not in _MENDABLE:
            raise FailedPrecondition(
                f"{name} is {state.value}; only what was built and not given up can be repaired"
            )

    def _check_same_chunks(self, record: VersionRecord) -> None:
        name = f"version {record.number} of {record.collection}"
        cure = (
            "rebuild the collection as a new version (`sluice ingest --rebuild --activate`), or "
            "configure this indexer as the version is"
        )
        if record.embedder != self._embedder:
            raise EmbedderMismatch(
                f"{name} was written with {_named(record.embedder)}, this indexer embeds with "
                f"{_named(self._embedder)}; {cure}"
            )
        if record.chunking != self._chunking:
            raise FailedPrecondition(
                f"{name} was written with chunking {record.chunking.fingerprint()}, this indexer "
                f"cuts {self._chunking.fingerprint()}; {cure}"
            )

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
