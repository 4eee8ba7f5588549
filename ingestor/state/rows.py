"""Rows of a manifest by the thousand, column by column, and the merge of several streams of them.

Most rows of most jobs only have to be compared and copied; none of those becomes an object of its
own. Streams ascend by ``listing.order`` of the path. Nothing here opens a file or waits.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from dataclasses import fields
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import compute

from ingestor.state.file_records import FileOutcome, FileRecord
from ingestor.storage.listing import order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

BATCH_ROWS = 4096

_NUMBERS = {
    *("size", "modified_us", "version", "kinds", "documents"),
    *("attempts", "first_seen_us", "last_seen_us"),
}
SCHEMA = pa.schema(
    [
        pa.field(field.name, pa.int64() if field.name in _NUMBERS else pa.string(), nullable=False)
        for field in fields(FileRecord)
    ]
)
_SETTLED = pa.array([FileOutcome.INDEXED, FileOutcome.SUPERSEDED], pa.string())


class Rows:
    """Rows in ascending order.

    Attributes:
        paths: of each row; so are the next two.
        sizes: in bytes.
        modified_us: modification times.
    """

    __slots__ = ("_batch", "_columns", "modified_us", "paths", "sizes")

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._columns: list[list[str | int]] = []
        self.paths: list[str] = batch.column("path").to_pylist()
        self.sizes: list[int] = batch.column("size").to_pylist()
        self.modified_us: list[int] = batch.column("modified_us").to_pylist()

    def __len__(self) -> int:
        return len(self.paths)

    def settled(self, recipe_of: Callable[[str], str] | None) -> list[bool]:
        """Which rows tell of files that need no more work as long as they stay as they are.

        Args:
            recipe_of: the recipe of a path today; None if it is empty for every path.
        """
        done = compute.is_in(self._batch.column("outcome"), _SETTLED)
        recipes = self._batch.column("recipe")
        if recipe_of is None:
            settled: list[bool] = compute.and_(done, compute.equal(recipes, "")).to_pylist()
            return settled
        return [
            is_done and recipe == recipe_of(path)
            for is_done, recipe, path in zip(
                done.to_pylist(), recipes.to_pylist(), self.paths, strict=True
            )
        ]

    def documents(self, begin: int, end: int) -> int:
        """How many documents the index holds of the files of these rows."""
        counts = self._batch.column("documents").slice(begin, end - begin)
        total: int | None = compute.sum(counts).as_py()
        return total or 0

    def record(self, row: int) -> FileRecord:
        """One row by itself."""
        if not self._columns:
            self._columns = [column.to_pylist() for column in self._batch.columns]
        return FileRecord(*[column[row] for column in self._columns])  # type: ignore[arg-type]  # the schema is that of the fields

    def records(self, outcome: FileOutcome | None = None) -> Iterator[FileRecord]:
        """The rows one by one, or those of one outcome."""
        batch = self._batch
        if outcome is not None:
            batch = batch.filter(compute.equal(batch.column("outcome"), outcome))
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield FileRecord(*values)


def to_batch(records: Sequence[FileRecord]) -> pa.RecordBatch:
    """Records as one batch, in the order given."""
    return pa.record_batch(
        {name: [getattr(record, name) for record in records] for name in SCHEMA.names},
        schema=SCHEMA,
    )


def merged(
    streams: Iterable[Iterable[pa.RecordBatch]], *, keep_removed: bool = False
) -> Iterator[pa.RecordBatch]:
    """One stream of several, with the newest row of each path.

    Args:
        streams: newest first.
        keep_removed: whether rows that say that a file is gone stay, to hide rows still older.
    """
    gathered: list[pa.RecordBatch] = []
    rows = 0
    for piece in _newest(streams):
        gathered.append(piece)
        rows += piece.num_rows
        if rows >= BATCH_ROWS:
            yield from _joined(gathered, keep_removed=keep_removed)
            gathered, rows = [], 0
    yield from _joined(gathered, keep_removed=keep_removed)


def _joined(pieces: list[pa.RecordBatch], *, keep_removed: bool) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(pieces, SCHEMA)
    if not keep_removed:
        table = table.filter(compute.not_equal(table.column("outcome"), FileOutcome.REMOVED))
    yield from table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS)


class _Head:
    """A stream at its next row; ``key`` is None at its end."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self._keys: list[str] = []
        self._at = 0
        self._batch: pa.RecordBatch | None = None
        self._settle()

    @property
    def key(self) -> str | None:
        return self._keys[self._at] if self._at < len(self._keys) else None

    def take(self, bound: str | None) -> pa.RecordBatch:
        """The next row and those after it that are below the bound, as far as they are at hand."""
        assert self._batch is not None  # noqa: S101 — asked only before the end
        begin = self._at
        end = len(self._keys) if bound is None else bisect_left(self._keys, bound, begin + 1)
        taken = self._batch.slice(begin, end - begin)
        self._at = end
        self._settle()
        return taken

    def _settle(self) -> None:
        while self._at == len(self._keys):
            self._batch = next(self._batches, None)
            if self._batch is None:
                return
            self._keys = [order(path) for path in self._batch.column("path").to_pylist()]
            self._at = 0


def _newest(streams: Iterable[Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Runs of rows in ascending order, of the rows of one path only the newest."""
    heap: list[tuple[str, int, _Head]] = []

    def push(age: int, head: _Head) -> None:
        if head.key is not None:
            heapq.heappush(heap, (head.key, age, head))

    for age, batches in enumerate(streams):
        push(age, _Head(batches))
    while heap:
        key, age, head = heapq.heappop(heap)
        while heap and heap[0][0] == key:
            _, older_age, older = heapq.heappop(heap)
            older.take(key)
            push(older_age, older)
        yield head.take(heap[0][0] if heap else None)
        push(age, head)
