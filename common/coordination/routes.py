"""Where each collection's queries go: every active pointer, followed by watch.

The word statistics that were published of each version are followed along. Reading is a dictionary
look-up and never waits for the coordinator. While it cannot be reached the last pointers known are
served, and ``stale`` says so; a pointer is dropped only where the coordinator says that it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from common.coordination import codec, keys
from common.errors import DeadlineExceeded, NotFound
from common.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.coordination.coordinator import Coordinator, Snapshot, Watch
    from common.coordination.records import Pointer, WordStatisticsRecord

_log = logging.getLogger(__name__)


class Routes:
    """The active pointer of every collection; open with `Routes.open`."""

    def __init__(self, snapshot: Snapshot, watch: Watch) -> None:
        self._pointers: dict[tuple[str, str], Pointer] = {}
        self._statistics: dict[tuple[str, str, int], WordStatisticsRecord] = {}
        self._moved = asyncio.Condition()
        self._listeners: list[Callable[[str, str, Pointer | None], None]] = []
        self._statistics_listeners: list[Callable[[tuple[str, str, int]], None]] = []
        self._watch = watch
        for entry in snapshot.entries:
            self._apply(entry.key, entry.value)
        self._following = asyncio.create_task(self._follow(), name="routes")

    @classmethod
    async def open(cls, coordinator: Coordinator) -> Routes:
        """Read every pointer and follow them from there.

        Raises:
            CoordinatorUnavailable: the coordinator does not answer now.
        """
        snapshot = await coordinator.list(keys.COLLECTIONS)
        watch = coordinator.watch(
            keys.COLLECTIONS,
            after_revision=snapshot.revision,
            known=[entry.key for entry in snapshot.entries],
        )
        return cls(snapshot, watch)

    @property
    def stale(self) -> bool:
        """Whether the coordinator cannot be reached, so that pointers may have moved unseen."""
        return self._following.done() or not self._watch.connected

    @property
    def pointers(self) -> tuple[Pointer, ...]:
        """Every pointer as last known, in no order."""
        return tuple(self._pointers.values())

    def statistics(self, place: tuple[str, str, int]) -> WordStatisticsRecord | None:
        """What was last published about the words of a version: tenant, collection, number."""
        return self._statistics.get(place)

    def on_statistics(self, listener: Callable[[tuple[str, str, int]], None]) -> None:
        """Have told of which version the word statistics were published anew or deleted.

        Args:
            listener: gets tenant, collection and number; it must not block, as that of `on_move`.
        """
        self._statistics_listeners.append(listener)

    def on_move(self, listener: Callable[[str, str, Pointer | None], None]) -> None:
        """Have each later move told, before those who wait for it go on.

        Args:
            listener: gets tenant, collection, and the new pointer or None where it is gone. It runs
                between two changes of the watch, so it must not block.
        """
        self._listeners.append(listener)

    def active(self, tenant: str, collection: str) -> Pointer:
        """The pointer to the collection's active version; NotFound if none is known."""
        pointer = self._pointers.get((tenant or DEFAULT_TENANT, collection))
        if pointer is None:
            doubt = "; the coordinator cannot be reached, a new one may be unknown here"
            raise NotFound(
                f"collection {collection} of tenant {tenant or DEFAULT_TENANT} has no active "
                "version; list the collections, or create it and activate a version"
                f"{doubt if self.stale else ''}"
            )
        return pointer

    async def wait_for(
        self, tenant: str, collection: str, generation: int, timeout_s: float
    ) -> Pointer:
        """Wait until the pointer is of this generation or a later one.

        Raises:
            DeadlineExceeded: it was not within ``timeout_s`` seconds.
        """
        key = (tenant or DEFAULT_TENANT, collection)

        def arrived() -> bool:
            pointer = self._pointers.get(key)
            return pointer is not None and pointer.generation >= generation

        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(arrived)
        except TimeoutError:
            known = self._pointers.get(key)
            at = f"is at generation {known.generation}" if known else "has no active version"
            doubt = "; the coordinator cannot be reached, a newer one may be unknown here"
            raise DeadlineExceeded(
                f"collection {collection} {at} and did not reach generation {generation} within "
                f"{timeout_s:.3g} s{doubt if self.stale else ''}; repeat, or ask without a "
                "consistency token"
            ) from None
        return self._pointers[key]

    async def aclose(self) -> None:
        """Stop following."""
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following

    async def _follow(self) -> None:
        async for change in self._watch:
            async with self._moved:
                self._apply(change.key, change.value)
                self._moved.notify_all()

    def _apply(self, key: str, value: bytes | None) -> None:
        place = keys.parse_statistics_key(key)
        if place is not None:
            self._apply_statistics(key, place, value)
            return
        parts = keys.parse_collection_key(key)
        if parts is None or parts.version is not None:
            return
        route = (parts.tenant, parts.collection)
        before = self._pointers.get(route)
        if value is None:
            self._pointers.pop(route, None)
        else:
            try:
                self._pointers[route] = codec.decode_pointer(key, value, *route)
            except codec.UnreadableRecord:
                _log.exception("pointer not readable, keeping the last one", extra={"key": key})
        pointer = self._pointers.get(route)
        if pointer != before:  # a watch that was taken up again may tell what is known
            for listener in self._listeners:
                try:
                    listener(*route, pointer)
                except Exception:  # noqa: BLE001 — the moves after this one must be followed
                    _log.exception("a move of a pointer was not taken", extra={"key": key})

    def _apply_statistics(self, key: str, place: tuple[str, str, int], value: bytes | None) -> None:
        before = self._statistics.get(place)
        if value is None:
            self._statistics.pop(place, None)
        else:
            try:
                self._statistics[place] = codec.decode_word_statistics(key, value, *place)
            except codec.UnreadableRecord:
                extra = {"key": key}
                _log.exception("word statistics not readable, keeping the last ones", extra=extra)
        if self._statistics.get(place) != before:
            for listener in self._statistics_listeners:
                try:
                    listener(place)
                except Exception:  # noqa: BLE001 — as of pointers
                    _log.exception("word statistics were not taken", extra={"key": key})
