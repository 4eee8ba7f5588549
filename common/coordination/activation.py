"""Moving the pointer: which version may become active, and the one transaction that makes it so.

It compares the pointer, both records and, for a builder, the build lock. Nothing else may write a
pointer or make a version ACTIVE, so never are two, and never does a pointer name another state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.coordination import codec, stored
from common.coordination.coordinator import Operation, Put
from common.coordination.records import Forced, Pointer, Verdict, VersionRecord, VersionState
from common.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from datetime import datetime

    from common.coordination.coordinator import Coordinator
    from common.coordination.stored import StoredCollection


@dataclass(frozen=True, slots=True)
class Asked:
    """How an activation is asked for.

    ``fence`` is that of the builder, 0 for an operator; ``force`` activates a version that fell
    short, for ``requested_by``, whom the record then names; ``first`` only where none is active.
    """

    fence: int = 0
    force: bool = False
    requested_by: str = ""
    first: bool = False

    def __post_init__(self) -> None:
        """Refuse to force for nobody."""
        if self.force and not self.requested_by:
            raise InvalidArgument("say who forces the activation", field="requested_by")


async def activate(
    coordinator: Coordinator, found: StoredCollection, number: int, asked: Asked
) -> tuple[Pointer, bool]:
    """See IndexRegistry.activate."""
    target, former = found.version(number), None
    if found.pointer is not None:
        if found.pointer.version == number:
            return found.pointer, False
        if asked.first:
            raise stored.contended(
                f"version {found.pointer.version} of collection {found.name} was activated"
            )
        former = found.versions.get(found.pointer.version)
    _check(target, asked)
    now = stored.now()
    pointer = Pointer(
        tenant=found.tenant,
        collection=found.name,
        version=number,
        generation=found.pointer.generation + 1 if found.pointer else 1,
        embedder=target.embedder,
        activated_at=now,
        previous_version=found.pointer.version if found.pointer else 0,
    )
    conditions = [found.pointer_unmoved(), stored.unchanged(target)]
    operations: list[Operation] = [
        Put(found.active_key, codec.encode_pointer(pointer)),
        stored.put(_activated(target, asked, now)),
    ]
    if former is not None:
        conditions.append(stored.unchanged(former))
        operations.append(stored.put(replace(former, state=VersionState.RETIRED, retired_at=now)))
    if asked.fence:
        conditions.append(stored.lock_held(found.tenant, found.name, asked.fence))
    if (await coordinator.transact(conditions, operations)).committed:
        return pointer, True
    if asked.fence and not await stored.holds_lock(coordinator, target, asked.fence):
        raise stored.lost(found.name, number)
    raise stored.contended(
        f"version {number} of collection {found.name}, the active one or the pointer was changed"
    )


def last_active(found: StoredCollection) -> VersionRecord:
    """The version that was active before and is still kept; FailedPrecondition if none is."""
    retired = [one for one in found.versions.values() if one.state is VersionState.RETIRED]
    previous = found.pointer.previous_version if found.pointer else 0
    if not retired:
        raise FailedPrecondition(
            f"collection {found.name} of tenant {found.tenant} keeps no earlier active version; "
            "activate one of its versions by number"
        )
    return max(
        retired,
        key=lambda one: (one.number == previous, one.retired_at or one.created_at, one.number),
    )


def check_was_active(record: VersionRecord) -> None:
    """FailedPrecondition unless the version is the active one or can be so again."""
    if record.state not in {VersionState.RETIRED, VersionState.ACTIVE}:
        raise FailedPrecondition(
            f"version {record.number} of collection {record.collection} is {record.state.value}: "
            "only a version that was active can be rolled back to; name a retired one"
            + (", or activate this one" if record.state is VersionState.READY else "")
        )


def _check(target: VersionRecord, asked: Asked) -> None:
    """FailedPrecondition unless the version may become the active one."""
    name = f"version {target.number} of collection {target.collection}"
    if asked.fence and asked.fence != target.fence:
        raise stored.lost(target.collection, target.number)
    if target.state is VersionState.BUILDING:
        raise FailedPrecondition(f"{name} is building; it can be activated once it is verified")
    if target.state is VersionState.FAILED:
        why = f" ({target.failure})" if target.failure else ""
        raise FailedPrecondition(f"{name} has failed{why}; build another")
    verdict = _shortfall(target)
    if verdict is not None and not asked.force:
        first = verdict.findings[0] if verdict.findings else "it says no more"
        more = f" and {len(verdict.findings) - 1} more" if len(verdict.findings) > 1 else ""
        raise FailedPrecondition(
            f"{name} fell short of its verification: {first}{more}; verify it again, build "
            "another, or force the activation"
        )


def _shortfall(target: VersionRecord) -> Verdict | None:
    """The verdict that keeps a version back; one that was active needs none any more."""
    verdict = target.verdict
    failed = target.state is VersionState.READY and verdict is not None and not verdict.passed
    return verdict if failed else None


def _activated(target: VersionRecord, asked: Asked, now: datetime) -> VersionRecord:
    forced = Forced(asked.requested_by, now) if _shortfall(target) else target.forced
    return replace(
        target, state=VersionState.ACTIVE, activated_at=now, retired_at=None, forced=forced
    )
