"""A bounded pool of threads that may be left behind in a call that does not return.

The threads of the standard pool are joined when the process ends, so that one that hangs in a
storage client would keep the process alive. These are not; they end by themselves when idle.
Nothing but blocking storage calls belongs here.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_IDLE_S = 5.0


class DaemonThreads:
    """At most so many threads; a call beyond them waits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def start(self, call: Callable[[], None]) -> None:
        """Call it on a thread; it must not raise."""
        with self._lock:
            self._calls.put(call)
            self._unfinished += 1
            is_needed = self._threads < min(self._most, self._unfinished)
            self._threads += is_needed
        if is_needed:
            threading.Thread(target=self._run, name="storage", daemon=True).start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call it on a thread, unless it is cancelled before."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 — it belongs to the one who waits
                future.set_exception(error)

        self.start(call)
        return future

    def _run(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._calls.empty():
                        self._threads -= 1
                        return
                continue
            call()
            del call  # what it holds is not kept while waiting for the next
            with self._lock:
                self._unfinished -= 1
