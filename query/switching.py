"""Which index version serves each collection: follows every move of a pointer.

On a move the new version is pinned, then requests are switched to it, then the old one is let go
as soon as its last search has ended. A switch waits for the pin only for a moment: the version was
made active just now, and an active version is not collected, so a pin that comes late costs nothing
while a late switch costs answers. Every move is switched to, in order; none is left out.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from common.identity import DEFAULT_TENANT
from common.telemetry import Measure, observe
from query.index_version import IndexVersion

if TYPE_CHECKING:
    from common.coordination import Pointer, Routes
    from query.pinning import HeldVersion, PinnedVersions

logger = logging.getLogger(__name__)

PIN_WITHIN_S: Final = 0.025
"""How long a switch waits for the pin: half of what a switch may take."""


class Switching:
    """The version that serves each collection now.

    Args:
        routes: the pointers as last known.
        pinned: holds the versions that serve.
        pin_within_s: how long a switch waits for the pin.
    """

    def __init__(
        self, routes: Routes, pinned: PinnedVersions, *, pin_within_s: float = PIN_WITHIN_S
    ) -> None:
        self._routes = routes
        self._pinned = pinned
        self._pin_within_s = pin_within_s
        self._serving: dict[tuple[str, str], HeldVersion] = {}
        self._coming: dict[tuple[str, str], tuple[HeldVersion, Pointer]] = {}
        for pointer in routes.pointers:
            route = (pointer.tenant, pointer.collection)
            self._serving[route] = pinned.hold(IndexVersion.active(pointer))
        routes.on_move(self._moved)

    @property
    def stale(self) -> bool:
        """Whether pointers may have moved unseen, for the coordinator cannot be reached."""
        return self._routes.stale

    def current(self, tenant: str, collection: str) -> HeldVersion | None:
        """What serves a collection now; None if it is not known to have an active version."""
        return self._serving.get((tenant or DEFAULT_TENANT, collection))

    async def at_least(
        self, tenant: str, collection: str, generation: int, timeout_s: float
    ) -> HeldVersion | None:
        """Wait until a version of this generation or a later one serves.

        Returns:
            That version; None where the pointer was deleted right then.

        Raises:
            DeadlineExceeded: it did not within ``timeout_s`` seconds.
        """
        await self._routes.wait_for(tenant, collection, generation, timeout_s)
        self._arrive((tenant or DEFAULT_TENANT, collection))  # somebody waits, so not for the pin
        return self.current(tenant, collection)

    def _moved(self, tenant: str, collection: str, pointer: Pointer | None) -> None:
        route = (tenant, collection)
        self._arrive(route)  # the next one is there already
        if pointer is None:
            if (gone := self._serving.pop(route, None)) is not None:
                gone.release()
                extra = {"tenant": tenant, "collection": collection}
                logger.info("a collection has no active version any more", extra=extra)
            return
        held = self._pinned.hold(IndexVersion.active(pointer))
        self._coming[route] = (held, pointer)
        if route in self._serving:
            held.when_pinned(self._pin_within_s, lambda: self._arrive(route, held))
        else:
            self._arrive(route)

    def _arrive(self, route: tuple[str, str], only: HeldVersion | None = None) -> None:
        """Switch to what is coming, if anything is; to ``only`` where it is given."""
        held, pointer = self._coming.get(route, (None, None))
        if held is None or pointer is None or only not in {None, held}:
            return
        del self._coming[route]
        before = self._serving.get(route)
        self._serving[route] = held
        if before is not None:
            before.release()
        lag_ms = (datetime.now(UTC) - pointer.activated_at).total_seconds() * 1_000
        observe(Measure.SWITCH_LAG, max(0.0, lag_ms))  # clocks of two machines may disagree
        logger.info(
            "a version is served",
            extra={
                "tenant": pointer.tenant,
                "collection": pointer.collection,
                "index_version": pointer.version,
                "generation": pointer.generation,
                "lag_ms": round(lag_ms, 3),
            },
        )
