"""The coordinator for a single process: one SQLite file, no server.

It keeps the data model of etcd with a revision counter of its own. Followers are told of changes
inside this process only, so the file is held exclusively and a second process is refused, never
served. Committed transactions survive a kill of the process. Leases do not: their holders lived in
the process that died, so their keys are removed when the file is opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from common.coordination.coordinator import (
    RETRY_AFTER_MS,
    Change,
    Condition,
    Entry,
    Operation,
    Outcome,
    Snapshot,
    check_transaction,
    check_ttl,
)
from common.coordination.position import Position
from common.coordination.sqlite_store import SqliteStore
from common.errors import CoordinatorUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
    from pathlib import Path

T = TypeVar("T")

MAX_HISTORY = 4096
"""Changes kept for watches to resume from; a follower further behind lists again."""

MAX_WAITING = 256
"""Calls handed to the thread; further ones wait their turn within the timeout."""

_RELIST_PAUSE_S = 0.5


class EmbeddedCoordinator:
    """Coordinator over one SQLite file. Opening blocks for a few milliseconds.

    Args:
        path: the file, created with its folder if absent.
        timeout_s: bound of every call.

    Raises:
        FailedPrecondition: another process holds the file, or it is no coordinator's file.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._store = SqliteStore(path, self._publish)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coordinator")
        self._turn = asyncio.Semaphore(MAX_WAITING)
        self._history: deque[Change] = deque()
        self._history_after = self._store.revision
        self._published = asyncio.Event()
        self._lease_moved = asyncio.Event()
        self._expiring: asyncio.Task[None] | None = None
        self._healthy = True
        self._closed = False

    @property
    def healthy(self) -> bool:
        """Whether the last call reached the file."""
        return self._healthy

    @property
    def closed(self) -> bool:
        """Whether aclose was called."""
        return self._closed

    async def get(self, key: str) -> Entry | None:
        """See Coordinator."""
        return await self._run(lambda: self._store.get(key))

    async def list(self, prefix: str) -> Snapshot:
        """See Coordinator."""
        return await self._run(lambda: self._store.snapshot(prefix))

    async def transact(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> Outcome:
        """See Coordinator."""
        check_transaction(conditions, operations)
        return await self._run(lambda: self._store.transact(conditions, operations))

    def watch(
        self, prefix: str, *, after_revision: int, known: Collection[str] = ()
    ) -> EmbeddedWatch:
        """See Coordinator."""
        return EmbeddedWatch(self, prefix, after_revision, known)

    async def grant_lease(self, ttl_s: int) -> EmbeddedLease:
        """See Coordinator."""
        check_ttl(ttl_s)
        lease = await self._run(lambda: self._store.grant(ttl_s))
        if self._expiring is None:
            self._expiring = asyncio.create_task(self._expire(), name="coordinator leases")
        self._lease_moved.set()
        return EmbeddedLease(self, lease, ttl_s)

    def lease(self, lease_id: int, ttl_s: int) -> EmbeddedLease:
        """See Coordinator."""
        return EmbeddedLease(self, lease_id, ttl_s)

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False if it has ended."""
        return await self._run(lambda: self._store.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        await self._run(lambda: self._store.revoke(lease))

    async def aclose(self) -> None:
        """Close the file; watches end."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._expiring is not None:
            self._expiring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._expiring
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def changes_after(self, revision: int) -> Sequence[Change] | None:
        """The changes after a revision, at least one; None if they are no longer kept.

        Waits for the next change. Raises CoordinatorUnavailable once the coordinator is closed.
        """
        while not self._closed:
            if revision < self._history_after:
                return None
            if self._history and self._history[-1].mod_revision > revision:
                newest_first = itertools.takewhile(
                    lambda change: change.mod_revision > revision, reversed(self._history)
                )
                return list(newest_first)[::-1]
            await self._published.wait()
        raise _closed_error()

    async def _run(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise _closed_error()
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                answer = await self._loop.run_in_executor(self._thread, call)
        except (sqlite3.Error, TimeoutError) as error:
            self._healthy = False
            cause = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise CoordinatorUnavailable(
                f"the coordinator's file does not answer ({cause}); check the disk's space and "
                "health, and read before repeating a change",
                retry_after_ms=RETRY_AFTER_MS,
            ) from error
        self._healthy = True
        return answer

    async def _expire(self) -> None:
        """End leases on time, also while nobody calls."""
        while True:
            self._lease_moved.clear()
            try:
                next_s = await self._run(self._store.expire)
            except CoordinatorUnavailable:
                next_s = self._timeout_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next_s):
                    await self._lease_moved.wait()

    def _publish(self, changes: Sequence[Change]) -> None:
        """Called on the store's thread, so that no cancelled caller can lose a change."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._remember, changes)

    def _remember(self, changes: Sequence[Change]) -> None:
        self._history.extend(changes)
        while len(self._history) > MAX_HISTORY:
            self._history_after = self._history.popleft().mod_revision
        self._wake()

    def _wake(self) -> None:
        self._published.set()
        self._published = asyncio.Event()


class EmbeddedLease:
    """A lease held in this process."""

    def __init__(self, coordinator: EmbeddedCoordinator, lease_id: int, ttl_s: int) -> None:
        self._coordinator = coordinator
        self._id = lease_id
        self._ttl_s = ttl_s

    @property
    def id(self) -> int:
        """Identifies the lease."""
        return self._id

    @property
    def ttl_s(self) -> int:
        """Time to live, in seconds."""
        return self._ttl_s

    async def keep_alive(self) -> bool:
        """See Lease."""
        return await self._coordinator.keep_alive(self._id)

    async def revoke(self) -> None:
        """See Lease."""
        await self._coordinator.revoke(self._id)


class EmbeddedWatch:
    """A watch over the changes remembered in this process; see Watch."""

    def __init__(
        self,
        coordinator: EmbeddedCoordinator,
        prefix: str,
        after_revision: int,
        known: Collection[str],
    ) -> None:
        self._coordinator = coordinator
        self._prefix = prefix
        self._position = Position(after_revision, known)

    @property
    def connected(self) -> bool:
        """Whether the file answers; changes inside a process cannot be missed."""
        return self._coordinator.healthy

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._changes()

    async def _changes(self) -> AsyncGenerator[Change, None]:
        while not self._coordinator.closed:
            try:
                changes = await self._coordinator.changes_after(self._position.revision)
                snapshot = await self._coordinator.list(self._prefix) if changes is None else None
            except CoordinatorUnavailable:
                await asyncio.sleep(_RELIST_PAUSE_S)
                continue
            if snapshot is not None:
                news = self._position.relist(snapshot)
            else:
                news = self._position.advance(changes or [])
            for change in news:
                if change.key.startswith(self._prefix):
                    yield change


def _closed_error() -> CoordinatorUnavailable:
    return CoordinatorUnavailable("the coordinator is closed; open a new one")
