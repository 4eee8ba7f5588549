"""What changed under a root since its manifest: a merge of two streams in the same order.

Neither stream is ever in memory as a whole. Files beneath a folder that could not be listed are
unknown, not gone. Files that are as they were, which are most, are told by the run, so that one
costs no more than a few comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ingestor.storage.listing import FileBatch, FileEntry, ListingFault, order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from ingestor.state.file_records import FileRecord
    from ingestor.state.rows import Rows
    from ingestor.storage.listing import Batch


@dataclass(frozen=True, slots=True)
class Same:
    """Settled rows, from ``begin`` to before ``end``, whose files are as they were."""

    rows: Rows
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """Any other file of the listing, with what the manifest knows of it."""

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


_MOST = 4096

Difference: TypeAlias = Same | Found | Unlisted | Vanished | Unknown


async def differences(
    listing: AsyncIterator[Batch],
    manifest: AsyncIterator[Rows],
    recipe_of: Callable[[str], str] | None = None,
) -> AsyncGenerator[list[Difference], None]:
    """Merge a listing with the manifest's rows; both ascend by ``sources.order`` of the path.

    Args:
        listing: batches of what was found.
        manifest: batches of rows.
        recipe_of: as ``Rows.settled``.

    Returns:
        What they tell, in order, in batches of a few thousand at most.
    """
    merge = _Merge(manifest, recipe_of)
    async for items in listing:
        async for found in merge.batch(items):
            yield found
    async for found in merge.rest():
        yield found


class _Listed:
    """A batch of the listing as columns; what is no file has a size that no row has."""

    __slots__ = ("modified_us", "paths", "sizes")

    def __init__(self, batch: Batch) -> None:
        self.paths: Sequence[str]
        self.sizes: Sequence[int]
        self.modified_us: Sequence[int]
        if isinstance(batch, FileBatch):
            self.paths, self.sizes = batch.paths, batch.sizes
            self.modified_us = batch.modified_us
        else:
            self.paths = [item.path for item in batch]
            self.sizes = [item.size if isinstance(item, FileEntry) else -2 for item in batch]
            self.modified_us = [
                item.modified_us if isinstance(item, FileEntry) else 0 for item in batch
            ]


class _Merge:
    """The merge at one row of the manifest."""

    def __init__(
        self, manifest: AsyncIterator[Rows], recipe_of: Callable[[str], str] | None
    ) -> None:
        self._manifest = manifest
        self._recipe_of = recipe_of
        self._rows: Rows | None = None
        self._settled: list[bool] = []
        self._at = 0
        self._ended = False
        self._unlisted = "\0"  # no path begins so

    async def batch(self, batch: Batch) -> AsyncGenerator[list[Difference], None]:
        """What a batch of the listing tells, with the rows that come before its end."""
        listed = _Listed(batch)
        found: list[Difference] = []
        at = 0
        while True:
            rows = await self._more()
            if rows is not None:
                at = self._same(rows, listed, at, found)
            if at == len(batch):
                break
            if rows is None or self._at < len(rows):
                at += self._other(rows, batch[at], found)
            if len(found) >= _MOST:
                yield found
                found = []
        yield found

    async def rest(self) -> AsyncGenerator[list[Difference], None]:
        """The rows after the end of the listing."""
        while (rows := await self._more()) is not None:
            yield [self._missing(rows.record(row)) for row in range(self._at, len(rows))]
            self._at = len(rows)

    async def _more(self) -> Rows | None:
        """The rows at hand, of which one is still to come; None after the last."""
        while not self._ended and (self._rows is None or self._at == len(self._rows)):
            self._at = 0
            self._rows = await anext(self._manifest, None)
            self._ended = self._rows is None
            if self._rows is not None:
                self._settled = self._rows.settled(self._recipe_of)
        return self._rows

    def _same(self, rows: Rows, listed: _Listed, at: int, found: list[Difference]) -> int:
        """Pass over the files that are as they were; the place of the first that is not."""
        first = self._at
        length = min(len(listed.paths) - at, len(rows) - first)
        pairs = (
            (listed.paths, rows.paths),
            (listed.sizes, rows.sizes),
            (listed.modified_us, rows.modified_us),
        )

        def are_same(begin: int, end: int) -> bool:
            return all(
                seen[at + begin : at + end] == known[first + begin : first + end]
                for seen, known in pairs
            ) and all(self._settled[first + begin : first + end])

        same = length if are_same(0, length) else 0
        # The first difference is found by halves: a comparison of slices costs hardly more than
        # one of items.
        step = 0 if same == length else 1 << length.bit_length()
        while step := step >> 1:
            if same + step <= length and are_same(same, same + step):
                same += step
        if same:
            found.append(Same(rows, first, first + same))
            self._at = first + same
        return at + same

    def _other(
        self, rows: Rows | None, item: FileEntry | ListingFault, found: list[Difference]
    ) -> bool:
        """Tell of the next row or item, whichever comes first; whether it was the item."""
        known = None
        if rows is not None:
            path = rows.paths[self._at]
            if path == item.path or order(path) < order(item.path):
                known = rows.record(self._at)
                self._at += 1
        if known is not None and known.path != item.path:
            found.append(self._missing(known))
            return False
        if isinstance(item, ListingFault):
            self._unlisted = f"{item.path}/"
            found.append(Unlisted(item, known))
        else:
            found.append(Found(item, known))
        return True

    def _missing(self, record: FileRecord) -> Difference:
        beneath = record.path.startswith(self._unlisted)
        return Unknown(record) if beneath else Vanished(record)
