"""Collections, their versions and the running services, as all processes see them.

Every change is one transaction that compares the revision of each record it rests on: it happens
whole or not at all, and a lost race raises Contended. The registry never touches the vector store
and remembers nothing: each answer is read from the coordinator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from common.coordination import activation, codec, instances, keys, stored
from common.coordination.coordinator import Condition, Delete, DeletePrefix, Operation, Put
from common.coordination.records import CollectionState, Pointer, VersionRecord, VersionState
from common.errors import Contended, FailedPrecondition, InvalidArgument
from common.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractAsyncContextManager

    from common.coordination.coordinator import Coordinator
    from common.coordination.records import ChunkingSpec, Instance, Verdict
    from common.coordination.stored import StoredCollection
    from common.embedding import EmbedderSpec

_BEGIN_ATTEMPTS = 8
_CHECK_ATTEMPTS = 4


class IndexRegistry:
    """Reads and changes what the coordinator knows of collections and instances.

    All methods raise InvalidArgument for malformed names and CoordinatorUnavailable where the
    coordinator does not answer. An empty tenant means the default one.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def collections(self, tenant: str) -> tuple[CollectionState, ...]:
        """The collections of a tenant by name."""
        return await self._collections(keys.tenant_prefix(tenant), keys.build_locks_prefix(tenant))

    async def all_collections(self) -> tuple[CollectionState, ...]:
        """The collections of all tenants, by tenant and name."""
        return await self._collections(keys.COLLECTIONS, keys.LOCKS)

    async def collection(self, tenant: str, name: str) -> CollectionState:
        """One collection; NotFound if it has neither a version nor a pointer."""
        found = await self._existing(tenant, name)
        return found.state(await stored.read_build(self._coordinator, tenant, name))

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
        """Begin a version without a builder, in state BUILDING, under a number of its own.

        The first version makes the collection. It takes no documents before it is active: the
        versions that do are begun by `Builds`.

        Raises:
            Contended: other writers took a number first, eight times in a row.
        """
        sequence_key = keys.sequence_key(tenant, name)
        for _ in range(_BEGIN_ATTEMPTS):
            last = await self._coordinator.get(sequence_key)
            number = codec.decode_sequence(last) + 1 if last else 1
            record = stored.begun(tenant, name, number, embedder, chunking, builder="")
            outcome = await self._coordinator.transact(
                [Condition(sequence_key, mod_revision=last.mod_revision if last else 0)],
                [Put(sequence_key, codec.encode_sequence(number)), stored.put(record)],
            )
            if outcome.committed:
                at = outcome.revision
                return replace(record, mod_revision=at, fence=at)
        raise stored.contended(f"collection {name}: other writers begin versions")

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
        changed = replace(record, state=state)
        if documents is not None:
            changed = replace(changed, documents=documents, chunks=chunks)
        return await self._write(record, changed)

    async def check_writable(self, record: VersionRecord) -> VersionRecord:
        """Make sure that a version takes writes now: it is active, or its builder holds the lock.

        Returns:
            The record as it is; where it is as it was given, that took a single exchange.

        Raises:
            NotFound: the version is gone.
            FailedPrecondition: it takes no writes; the message says why, and which version does.
            Contended: it was changed again and again.
        """
        for _ in range(_CHECK_ATTEMPTS):
            conditions = [stored.unchanged(record)]
            if record.state is VersionState.BUILDING:
                conditions.append(stored.lock_held(record.tenant, record.collection, record.fence))
            if record.state in {VersionState.ACTIVE, VersionState.BUILDING}:
                outcome = await self._coordinator.transact(conditions, [])
                if outcome.committed:
                    return record
            known, found = record, await self._existing(record.tenant, record.collection)
            record = found.version(record.number)
            if record.state not in {VersionState.ACTIVE, VersionState.BUILDING}:
                raise _not_writable(record, found.pointer)
            if record.mod_revision == known.mod_revision and not await stored.holds_lock(
                self._coordinator, record, record.fence
            ):
                raise stored.lost(record.collection, record.number)
        raise stored.contended(f"version {record.number} of {record.collection} was changed")

    async def finish_build(
        self, record: VersionRecord, fence: int, *, documents: int, chunks: int, verdict: Verdict
    ) -> VersionRecord:
        """Make a version that was built READY, with its counts and what its verification said.

        Raises:
            FailedPrecondition: the build lock was lost, or the version is not BUILDING.
            Contended: the record was changed or deleted since it was read.
        """
        if record.state is not VersionState.BUILDING:
            raise FailedPrecondition(
                f"version {record.number} of {record.collection} is {record.state.value}; only a "
                "version that is building can be finished"
            )
        changed = replace(
            record, state=VersionState.READY, documents=documents, chunks=chunks, verdict=verdict
        )
        return await self._write(record, changed, fence=fence)

    async def set_verdict(
        self, record: VersionRecord, *, documents: int, chunks: int, verdict: Verdict | None
    ) -> VersionRecord:
        """Write the counts of a version and, if it is READY and one is given, a new verdict.

        Raises:
            Contended: the record was changed or deleted since it was read.
        """
        changed = replace(record, documents=documents, chunks=chunks)
        if record.state is VersionState.READY and verdict is not None:
            changed = replace(changed, verdict=verdict)
        return await self._write(record, changed)

    async def fail(self, record: VersionRecord, failure: str) -> VersionRecord:
        """Make a version FAILED, so that nobody activates or writes it; a failed one stays so.

        Raises:
            FailedPrecondition: it is active, or being built.
            Contended: the record was changed or deleted since it was read.
        """
        if record.state is VersionState.FAILED:
            return record
        await self._check_unused(record)
        return await self._write(record, stored.failed(record, failure))

    async def activate(
        self,
        tenant: str,
        name: str,
        number: int,
        *,
        fence: int = 0,
        force: bool = False,
        requested_by: str = "",
    ) -> tuple[Pointer, bool]:
        """Make a READY or RETIRED version the active one; the former one becomes RETIRED.

        Args:
            tenant: whose collection.
            name: the collection.
            number: the version.
            fence: of its builder, who must still hold the build lock; 0 for an operator.
            force: also if it is READY and its verdict says that it fell short.
            requested_by: who asks; kept in the record where force was needed.

        Returns:
            The pointer and whether it moved; it does not if the version was active already.

        Raises:
            NotFound: no such collection or version.
            FailedPrecondition: the version is BUILDING or FAILED, fell short of its verification,
                or its builder lost the lock.
            Contended: the pointer or one of the two versions was changed meanwhile.
            InvalidArgument: force for nobody.
        """
        asked = activation.Asked(fence, force, requested_by)
        found = await self._existing(tenant, name)
        return await activation.activate(self._coordinator, found, number, asked)

    async def activate_first(self, record: VersionRecord) -> None:
        """Activate a version of a collection that has no active one; nothing if it is that one.

        Raises:
            NotFound: no such collection or version.
            Contended: another version was activated, or this one was changed, meanwhile.
        """
        found = await self._existing(record.tenant, record.collection)
        asked = activation.Asked(first=True)
        await activation.activate(self._coordinator, found, record.number, asked)

    async def roll_back(self, tenant: str, name: str, *, to_version: int = 0) -> Pointer:
        """Activate a version that was active before: the last such, or one by its number.

        Raises:
            NotFound: no such collection or version.
            FailedPrecondition: there was none, it is no longer kept, or it never was active.
            Contended: see activate.
        """
        found = await self._existing(tenant, name)
        target = found.version(to_version) if to_version else activation.last_active(found)
        activation.check_was_active(target)
        pointer, _ = await activation.activate(
            self._coordinator, found, target.number, activation.Asked()
        )
        return pointer

    async def delete_version(self, record: VersionRecord) -> None:
        """Delete a version's record and word statistics; one that is gone already is left so.

        Raises:
            FailedPrecondition: it is active, or being built.
            Contended: the pointer or the record was changed meanwhile.
        """
        found = await stored.read(self._coordinator, record.tenant, record.collection)
        if record.number not in found.versions:
            return
        await self._check_unused(record, found.pointer)
        outcome = await self._coordinator.transact(
            [found.pointer_unmoved(), stored.unchanged(record)], stored.delete(record)
        )
        if not outcome.committed:
            raise _moved(record)

    async def delete_pointer(self, tenant: str, name: str) -> None:
        """Leave the collection without an active version, and whoever builds without the lock.

        Raises:
            Contended: the pointer or the version was changed meanwhile.
        """
        found = await stored.read(self._coordinator, tenant, name)
        conditions = [found.pointer_unmoved()]
        operations: list[Operation] = [
            Delete(found.active_key),
            Delete(keys.build_lock(tenant, name)),
        ]
        active = found.versions.get(found.pointer.version) if found.pointer else None
        if active is not None:
            retired = replace(active, state=VersionState.RETIRED, retired_at=stored.now())
            conditions.append(stored.unchanged(active))
            operations.append(stored.put(retired))
        if not (await self._coordinator.transact(conditions, operations)).committed:
            raise stored.contended(f"the active version of collection {name} was changed")

    async def delete_collection(
        self, tenant: str, name: str, *, versions: Collection[int] | None = None
    ) -> None:
        """Delete the pointer, the build lock and all about the versions; nothing if there is none.

        The sequence is kept, so that a collection of this name never takes a number again.

        Args:
            tenant: whose collection.
            name: the collection.
            versions: those there may be, by number; None for any.

        Raises:
            Contended: another version was begun.
        """
        conditions: list[Condition] = []
        if versions is not None:
            sequence_key = keys.sequence_key(tenant, name)
            last = await self._coordinator.get(sequence_key)
            conditions = [Condition(sequence_key, mod_revision=last.mod_revision if last else 0)]
            found = await stored.read(self._coordinator, tenant, name)
            if not found.versions.keys() <= set(versions):
                raise stored.contended(f"another version of collection {name} was begun")
        outcome = await self._coordinator.transact(
            conditions,
            [
                Delete(keys.active_key(tenant, name)),
                DeletePrefix(keys.versions_prefix(tenant, name)),
                DeletePrefix(keys.statistics_prefix(tenant, name)),
                Delete(keys.build_lock(tenant, name)),
            ],
        )
        if not outcome.committed:
            raise stored.contended(f"another version of collection {name} was begun")

    def register(
        self, service: str, address: str, *, ttl_s: int
    ) -> AbstractAsyncContextManager[Instance]:
        """Announce a running service while the context is open; see instances.register."""
        return instances.register(self._coordinator, service, address, ttl_s=ttl_s)

    async def instances(self, service: str) -> tuple[Instance, ...]:
        """The running instances of a service, by id."""
        snapshot = await self._coordinator.list(keys.instances_prefix(service))
        return tuple(codec.decode_instance(entry) for entry in snapshot.entries)

    async def _existing(self, tenant: str, name: str) -> StoredCollection:
        return await stored.read_existing(self._coordinator, tenant, name)

    async def _collections(self, prefix: str, locks: str) -> tuple[CollectionState, ...]:
        found = stored.parse((await self._coordinator.list(prefix)).entries)
        builds = stored.parse_builds((await self._coordinator.list(locks)).entries)
        return tuple(found[place].state(builds.get(place)) for place in sorted(found))

    async def _check_unused(self, record: VersionRecord, pointer: Pointer | None = None) -> None:
        """FailedPrecondition if the version is active or being built."""
        name = f"version {record.number} of {record.collection}"
        pointed = pointer is not None and pointer.version == record.number
        if pointed or record.state is VersionState.ACTIVE:
            raise FailedPrecondition(f"{name} is active; activate another first")
        # A lock that is not held by its build never is again.
        if record.state is VersionState.BUILDING and await stored.holds_lock(
            self._coordinator, record, record.fence
        ):
            raise FailedPrecondition(f"{name} is being built; stop its builder first")

    async def _write(
        self, record: VersionRecord, changed: VersionRecord, *, fence: int | None = None
    ) -> VersionRecord:
        """Write a record if it is as it was read and, with a fence, its builder holds the lock."""
        conditions = [stored.unchanged(record)]
        if fence is not None:
            if fence != record.fence:
                raise stored.lost(record.collection, record.number)
            conditions.append(stored.lock_held(record.tenant, record.collection, fence))
        outcome = await self._coordinator.transact(conditions, [stored.put(changed)])
        if outcome.committed:
            return replace(changed, mod_revision=outcome.revision)
        if fence is not None and not await stored.holds_lock(self._coordinator, record, fence):
            raise stored.lost(record.collection, record.number)
        raise _moved(record)


def _not_writable(record: VersionRecord, pointer: Pointer | None) -> FailedPrecondition:
    why = {
        VersionState.READY: "was verified and takes no more documents",
        VersionState.RETIRED: "is retired",
        VersionState.FAILED: f"has failed{f' ({record.failure})' if record.failure else ''}",
    }[record.state]
    active = f"version {pointer.version} is active" if pointer else "no version is active"
    return FailedPrecondition(
        f"version {record.number} of collection {record.collection} {why}; {active} now: write to "
        "the active version, or begin another"
    )


def _moved(record: VersionRecord) -> Contended:
    return stored.contended(
        f"version {record.number} of collection {record.collection} or its pointer was changed"
    )
