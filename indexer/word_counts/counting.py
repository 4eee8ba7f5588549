"""When the words of which version are counted: soon after it was written, and now and then anyway.

A write only leaves a mark in memory. Each pass is followed by nine times its length of rest, so a
long ingest pays at most a tenth of its time, and one version is counted at a time. What another
indexer wrote that died before it counted, and versions of which nothing is published, are found by
an audit of all. No fault ends it or reaches whoever writes: it is logged, and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from common.coordination import VersionState
from common.errors import NotFound
from common.telemetry import describe_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.coordination import (
        CollectionState,
        IndexRegistry,
        VersionRecord,
        WordStatisticsRecord,
    )
    from indexer.settings import WordCountSettings
    from indexer.word_counts.counter import Counter
    from indexer.word_counts.ledgers import Ledgers

logger = logging.getLogger(__name__)

VERIFIED_WITHIN_S: Final = 120.0
"""How long a verification waits for the statistics of its version."""

_REST: Final = 9
_MAX_RETRY_S: Final = 60.0


class _Place(NamedTuple):
    tenant: str
    collection: str
    number: int


@dataclass(frozen=True, slots=True)
class _Due:
    """A version to be counted, not before a moment of the loop's clock; ``failures`` in a row."""

    record: VersionRecord
    not_before_s: float
    failures: int = 0


class Counting:
    """Keeps the word statistics of all versions exact; run it in a task of its own."""

    def __init__(
        self,
        registry: IndexRegistry,
        counter: Counter,
        ledgers: Ledgers,
        settings: WordCountSettings,
    ) -> None:
        self._registry = registry
        self._counter = counter
        self._ledgers = ledgers
        self._settings = settings
        self._due: dict[_Place, _Due] = {}
        self._marked = asyncio.Event()
        self._next_audit_s = 0.0

    def written(self, record: VersionRecord) -> None:
        """Mark a version whose store was changed."""
        self._mark(record, self._settings.interval_s)

    async def bring_up_to_date(self, record: VersionRecord) -> None:
        """Have the statistics of a version published that nobody writes any more.

        It never fails; what takes longer than ``VERIFIED_WITHIN_S`` is left to the background.
        """
        self._due.pop(_place(record), None)
        try:
            async with asyncio.timeout(VERIFIED_WITHIN_S):
                await self._counter.count(record)
        except asyncio.CancelledError:  # whoever waited has gone; what is due stays so
            self.written(record)
            raise
        except Exception as error:  # noqa: BLE001 — a version without statistics can be served
            logger.warning(
                "the words of a version could not be counted in time, trying again",
                extra=_named(record) | describe_exception(error),
            )
            self.written(record)

    async def run(self) -> None:
        """Count what is due and audit, for ever."""
        clock = asyncio.get_running_loop().time
        self._next_audit_s = clock()
        while True:
            await self._until_due(clock)
            if clock() >= self._next_audit_s:
                await self._audit(clock)
                continue
            began_s = clock()
            place = min(self._due, key=lambda place: self._due[place].not_before_s)
            await self._count(self._due.pop(place))
            await asyncio.sleep(_REST * (clock() - began_s))

    async def _until_due(self, clock: Callable[[], float]) -> None:
        while True:
            self._marked.clear()
            moments = (due.not_before_s for due in self._due.values())
            first_s = min(moments, default=self._next_audit_s)
            first_s = min(first_s, self._next_audit_s)
            if clock() >= first_s:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(first_s):
                    await self._marked.wait()

    async def _count(self, due: _Due) -> None:
        record = due.record
        try:
            published = await self._counter.count(record)
        except NotFound:
            # It is being deleted; if it is not, the audit comes back to it.
            logger.debug("a version without a store is not counted", extra=_named(record))
        except Exception as error:  # noqa: BLE001 — whatever it is, it is tried again
            failures = due.failures + 1
            delay_s = min(self._settings.interval_s * 2**failures, _MAX_RETRY_S)
            logger.warning(
                "the words of a version could not be counted, trying again",
                extra=_named(record) | {"retry_s": delay_s} | describe_exception(error),
            )
            at_s = asyncio.get_running_loop().time() + delay_s
            self._due[_place(record)] = _Due(record, at_s, failures)
        else:
            chunks = published.chunks if published else None
            logger.debug("words were counted", extra=_named(record) | {"chunks": chunks})

    async def _audit(self, clock: Callable[[], float]) -> None:
        """Mark what may be other than what is published."""
        pause_s = self._settings.audit_s
        try:
            states = await self._registry.all_collections()
            kept = [one for state in states for one in state.versions if _counts(one)]
            for state in states:
                for record in self._doubtful(state):
                    self._mark(record, 0)
            await self._ledgers.keep_only({one.store_collection for one in kept})
        except Exception as error:  # noqa: BLE001 — as above
            pause_s = min(pause_s, _MAX_RETRY_S)
            logger.warning(
                "versions could not be looked through for uncounted words, trying again",
                extra=describe_exception(error),
            )
        self._next_audit_s = clock() + pause_s

    def _doubtful(self, state: CollectionState) -> list[VersionRecord]:
        """The active version, and those of which nothing is published by our rules or newer."""
        published = {one.number: one for one in state.statistics}
        return [
            record
            for record in state.versions
            if _counts(record)
            and (
                record.state is VersionState.ACTIVE or self._outdated(published.get(record.number))
            )
        ]

    def _outdated(self, published: WordStatisticsRecord | None) -> bool:
        return published is None or published.analysis < self._ledgers.analysis

    def _mark(self, record: VersionRecord, delay_s: float) -> None:
        """Have it counted after so long, unless it is sooner, or after a failure, anyway."""
        at_s = asyncio.get_running_loop().time() + delay_s
        due = self._due.get(_place(record))
        if due is None or (not due.failures and at_s < due.not_before_s):
            self._due[_place(record)] = _Due(record, at_s)
            self._marked.set()


def _counts(record: VersionRecord) -> bool:
    return record.state is not VersionState.FAILED


def _place(record: VersionRecord) -> _Place:
    return _Place(record.tenant, record.collection, record.number)


def _named(record: VersionRecord) -> dict[str, object]:
    return {
        "tenant": record.tenant,
        "collection": record.collection,
        "index_version": record.number,
    }
