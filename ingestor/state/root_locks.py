"""The locks on source roots: one job at a time brings an index into line with a root.

They lie with the coordinator, so that jobs on different machines see each other; the manifest's
folder is locked besides (``manifest.only_job``), which needs no coordinator. Whoever loses a lock
writes nothing any more.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from common.coordination import hold, root_lock
from common.errors import Contended, FailedPrecondition
from ingestor.stopping import CalledOffError, unless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable

    from common.coordination import Coordinator

T = TypeVar("T")

_TTL_S = 15


class RootLocks:
    """Locks that are held; ``lost`` is set when one of them is in doubt, for ever."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    async def guard(self, work: Coroutine[Any, Any, T], abandon: Callable[[], None]) -> T:
        """Do the work as long as every lock is held.

        Args:
            work: is cancelled when one is lost.
            abandon: called before that: what must not be written any more.

        Raises:
            FailedPrecondition: one was lost.
        """
        try:
            return await unless(self.lost, work, first=abandon)
        except CalledOffError:
            raise lost_lock() from None


def lost_lock() -> FailedPrecondition:
    """The error of a job that lost a lock."""
    return FailedPrecondition(
        "the lock on the source was lost: the coordinator did not answer in time, or someone took "
        "the lock away; nothing more was written. See that the coordinator runs, then start the "
        "job again"
    )


@asynccontextmanager
async def hold_roots(
    coordinator: Coordinator | None, tenant: str, collection: str, roots: Iterable[str]
) -> AsyncIterator[RootLocks]:
    """Hold the locks on these roots; none without a coordinator.

    Raises:
        Contended: another job holds one; the message says who and since when.
        CoordinatorUnavailable: on entering only.
    """
    locks = RootLocks()
    if coordinator is None:
        yield locks
        return
    holder = f"{socket.gethostname()}, process {os.getpid()}"
    async with AsyncExitStack() as stack:
        for root_uri in sorted(roots):
            key = root_lock(tenant, collection, root_uri)
            try:
                held = await stack.enter_async_context(
                    hold(coordinator, key, holder=holder, ttl_s=_TTL_S)
                )
            except Contended as error:
                message = f"another job over {root_uri} is running: {error.message}"
                raise Contended(message, retry_after_ms=error.retry_after_ms) from None
            watching = asyncio.create_task(_pass_on(held.lost, locks.lost))
            stack.callback(watching.cancel)
        yield locks


async def _pass_on(one: asyncio.Event, other: asyncio.Event) -> None:
    await one.wait()
    other.set()
