"""A lock that at most one process holds: a key bound to its holder's lease.

The lease ends by itself when the holder dies, and the lock with it. A holder that cannot renew it
is told before it ends, by its own monotonic clock, and must stop then. Nothing here stops it: where
a late write could harm, it must name the key's create revision, the fencing token, in its
transaction (Burrows, "The Chubby lock service", 2006, calls it a sequencer).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination.coordinator import Condition, Put
from common.errors import Contended, CoordinatorUnavailable, NotFound, SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.coordination.coordinator import Coordinator, Entry, Lease

_log = logging.getLogger(__name__)

# Of the time to live: when it is renewed, and when it is in doubt if it was not.
_RENEW_AFTER = 1 / 3
_DOUBT_AFTER = 0.8
# Between two tries to renew, where the first one failed.
_RETRY_AFTER = 1 / 15
# The holder may let go between our try and our look at who it is.
_MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that is held.

    ``revision`` is the create revision of its key: it grows from holder to holder, and a condition
    on it fails once the lock has gone. ``lost`` is set when the lease ended or is in doubt, for
    ever: stop writing then.
    """

    key: str
    revision: int
    lost: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


@contextlib.asynccontextmanager
async def hold(
    coordinator: Coordinator, key: str, *, holder: str, ttl_s: int = 15
) -> AsyncIterator[HeldLock]:
    """Hold a lock while the context is open.

    Args:
        coordinator: where the lock lies.
        key: names it.
        holder: who holds it, told to those it keeps out: host, process, job.
        ttl_s: how long it outlives a holder that dies, in seconds; renewed every third of it.

    Raises:
        Contended: another holds it; the message says who, since when, and when it ends if that
            one was killed.
        CoordinatorUnavailable: on entering only.
    """
    asked_s = asyncio.get_running_loop().time()
    lease = await coordinator.grant_lease(ttl_s)
    try:
        lock = HeldLock(key, await _take(coordinator, key, holder, lease))
        renewing = asyncio.create_task(
            _renew(coordinator, lock, lease, asked_s), name=f"renew {key}"
        )
        try:
            yield lock
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
    finally:
        # Where the coordinator does not answer, the lock ends with the lease.
        with contextlib.suppress(CoordinatorUnavailable, NotFound):
            await lease.revoke()


async def _take(coordinator: Coordinator, key: str, holder: str, lease: Lease) -> int:
    """Put the key if it is absent; its create revision."""
    value = {"holder": holder, "since": _now().isoformat(), "ttl_s": lease.ttl_s}
    put = Put(key, json.dumps(value).encode(), lease.id)
    for _ in range(_MAX_TRIES):
        outcome = await coordinator.transact([Condition(key, create_revision=0)], [put])
        if outcome.committed:
            return outcome.revision
        entry = await coordinator.get(key)
        if entry is not None:
            raise contended(entry)
    raise Contended(f"{key} goes from hand to hand; try again", retry_after_ms=1000)


async def _renew(coordinator: Coordinator, lock: HeldLock, lease: Lease, asked_s: float) -> None:
    """Keep the lease alive until it has ended or is in doubt; then say so.

    Its time is counted from before each request, so never for longer than the coordinator does.
    """
    clock = asyncio.get_running_loop().time
    doubt_s, pause_s = asked_s + lease.ttl_s * _DOUBT_AFTER, lease.ttl_s * _RENEW_AFTER
    try:
        while (left_s := doubt_s - clock()) > 0:
            await asyncio.sleep(min(pause_s, left_s))
            asked_s, pause_s = clock(), lease.ttl_s * _RETRY_AFTER
            if asked_s >= doubt_s:
                break  # at once: the process may have been stopped, and the lease have ended
            with contextlib.suppress(SluiceError, TimeoutError):
                async with asyncio.timeout_at(doubt_s):
                    if not await _is_renewed(coordinator, lock, lease):
                        _log.error("a lock was lost: its lease ended", extra={"key": lock.key})
                        return
                doubt_s, pause_s = asked_s + lease.ttl_s * _DOUBT_AFTER, lease.ttl_s * _RENEW_AFTER
        _log.error("a lock is in doubt: its lease was not renewed", extra={"key": lock.key})
    finally:
        lock.lost.set()


async def _is_renewed(coordinator: Coordinator, lock: HeldLock, lease: Lease) -> bool:
    """Whether the lease was renewed and the key is still ours: it may have been deleted by hand."""
    if not await lease.keep_alive():
        return False
    entry = await coordinator.get(lock.key)
    return entry is not None and entry.create_revision == lock.revision


def contended(entry: Entry) -> Contended:
    """What is told to those whom the holder of a lock keeps out."""
    who, since, ttl_s = "someone", "an unknown time", 0
    # Another release of Sluice may have written it otherwise; it is held all the same.
    with contextlib.suppress(ValueError, KeyError, TypeError):
        value = json.loads(entry.value)
        who, since, ttl_s = str(value["holder"]), str(value["since"]), int(value["ttl_s"])
    return Contended(
        f"held by {who} since {since}: wait until that one has ended; if it was killed, its lock "
        f"ends {f'within {ttl_s} s' if ttl_s else 'with its lease'}",
        retry_after_ms=1000 * max(1, ttl_s),
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
