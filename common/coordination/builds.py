"""Building the next version of a collection under a lock that needs no session.

Whoever builds holds a lock by its lease: any server renews it by the id that the lock's entry
carries. The lock and the record of the version are put in one transaction, so both have the same
create revision: the fence, which every later step names. A builder that stands still does not
renew, its lease ends and the lock with it, and the next one begins another version with a store of
its own. Nothing here writes a lock that another holds, and a lost lock is never taken again.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from common.coordination import codec, keys, stored
from common.coordination.coordinator import Condition, Delete, Put
from common.coordination.records import Build, VersionRecord, VersionState
from common.errors import Contended, CoordinatorUnavailable, NotFound

if TYPE_CHECKING:
    from common.coordination.coordinator import Coordinator, Lease, Operation
    from common.coordination.records import ChunkingSpec
    from common.coordination.stored import StoredCollection
    from common.embedding import EmbedderSpec

_ATTEMPTS = 8
MAX_ABANDONED = 16
"""Most versions without a builder that one beginning marks FAILED; the collector takes others."""
_ABANDONED = "abandoned: its builder held the lock no longer when the next build began"


class Builds:
    """Begins, renews and ends builds.

    All methods raise InvalidArgument for malformed names and CoordinatorUnavailable where the
    coordinator does not answer. An empty tenant means the default one.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def begin(
        self,
        tenant: str,
        name: str,
        embedder: EmbedderSpec,
        chunking: ChunkingSpec,
        *,
        builder: str,
        ttl_s: int = 15,
    ) -> tuple[VersionRecord, Build]:
        """Take the build lock and begin a version in state BUILDING, under a number of its own.

        Versions whose builder lost its lock become FAILED, at most MAX_ABANDONED of them.

        Args:
            tenant: whose collection.
            name: the collection.
            embedder: what turns text into vectors.
            chunking: how text is cut.
            builder: who builds, told to those it keeps out: host, process, job.
            ttl_s: how long the lock outlives its last renewal, in seconds.

        Raises:
            Contended: another builds; the message says who, since when, and when that ends if it
                was killed. Or other writers came first, eight times in a row.
            NotFound: the collection has neither a version nor a pointer.
        """
        for _ in range(_ATTEMPTS):
            found = await stored.read_existing(self._coordinator, tenant, name)
            held = await stored.read_build(self._coordinator, tenant, name)
            if held is not None:
                raise _contended(held)
            lease, begun = await self._coordinator.grant_lease(ttl_s), None
            try:
                with contextlib.suppress(NotFound):  # the lease ended before it was used
                    begun = await self._begin(found, embedder, chunking, builder, lease)
            finally:
                if begun is None:
                    await _revoke(lease)
            if begun is not None:
                return begun
        raise stored.contended(f"collection {name}: others begin versions or delete it")

    async def renew(
        self,
        tenant: str,
        name: str,
        number: int,
        fence: int,
        *,
        documents: int,
        chunks: int,
        documents_per_s: float,
    ) -> Build:
        """Keep the lock for another ttl_s and say how far the build is.

        Args:
            tenant: whose collection.
            name: the collection.
            number: the version.
            fence: as begin gave it.
            documents: acknowledged so far.
            chunks: acknowledged so far.
            documents_per_s: since the last report.

        Raises:
            FailedPrecondition: the lock was lost; it cannot be had back.
        """
        held = await self._held(tenant, name, number, fence)
        if held is None:
            raise stored.lost(name, number)
        now = stored.now()
        build = replace(
            held,
            documents=documents,
            chunks=chunks,
            documents_per_s=documents_per_s,
            reported_at=now,
        )
        value = Put(keys.build_lock(tenant, name), codec.encode_build(build), held.lease)
        if await self._coordinator.lease(held.lease, held.ttl_s).keep_alive():
            outcome = await self._coordinator.transact(
                [stored.lock_held(tenant, name, fence)], [value]
            )
            if outcome.committed:
                return build
        raise stored.lost(name, number)

    async def end(
        self, tenant: str, name: str, number: int, fence: int, *, reason: str
    ) -> VersionRecord | None:
        """Release the lock; a version that is still BUILDING becomes FAILED for the reason.

        A build that was lost is left as it is.

        Returns:
            The version as it is then, None if it is gone.

        Raises:
            Contended: the record was changed, eight times in a row.
        """
        for _ in range(_ATTEMPTS):
            found = await stored.read(self._coordinator, tenant, name)
            record = found.versions.get(number)
            held = await self._held(tenant, name, number, fence)
            if held is None:
                return record
            conditions = [stored.lock_held(tenant, name, fence)]
            operations: list[Operation] = [Delete(keys.build_lock(tenant, name))]
            if record is not None and record.state is VersionState.BUILDING:
                record = stored.failed(record, reason)
                conditions.append(stored.unchanged(record))
                operations.append(stored.put(record))
            outcome = await self._coordinator.transact(conditions, operations)
            if outcome.committed:
                await _revoke(self._coordinator.lease(held.lease, held.ttl_s))
                if len(operations) > 1:
                    record = replace(record, mod_revision=outcome.revision) if record else None
                return record
        raise stored.contended(f"version {number} of collection {name} was changed")

    async def current(self, tenant: str, name: str) -> Build | None:
        """The build under way, None if nobody holds the lock."""
        return await stored.read_build(self._coordinator, tenant, name)

    async def _held(self, tenant: str, name: str, number: int, fence: int) -> Build | None:
        """The build of this version and fence, None where it does not hold the lock."""
        held = await self.current(tenant, name)
        return held if held is not None and (held.version, held.fence) == (number, fence) else None

    async def _begin(
        self,
        found: StoredCollection,
        embedder: EmbedderSpec,
        chunking: ChunkingSpec,
        builder: str,
        lease: Lease,
    ) -> tuple[VersionRecord, Build] | None:
        """Put lock, number and record at once; None where the collection or the lock moved."""
        tenant, name = found.tenant, found.name
        last = await self._coordinator.get(keys.sequence_key(tenant, name))
        number = codec.decode_sequence(last) + 1 if last else 1
        record = stored.begun(tenant, name, number, embedder, chunking, builder)
        build = Build(
            tenant=tenant,
            collection=name,
            version=number,
            builder=builder,
            since=record.created_at,
            documents=0,
            chunks=0,
            documents_per_s=0.0,
            reported_at=record.created_at,
            ttl_s=lease.ttl_s,
            lease=lease.id,
        )
        abandoned = _abandoned(found)
        outcome = await self._coordinator.transact(
            [
                stored.lock_held(tenant, name, 0),
                Condition(
                    keys.sequence_key(tenant, name),
                    mod_revision=last.mod_revision if last else 0,
                ),
                found.still_there(),
                *(stored.unchanged(one) for one in abandoned),
            ],
            [
                Put(keys.build_lock(tenant, name), codec.encode_build(build), lease.id),
                Put(keys.sequence_key(tenant, name), codec.encode_sequence(number)),
                stored.put(record),
                *(stored.put(stored.failed(one, _ABANDONED)) for one in abandoned),
            ],
        )
        if not outcome.committed:
            return None
        at = outcome.revision
        return replace(record, mod_revision=at, fence=at), replace(build, fence=at)


def _abandoned(found: StoredCollection) -> list[VersionRecord]:
    """The oldest versions that are BUILDING although nobody holds the lock.

    A first version, which has no builder, may be about to become the active one.
    """
    return sorted(
        (
            one
            for one in found.versions.values()
            if one.state is VersionState.BUILDING and (one.builder or found.pointer is not None)
        ),
        key=lambda one: one.number,
    )[:MAX_ABANDONED]


async def _revoke(lease: Lease) -> None:
    # where the coordinator does not answer, the lease ends by itself
    with contextlib.suppress(CoordinatorUnavailable):
        await lease.revoke()


def _contended(held: Build) -> Contended:
    return Contended(
        f"version {held.version} of collection {held.collection} is being built by {held.builder} "
        f"since {held.since.isoformat(timespec='seconds')}, {held.documents} documents so far: "
        f"wait until that build has ended; a killed builder's ends within {held.ttl_s} s",
        retry_after_ms=1000 * max(1, held.ttl_s),
    )
