"""Blocking calls to a storage, awaited; to a remote one within bounds of time and of an outage.

What does not return in time stays behind on its thread and is not waited for again. An Unavailable
raised here says that the storage failed, never that a file did.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from common.errors import FailedPrecondition, Unavailable
from ingestor.storage.hdfs_errors import RefusedError
from ingestor.storage.outage import Outage, is_passing

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from ingestor.storage.daemon_threads import DaemonThreads
    from ingestor.storage.storages import Storage

T = TypeVar("T")


class StorageCalls(Protocol):
    """How a storage is called."""

    async def call(self, storage: Storage, function: Callable[[], T]) -> T:
        """Call it on a thread.

        Unavailable if the storage is out of reach, FailedPrecondition if it refuses this job.
        """


class LocalCalls:
    """Calls that return: those of a local file system."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def call(self, storage: Storage, function: Callable[[], T]) -> T:  # noqa: ARG002 — it is always within reach
        """See ``StorageCalls``."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


class RemoteCalls:
    """Calls over a network, from one event loop.

    Args:
        threads: run the calls; they may hang.
        timeout_s: a call that takes longer has failed, and its storage is renewed.
        outage_s: how long the storage may be out of reach.
        refused_s: how long it may refuse this job, as ``outage.refused_s``.
    """

    def __init__(
        self, threads: DaemonThreads, *, timeout_s: float, outage_s: float, refused_s: float
    ) -> None:
        self._threads = threads
        self._timeout_s = timeout_s
        self._outage_s = outage_s
        self._refused_s = refused_s
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_waking = False

    async def call(self, storage: Storage, function: Callable[[], T]) -> T:
        """Call until the storage is within reach; see ``StorageCalls``."""
        outage = Outage(self._outage_s, self._refused_s)
        while True:
            generation = storage.generation
            try:
                return await self._in_time(function)
            except _HungError as hung:
                await asyncio.to_thread(storage.renew, generation)
                error: OSError = hung
            except OSError as failure:
                if not is_passing(failure):
                    raise
                error = failure
            delay_s = outage.delay_s(error)
            if delay_s is None:
                raise _given_up(storage.root_uri, error, self._outage_s) from None
            await asyncio.sleep(delay_s)

    async def _in_time(self, function: Callable[[], T]) -> T:
        """Cheaper than a future of the standard pool: small files are many."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            if waiting.done():  # given up before it began
                return
            result: T | None = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 — it belongs to the one who waits
                error = raised
            self._done.append((waiting, result, error))
            if not self._is_waking:
                self._is_waking = True
                try:
                    loop.call_soon_threadsafe(self._settle)
                except RuntimeError:  # the loop was closed: nobody waits
                    self._done.clear()

        self._threads.start(call)
        late = loop.call_later(self._timeout_s, self._give_up, waiting)
        try:
            return await waiting
        finally:
            late.cancel()

    def _settle(self) -> None:
        self._is_waking = False
        while self._done:
            waiting, result, error = self._done.popleft()
            if waiting.done():
                continue
            if error is None:
                waiting.set_result(result)
            else:
                waiting.set_exception(error)

    def _give_up(self, waiting: asyncio.Future[Any]) -> None:
        if not waiting.done():
            message = f"no answer within {self._timeout_s:g} s"
            waiting.set_exception(_HungError(errno.ETIMEDOUT, message))


def _given_up(uri: str, error: OSError, outage_s: float) -> Unavailable | FailedPrecondition:
    reason = (error.strerror or str(error)).partition("\n")[0][:300]
    if isinstance(error, RefusedError):
        return FailedPrecondition(f"{uri} cannot be entered ({reason}): {error.cure}")
    return Unavailable(
        f"{uri} is out of reach for {outage_s:g} s ({reason}): run the job again when it is back;"
        " `sluice doctor` looks for the cause"
    )


class _HungError(TimeoutError):
    """The call did not return."""
