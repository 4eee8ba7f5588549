"""What was counted of an index version's words, published under a key of its own.

Publishing is a compare-and-set on what stood there when the counting began, and on a version that
may still be searched: of several who count, one whose view is older never replaces a newer one, and
nothing is published of what is being deleted.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.coordination import codec, keys, stored
from common.coordination.coordinator import Condition, Put
from common.coordination.records import VersionRecord, VersionState, WordStatisticsRecord
from common.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from common.coordination.coordinator import Coordinator


@dataclass(frozen=True, slots=True)
class Seen:
    """A version and what was published of its words, as read before counting.

    ``published`` is None where nothing was, or nothing that can be read; ``revision`` is that of
    the key, 0 where it is absent.
    """

    version: VersionRecord
    published: WordStatisticsRecord | None
    revision: int


class StatisticsRegistry:
    """Reads and publishes word statistics.

    All methods raise CoordinatorUnavailable where the coordinator does not answer.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def see(self, tenant: str, collection: str, number: int) -> Seen | None:
        """A version with its statistics; None if it is gone or FAILED: nobody searches it."""
        tenant = tenant or DEFAULT_TENANT
        entry = await self._coordinator.get(keys.version_key(tenant, collection, number))
        if entry is None:
            return None
        version = codec.decode_version(entry, tenant, collection)
        if version.state is VersionState.FAILED:
            return None
        key = keys.statistics_key(tenant, collection, number)
        entry = await self._coordinator.get(key)
        if entry is None:
            return Seen(version, None, 0)
        published = None
        with suppress(codec.UnreadableRecord):
            published = codec.decode_word_statistics(key, entry.value, tenant, collection, number)
        return Seen(version, published, entry.mod_revision)

    async def publish(self, seen: Seen, statistics: WordStatisticsRecord) -> bool:
        """Publish what was counted after ``seen`` was read; False if either moved since."""
        version = seen.version
        key = keys.statistics_key(version.tenant, version.collection, version.number)
        outcome = await self._coordinator.transact(
            [stored.unchanged(version), Condition(key, mod_revision=seen.revision)],
            [Put(key, codec.encode_word_statistics(statistics))],
        )
        return outcome.committed
