"""Collections, their versions and the running services, as all processes see them.

Every change is one transaction that compares the revision of each record it rests on: it happens
whole or not at all, and a lost race raises Contended. The registry never touches the vector store
and remembers nothing: each answer is read from the coordinator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import codec, instances, keys
from common.coordination.coordinator import Condition, Delete, DeletePrefix, Operation, Put
from common.coordination.records import CollectionState, Pointer, VersionRecord, VersionState
from common.errors import Contended, FailedPrecondition, InvalidArgument, NotFound
from common.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from common.coordination.coordinator import Coordinator, Entry
    from common.coordination.records import ChunkingSpec, Instance
    from common.embedding import EmbedderSpec

_BEGIN_ATTEMPTS = 8
_RETRY_AFTER_MS = 50


@dataclass(slots=True)
class _Collection:
    """What was read of a collection, with the pointer's mod revision (0 where it is absent)."""

    tenant: str
    name: str
    pointer: Pointer | None
    pointer_revision: int
    versions: dict[int, VersionRecord]

    @property
    def exists(self) -> bool:
        return self.pointer is not None or bool(self.versions)

    @property
    def active_key(self) -> str:
        return keys.active_key(self.tenant, self.name)

    def pointer_unmoved(self) -> Condition:
        return Condition(self.active_key, mod_revision=self.pointer_revision)

    def version(self, number: int) -> VersionRecord:
        if number in self.versions:
            return self.versions[number]
        raise NotFound(
            f"collection {self.name} of tenant {self.tenant} has no version {number}; it has "
            f"{', '.join(map(str, sorted(self.versions))) or 'none'}"
        )


