"""Keeps what searches read from being collected: each index version in use is pinned.

A version is pinned from the moment somebody holds it, and let go when the last holder released it.
Neither holding nor releasing ever waits for the coordinator; whoever wants to may wait for the pin.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from common.telemetry import describe_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from query.index_version import IndexVersion

logger = logging.getLogger(__name__)


class ReadPins(Protocol):
    """The coordinator's pins as a reader uses them; both calls are counted and never fail."""

    async def read(self, tenant: str, collection: str, number: int) -> None:
        """Pin a version; while the coordinator is away the pin is put later."""

    async def let_go(self, tenant: str, collection: str, number: int) -> None:
        """Take one ``read`` of a version back."""


class HeldVersion:
    """An index version with its holders; made by `PinnedVersions.hold`, whose caller is the first.

    Attributes:
        version: what is held.
    """

    def __init__(
        self, version: IndexVersion, pinning: asyncio.Task[None], let_go: Callable[[], None]
    ) -> None:
        self.version = version
        self._pinning = pinning
        self._let_go = let_go
        self._holders = 1

    @contextmanager
    def used(self) -> Iterator[IndexVersion]:
        """Hold it for one search. Enter without any await since it was handed out."""
        assert self._holders > 0  # noqa: S101 — who hands it out holds it
        self._holders += 1
        try:
            yield self.version
        finally:
            self.release()

    def release(self) -> None:
        """Hold it no longer; the last one to release lets go of the pin."""
        assert self._holders > 0  # noqa: S101 — each holder releases once
        self._holders -= 1
        if not self._holders:
            self._let_go()

    async def pinned(self, within_s: float) -> None:
        """Wait for the pin, but no longer than this: serving comes first, the pin follows."""
        await asyncio.wait({self._pinning}, timeout=within_s)

    def when_pinned(self, within_s: float, then: Callable[[], None]) -> None:
        """Call when the time is over, unless it is pinned before, and when it is; never now."""
        late = asyncio.get_running_loop().call_later(within_s, then)

        def on_time(pinning: asyncio.Task[None]) -> None:
            late.cancel()
            if not pinning.cancelled():
                then()

        self._pinning.add_done_callback(on_time)


class PinnedVersions:
    """Makes held versions, and carries their pins to the coordinator in the background."""

    def __init__(self, pins: ReadPins) -> None:
        self._pins = pins
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def hold(self, version: IndexVersion) -> HeldVersion:
        """Hold a version and begin to pin it; release it in the end."""
        key = (version.tenant, version.collection, version.number)
        pinning = self._start(self._pins.read(*key))

        async def let_go() -> None:
            await asyncio.wait({pinning})  # a pin that is still being put would stay
            await self._pins.let_go(*key)

        return HeldVersion(version, pinning, lambda: self._finish(let_go))

    async def aclose(self) -> None:
        """Stop what is under way; the pins themselves end when their owner closes them."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finish(self, let_go: Callable[[], Coroutine[None, None, None]]) -> None:
        if not self._closed:
            self._start(let_go())

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a pin could not be kept", extra=describe_exception(error))
