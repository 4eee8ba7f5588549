"""Publishes tables of words: parts first, then the key that names them, then old parts go.

Several indexers may publish tables of one version. Of two the one that read the key first loses,
and nobody deletes parts that a key may still come to name: a draft is garbage only if it was there
before the key was read on which another publication then succeeded.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import WordStatisticsRecord
from common.errors import SluiceError
from common.word_parts import belongs_to
from common.word_table import UnreadableTable, encode

if TYPE_CHECKING:
    from common.coordination import Seen, StatisticsRegistry, VersionRecord
    from common.word_parts import WordParts
    from common.word_table import WordTable


@dataclass(frozen=True, slots=True)
class Draft:
    """What there was before the counting began: the key, and the parts of whatever tables."""

    seen: Seen
    part_ids: tuple[str, ...]


class Publisher:
    """Publishes tables by compare-and-swap."""

    def __init__(self, registry: StatisticsRegistry, parts: WordParts) -> None:
        self._registry = registry
        self._parts = parts

    async def begin(self, record: VersionRecord) -> Draft | None:
        """To be called before what is counted is listed; None where the version is gone."""
        part_ids = tuple(await self._parts.ids(record.store_collection))
        seen = await self._registry.see(record.tenant, record.collection, record.number)
        if seen is None:
            # Also what one left that died, or did not reach the coordinator, as it took it back.
            await self._parts.drop(record.store_collection)
            return None
        return Draft(seen, part_ids)

    async def publish(self, draft: Draft, table: WordTable) -> WordStatisticsRecord | None:
        """Publish what was counted since the draft began; None if another published meanwhile.

        Also what is the same as before is published: a count that began earlier must not win.
        """
        version, known = draft.seen.version, draft.seen.published
        blob, digest = await asyncio.to_thread(_packed, table)
        now = datetime.now(UTC)
        written = ""
        if known is not None and known.digest == digest and await self._reads(version, known, blob):
            record = replace(known, counted_at=now, analysis=table.analysis)
        else:
            written = uuid.uuid4().hex
            record = WordStatisticsRecord(
                tenant=version.tenant,
                collection=version.collection,
                number=version.number,
                table=written,
                chunks=table.chunks,
                terms=len(table.hashes),
                text_words=table.text_words,
                title_words=table.title_words,
                parts=await self._parts.write(version.store_collection, written, blob),
                digest=digest,
                counted_at=now,
                analysis=table.analysis,
            )
        # Where the coordinator does not answer the outcome is unknown, so the parts stay.
        if await self._registry.publish(draft.seen, record):
            with suppress(SluiceError):  # what is left goes at the next publication
                garbage = [id_ for id_ in draft.part_ids if not belongs_to(id_, record.table)]
                await self._parts.delete(version.store_collection, garbage)
            return record
        if written:
            await self._take_back(version, written, record.parts)
        return None

    async def _reads(
        self, version: VersionRecord, known: WordStatisticsRecord, blob: bytes
    ) -> bool:
        """Whether the parts of a published table are there and are this."""
        try:
            kept = await self._parts.read(
                version.store_collection, known.table, known.parts, max_bytes=len(blob)
            )
        except UnreadableTable:
            return False
        return kept == blob

    async def _take_back(self, version: VersionRecord, table: str, parts: int) -> None:
        """Delete a table that nobody will name; with it all, where the version is going.

        Whoever deletes a version makes it FAILED first and deletes its tables second: so one of the
        two always sees the other.
        """
        if await self._registry.see(version.tenant, version.collection, version.number) is None:
            await self._parts.drop(version.store_collection)
        elif parts:
            kept = await self._parts.ids(version.store_collection)
            mine = [id_ for id_ in kept if belongs_to(id_, table)]
            await self._parts.delete(version.store_collection, mine)


def _packed(table: WordTable) -> tuple[bytes, str]:
    """A table as bytes, none where nothing was counted, and their digest. Blocking."""
    blob = encode(table) if table.chunks else b""
    return blob, hashlib.sha256(blob).hexdigest()