class IndexRegistry:
    """Reads and changes what the coordinator knows of collections and instances.

    All methods raise InvalidArgument for malformed names and CoordinatorUnavailable where the
    coordinator does not answer. An empty tenant means the default one.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def collections(self, tenant: str) -> tuple[CollectionState, ...]:
        """The collections of a tenant by name."""
        snapshot = await self._coordinator.list(keys.tenant_prefix(tenant))
        found = _parse(snapshot.entries)
        return tuple(_state(found[name]) for name in sorted(found))

    async def collection(self, tenant: str, name: str) -> CollectionState:
        """One collection; NotFound if it has neither a version nor a pointer."""
        return _state(await self._existing(tenant, name))

    async def version(self, tenant: str, name: str, number: int) -> VersionRecord:
        """One version, the active one for number 0.

        Raises:
            NotFound: no such collection or version.
            FailedPrecondition: number is 0 and no version is active.
        """
        found = await self._existing(tenant, name)
        if number:
            return found.version(number)
        if found.pointer is None:
            raise FailedPrecondition(
                f"collection {name} of tenant {found.tenant} has no active version; activate one"
            )
        return found.version(found.pointer.version)

    async def pointer(self, tenant: str, name: str) -> Pointer | None:
        """The pointer to the active version, None if none is active or no collection is there."""
        entry = await self._coordinator.get(keys.active_key(tenant, name))
        if entry is None:
            return None
        return codec.decode_pointer(entry.key, entry.value, tenant or DEFAULT_TENANT, name)

    async def begin_version(
        self, tenant: str, name: str, embedder: EmbedderSpec, chunking: ChunkingSpec
    ) -> VersionRecord:
        """Begin a version in state BUILDING under a number that was never used before.

        The first version makes the collection.

        Raises:
            Contended: other writers took a number first, eight times in a row.
        """
        sequence_key = keys.sequence_key(tenant, name)
        for _ in range(_BEGIN_ATTEMPTS):
            last = await self._coordinator.get(sequence_key)
            number = codec.decode_sequence(last) + 1 if last else 1
            record = VersionRecord(
                tenant=tenant or DEFAULT_TENANT,
                collection=name,
                number=number,
                state=VersionState.BUILDING,
                embedder=embedder,
                chunking=chunking,
                documents=None,
                chunks=None,
                created_at=_now(),
                activated_at=None,
            )
            outcome = await self._coordinator.transact(
                [Condition(sequence_key, mod_revision=last.mod_revision if last else 0)],
                [Put(sequence_key, codec.encode_sequence(number)), _put(record)],
            )
            if outcome.committed:
                return replace(record, mod_revision=outcome.revision)
        raise _contended(f"collection {name}: other writers begin versions")

    async def set_state(
        self,
        record: VersionRecord,
        state: VersionState,
        *,
        documents: int | None = None,
        chunks: int | None = None,
    ) -> VersionRecord:
        """Write a new state, and counts where given, if the record is still as it was read.

        Raises:
            Contended: the record was changed or deleted since it was read.
            FailedPrecondition: ACTIVE is entered and left by activation alone.
            InvalidArgument: one count without the other.
        """
        if (documents is None) != (chunks is None):
            raise InvalidArgument("give both counts or neither", field="counts")
        if state is not record.state and VersionState.ACTIVE in {state, record.state}:
            raise FailedPrecondition(
                f"version {record.number} of {record.collection} is {record.state.value}; only "
                "activating a version makes or unmakes an active one"
            )
        changed = replace(
            record,
            state=state,
            documents=record.documents if documents is None else documents,
            chunks=record.chunks if chunks is None else chunks,
        )
        revision = await self._commit(
            record.collection, [_unchanged(record)], [_put(changed)], record.number
        )
        return replace(changed, mod_revision=revision)

    async def activate(self, tenant: str, name: str, number: int) -> tuple[Pointer, bool]:
        """Make a READY or RETIRED version the active one; the former one becomes RETIRED.

        Returns:
            The pointer and whether it moved; it does not if the version was active already.

        Raises:
            NotFound: no such collection or version.
            FailedPrecondition: the version is BUILDING or FAILED.
            Contended: the pointer or one of the two versions was changed meanwhile.
        """
        return await self._activate(await self._existing(tenant, name), number)

    async def roll_back(self, tenant: str, name: str) -> Pointer:
        """Activate the version that was active before.

        Raises:
            NotFound: no such collection.
            FailedPrecondition: there was none, or it is no longer kept.
            Contended: see activate.
        """
        found = await self._existing(tenant, name)
        previous = found.pointer.previous_version if found.pointer else 0
        if previous not in found.versions:
            raise FailedPrecondition(
                f"collection {name} of tenant {found.tenant} keeps no earlier active version; "
                "activate one of its versions by number"
            )
        pointer, _ = await self._activate(found, previous)
        return pointer

    async def delete_version(self, record: VersionRecord) -> None:
        """Delete the record of a version; one that is gone already is left so.

        Raises:
            FailedPrecondition: the pointer names it.
            Contended: the pointer or the record was changed meanwhile.
        """
        found = await self._read(record.tenant, record.collection)
        if found.pointer is not None and found.pointer.version == record.number:
            raise FailedPrecondition(
                f"version {record.number} of {record.collection} is active; activate another first"
            )
        if record.number in found.versions:
            await self._commit(
                record.collection,
                [found.pointer_unmoved(), _unchanged(record)],
                [Delete(_key(record))],
                record.number,
            )

    async def delete_pointer(self, tenant: str, name: str) -> None:
        """Leave the collection without an active version; nothing if it has none.

        Raises:
            Contended: the pointer or the version was changed meanwhile.
        """
        found = await self._read(tenant, name)
        if found.pointer is None:
            return
        conditions = [found.pointer_unmoved()]
        operations: list[Operation] = [Delete(found.active_key)]
        active = found.versions.get(found.pointer.version)
        if active is not None:
            conditions.append(_unchanged(active))
            operations.append(_put(replace(active, state=VersionState.RETIRED)))
        await self._commit(name, conditions, operations, found.pointer.version)

    async def delete_collection(self, tenant: str, name: str) -> None:
        """Delete the pointer and every version; nothing if there are none.

        The sequence is kept, so that a collection of this name never takes a number again.
        """
        await self._coordinator.transact(
            [],
            [
                Delete(keys.active_key(tenant, name)),
                DeletePrefix(keys.versions_prefix(tenant, name)),
            ],
        )

    def register(
        self, service: str, address: str, *, ttl_s: int
    ) -> AbstractAsyncContextManager[Instance]:
        """Announce a running service while the context is open; see instances.register."""
        return instances.register(self._coordinator, service, address, ttl_s=ttl_s)

    async def instances(self, service: str) -> tuple[Instance, ...]:
        """The running instances of a service, by id."""
        snapshot = await self._coordinator.list(keys.instances_prefix(service))
        return tuple(codec.decode_instance(entry) for entry in snapshot.entries)

    async def _read(self, tenant: str, name: str) -> _Collection:
        snapshot = await self._coordinator.list(keys.collection_prefix(tenant, name))
        absent = _Collection(tenant or DEFAULT_TENANT, name, None, 0, {})
        return _parse(snapshot.entries).get(name, absent)

    async def _existing(self, tenant: str, name: str) -> _Collection:
        found = await self._read(tenant, name)
        if not found.exists:
            raise NotFound(
                f"tenant {found.tenant} has no collection {name}; `sluice collections list` shows "
                "those there are, `sluice ingest` makes one"
            )
        return found

    async def _activate(self, found: _Collection, number: int) -> tuple[Pointer, bool]:
        target, former = found.version(number), None
        if found.pointer is not None:
            if found.pointer.version == number:
                return found.pointer, False
            former = found.versions.get(found.pointer.version)
        if target.state in {VersionState.BUILDING, VersionState.FAILED}:
            raise FailedPrecondition(
                f"version {number} of {found.name} is {target.state.value}; verify it first"
            )
        now = _now()
        pointer = Pointer(
            tenant=found.tenant,
            collection=found.name,
            version=number,
            generation=found.pointer.generation + 1 if found.pointer else 1,
            embedder=target.embedder,
            activated_at=now,
            previous_version=found.pointer.version if found.pointer else 0,
        )
        conditions = [found.pointer_unmoved(), _unchanged(target)]
        operations: list[Operation] = [
            Put(found.active_key, codec.encode_pointer(pointer)),
            _put(replace(target, state=VersionState.ACTIVE, activated_at=now)),
        ]
        if former is not None:
            conditions.append(_unchanged(former))
            operations.append(_put(replace(former, state=VersionState.RETIRED)))
        await self._commit(found.name, conditions, operations, number)
        return pointer, True

    async def _commit(
        self,
        name: str,
        conditions: list[Condition],
        operations: list[Operation],
        number: int,
    ) -> int:
        outcome = await self._coordinator.transact(conditions, operations)
        if not outcome.committed:
            raise _contended(f"version {number} of collection {name} or its pointer was changed")
        return outcome.revision


def _parse(entries: Iterable[Entry]) -> dict[str, _Collection]:
    """Collections of one tenant by name."""
    found: dict[str, _Collection] = {}
    for entry in entries:
        key = keys.parse_collection_key(entry.key)
        if key is None:
            continue
        collection = found.setdefault(
            key.collection, _Collection(key.tenant, key.collection, None, 0, {})
        )
        if key.version is None:
            collection.pointer_revision = entry.mod_revision
            collection.pointer = codec.decode_pointer(
                entry.key, entry.value, key.tenant, key.collection
            )
        else:
            record = codec.decode_version(entry, key.tenant, key.collection)
            collection.versions[key.version] = record
    return found


def _state(found: _Collection) -> CollectionState:
    versions = tuple(found.versions[number] for number in sorted(found.versions))
    return CollectionState(found.tenant, found.name, found.pointer, versions)


def _key(record: VersionRecord) -> str:
    return keys.version_key(record.tenant, record.collection, record.number)


def _put(record: VersionRecord) -> Put:
    return Put(_key(record), codec.encode_version(record))


def _unchanged(record: VersionRecord) -> Condition:
    return Condition(_key(record), mod_revision=record.mod_revision)


def _contended(what: str) -> Contended:
    return Contended(f"{what} meanwhile; read it again and repeat", retry_after_ms=_RETRY_AFTER_MS)


def _now() -> datetime:
    return datetime.now(UTC)
