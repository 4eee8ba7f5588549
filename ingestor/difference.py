"""What changed under a root since its manifest: a merge of two streams in the same order.

Neither stream is ever in memory as a whole. Files beneath a folder that could not be listed are
unknown, not gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ingestor.sources import FileEntry, ListingFault, order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ingestor.file_records import FileRecord


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the listing with what the manifest knows of it."""

    entry: FileEntry
    record: FileRecord | None


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder that could not be listed, with its record as a dead letter, if it was one."""

    fault: ListingFault
    record: FileRecord | None


@dataclass(frozen=True, slots=True)
class Vanished:
    """A file of the manifest that the listing does not have."""

    record: FileRecord


@dataclass(frozen=True, slots=True)
class Unknown:
    """A file of the manifest beneath a folder that could not be listed."""

    record: FileRecord


Difference: TypeAlias = Found | Unlisted | Vanished | Unknown


async def differences(
    listing: AsyncIterator[FileEntry | ListingFault], records: AsyncIterator[FileRecord]
) -> AsyncGenerator[Difference, None]:
    """Merge a listing with the manifest's rows; both ascend by ``sources.order`` of the path."""
    unlisted = "\0"  # no path begins so

    def missing(record: FileRecord) -> Difference:
        beneath = record.path.startswith(unlisted)
        return Unknown(record) if beneath else Vanished(record)

    record = await anext(records, None)
    async for item in listing:
        key = order(item.path)
        while record is not None and order(record.path) < key:
            yield missing(record)
            record = await anext(records, None)
        known = None
        if record is not None and record.path == item.path:
            known, record = record, await anext(records, None)
        if isinstance(item, ListingFault):
            unlisted = f"{item.path}/"
            yield Unlisted(item, known)
        else:
            yield Found(item, known)
    while record is not None:
        yield missing(record)
        record = await anext(records, None)
