"""Tells whether routes follow the coordinator: in health, in a metric and in the log.

Only tells: a server whose routes are stale goes on answering from the last it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from common.telemetry import Metric, gauge_add

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.coordination import Routes
    from common.rpc import HealthCondition

logger = logging.getLogger(__name__)

COORDINATOR: Final = "coordinator"
"""The name in grpc.health.v1 that is NOT_SERVING while routes are stale."""

_LOOK_S: Final = 0.1


@contextlib.asynccontextmanager
async def watching_staleness(routes: Routes, following: HealthCondition) -> AsyncIterator[None]:
    """While the context is open, keep the condition true as long as the routes are not stale."""
    gauge_add(Metric.ROUTES_STALE, 0)  # so that it is there before it ever moves
    watching = asyncio.create_task(_watch(routes, following), name="staleness")
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if not following.holds:
            gauge_add(Metric.ROUTES_STALE, -1)


async def _watch(routes: Routes, following: HealthCondition) -> None:
    while True:
        stale = routes.stale
        if stale is following.holds:
            following.tell(holds=not stale)
            gauge_add(Metric.ROUTES_STALE, 1 if stale else -1)
            if stale:
                logger.warning("the coordinator cannot be reached, routes may be behind")
            else:
                logger.info("the coordinator can be reached again, routes follow it")
        await asyncio.sleep(_LOOK_S)  # a watch has no event for losing its connection
