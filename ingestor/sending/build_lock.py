"""The build lock as its holder sees it: renewed in the background, given up where it is in doubt.

The indexers refuse what a builder without the lock writes or activates; this keeps one from trying,
and tells whose the index is then. Time is counted by this process's own monotonic clock from before
each request, so never for longer than the coordinator counts it: a process that was frozen knows at
once when it wakes. Nothing here must outlive the build: whatever ends it, the lock is released, or
ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import FailedPrecondition, InvalidArgument, NotFound, SluiceError
from ingestor.stopping import CalledOffError, unless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from ingestor.sending.collection_client import Begun, CollectionClient, Progress
    from ingestor.sending.index_client import IndexTarget

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Of the time to live: when it is renewed, when it is in doubt if it was not, and between two tries.
_RENEW_AFTER = 1 / 3
_DOUBT_AFTER = 0.8
_RETRY_AFTER = 1 / 15
# One try may take so long, of the time to live and at least: another indexer may answer.
_TRY_FOR = 1 / 6
_LEAST_TRY_S = 0.5
# For releasing the lock, and for asking who has it: both only help.
_COURTESY_S = 5.0
_MOST_REASON = 500


class BuildLock:
    """A build lock that is held; ``lost`` is set when it is lost or in doubt, for ever."""

    def __init__(
        self, collections: CollectionClient, begun: Begun, asked_s: float, progress: Progress
    ) -> None:
        self._collections = collections
        self._doubt_s = asked_s + begun.ttl_s * _DOUBT_AFTER
        self._told = progress
        self._told_s = asked_s
        self._why = "it could not be renewed in time"
        self.begun = begun
        self.lost = asyncio.Event()

    @property
    def target(self) -> IndexTarget:
        """The version that is built."""
        return self.begun.target

    async def guard(
        self, work: Coroutine[Any, Any, T], abandon: Callable[[], None] = lambda: None
    ) -> T:
        """Do the work as long as the lock is held.

        Args:
            work: is cancelled when it is lost.
            abandon: called before that: what must not be written any more.

        Raises:
            FailedPrecondition: it was lost; the message tells whose the index is.
        """
        try:
            return await unless(self.lost, work, first=abandon)
        except CalledOffError:
            raise await self._lost() from None
        except (FailedPrecondition, NotFound):
            # An indexer may know before the next renewal would tell.
            with suppress(SluiceError):
                await self._renew(self._told)
            if not self.lost.is_set():
                raise
            raise await self._lost() from None

    async def keep(self, progress: Callable[[], Progress]) -> None:
        """Renew it until it is lost or in doubt; then say so."""
        clock = asyncio.get_running_loop().time
        ttl_s = self.begun.ttl_s
        pause_s = ttl_s * _RENEW_AFTER
        try:
            while (left_s := self._doubt_s - clock()) > 0 and not self.lost.is_set():
                await asyncio.sleep(min(pause_s, left_s))
                if clock() >= self._doubt_s:
                    break  # at once: the process may have been stopped, and the lock have ended
                pause_s = ttl_s * _RETRY_AFTER
                try:
                    await self._renew(progress())
                except SluiceError as error:
                    logger.info("the build lock was not renewed: %s", error.message)
                else:
                    pause_s = ttl_s * _RENEW_AFTER
        finally:
            self.lost.set()

    async def _renew(self, progress: Progress) -> None:
        """One try; ``lost`` is set if the answer is that it was lost."""
        asked_s = asyncio.get_running_loop().time()
        rate = (progress.documents - self._told.documents) / max(asked_s - self._told_s, 1e-3)
        left_s = max(0.0, self._doubt_s - asked_s)
        timeout_s = min(left_s, max(_LEAST_TRY_S, self.begun.ttl_s * _TRY_FOR))
        try:
            await self._collections.renew_build(
                self.begun, progress, max(0.0, rate), timeout_s=timeout_s
            )
        except (FailedPrecondition, NotFound, InvalidArgument) as error:
            is_over = isinstance(error, FailedPrecondition)
            self._why = "its time ran out, or it was taken away" if is_over else error.message
            self.lost.set()
            raise
        self._doubt_s = asked_s + self.begun.ttl_s * _DOUBT_AFTER
        self._told, self._told_s = progress, asked_s

    async def end(self, reason: str) -> None:
        """Release it, if that can be done soon."""
        try:
            async with asyncio.timeout(_COURTESY_S):
                await self._collections.end_build(self.begun, reason[:_MOST_REASON])
        except (SluiceError, TimeoutError):
            logger.warning(
                "the build lock was not released: it ends by itself within %d s", self.begun.ttl_s
            )

    async def _lost(self) -> FailedPrecondition:
        version = self.target.version
        fate = (
            f"Version {version} is given up: nothing more was written to it, and queries see the "
            "version that they saw. Start the rebuild again if it is still wanted"
        )
        whose = ""
        try:
            async with asyncio.timeout(_COURTESY_S):
                now = await self._collections.standing(self.target.tenant, self.target.collection)
            if now.active == version:
                fate = f"Version {version} had been activated before: queries see it"
            elif now.building not in {0, version}:
                whose = (
                    f" {now.builder or 'Someone'} builds version {now.building} since {now.since}: "
                    "the index is that one's."
                )
            elif now.active > version:
                whose = f" Version {now.active} was activated since: the index is that one's."
        except NotFound:
            fate = "The collection was deleted meanwhile, with this version"
        except (SluiceError, TimeoutError):
            pass  # the fate stands; nobody can tell whose the index is
        why = self._why.rstrip(".")
        return FailedPrecondition(
            f"the build lock of {self.target.collection} was lost: {why}.{whose} {fate}"
        )


@asynccontextmanager
async def hold_build(
    collections: CollectionClient,
    tenant: str,
    collection: str,
    *,
    builder: str,
    ttl_s: int,
    progress: Callable[[], Progress],
) -> AsyncIterator[BuildLock]:
    """Begin a version and hold its build lock while the context is open.

    On leaving the lock is released, whatever became of it; a version that was not verified fails
    then, with what was raised as its reason.

    Args:
        collections: the service.
        tenant: whose collection.
        collection: its name.
        builder: told to those whom the lock keeps out.
        ttl_s: how long the lock outlives its last renewal.
        progress: how far the build is; told at each renewal.

    Raises:
        Contended: another builds; the message says who.
    """
    asked_s = asyncio.get_running_loop().time()
    begun = await collections.begin_version(tenant, collection, builder=builder, ttl_s=ttl_s)
    lock = BuildLock(collections, begun, asked_s, progress())
    renewing = asyncio.create_task(lock.keep(progress), name="renew the build lock")
    reason = "its build was stopped"
    try:
        yield lock
    except SluiceError as error:
        reason = error.message
        raise
    except Exception as error:
        if not isinstance(error, CalledOffError):
            reason = f"its build failed: {type(error).__name__}"
        raise
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        await lock.end(reason)
