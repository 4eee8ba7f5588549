"""Collects versions that nobody needs any more: retired beyond those to keep, failed, abandoned.

One indexer at a time does, the one that holds the collector's lock. A version goes in steps that
can be repeated after a crash between any two: its record says FAILED, so that nothing reads, writes
or activates it anew; then nobody's pin may be left; then its store goes, then its record. A store
is never deleted that a server still pins.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import VersionState, collectable, collector_lock, hold, pinned
from common.errors import Contended, SluiceError
from common.telemetry import describe_exception

if TYPE_CHECKING:
    from common.coordination import (
        CollectionState,
        Coordinator,
        IndexRegistry,
        Pin,
        VersionRecord,
    )
    from indexer.settings import RetentionSettings
    from indexer.store import StoreCatalog

logger = logging.getLogger(__name__)

DELETED = "deleted on request"
_LOCK_TTL_S = 15


class Collector:
    """Deletes versions, on request and by age."""

    def __init__(
        self,
        coordinator: Coordinator,
        registry: IndexRegistry,
        stores: StoreCatalog,
        settings: RetentionSettings,
        *,
        holder: str,
    ) -> None:
        self._coordinator = coordinator
        self._registry = registry
        self._stores = stores
        self._settings = settings
        self._holder = holder

    async def run(self) -> None:
        """Collect every interval while this process holds the collector's lock, for ever."""
        while True:
            try:
                async with hold(
                    self._coordinator,
                    collector_lock(),
                    holder=self._holder,
                    ttl_s=_LOCK_TTL_S,
                ) as lock:
                    while not lock.lost.is_set():
                        await self.collect()
                        with suppress(TimeoutError):
                            async with asyncio.timeout(self._settings.interval_s):
                                await lock.lost.wait()
            except Contended:
                logger.debug("another indexer collects")
            except Exception as error:  # noqa: BLE001 — the next interval tries again, for ever
                logger.warning(
                    "versions could not be collected, trying again",
                    extra=describe_exception(error),
                )
            await asyncio.sleep(self._settings.interval_s)

    async def collect(self) -> int:
        """Delete every version whose time has come and that nobody pins; how many went.

        Raises:
            CoordinatorUnavailable: the coordinator does not answer at first. What fails of one
                version is logged and does not keep the others.
        """
        collected = 0
        for state in await self._registry.all_collections():
            for record in self._due(state):
                try:
                    collected += await self._collect(record)
                except SluiceError as error:
                    logger.warning(
                        "a version could not be collected, trying again",
                        extra=_named(record) | {"cause": type(error).__name__},
                    )
        return collected

    async def remove(self, record: VersionRecord, failure: str) -> tuple[Pin, ...]:
        """Delete a version that is neither active nor being built.

        Returns:
            Who still pins it; then it is FAILED for the reason given, and goes once they let go.

        Raises:
            FailedPrecondition: it is active or being built.
            Contended: it was moved meanwhile.
        """
        if record.state is not VersionState.FAILED:
            record = await self._registry.fail(record, failure)
        users = await pinned(self._coordinator, record.tenant, record.collection, record.number)
        if not users:
            await self._stores.delete(record.store_collection)
            await self._registry.delete_version(record)
            logger.info("a version was deleted", extra=_named(record) | {"cause": record.failure})
        return users

    def _due(self, state: CollectionState) -> list[VersionRecord]:
        aged = collectable(
            state,
            keep_versions=self._settings.keep_versions,
            keep_days=self._settings.keep_days,
            keep_failed_s=self._settings.keep_failed_s,
            now=datetime.now(UTC),
        )
        # What was deleted on request waits for its last user alone.
        asked = [one for one in state.versions if one.failure == DELETED and one not in aged]
        return [*aged, *asked]

    async def _collect(self, record: VersionRecord) -> bool:
        """Whether it went; one that is pinned stays as it is, also for a rollback."""
        if await pinned(self._coordinator, record.tenant, record.collection, record.number):
            return False
        if record.state is VersionState.BUILDING:  # shown as failed first, with the reason
            await self._registry.fail(record, "abandoned: its builder lost the build lock")
            return False
        return not await self.remove(record, f"collected: it was {record.state.value} long enough")


def _named(record: VersionRecord) -> dict[str, object]:
    return {
        "tenant": record.tenant,
        "collection": record.collection,
        "index_version": record.number,
    }
