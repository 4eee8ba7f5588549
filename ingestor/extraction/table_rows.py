"""Rows: what every kind of table gives, and how those of columnar files and of Avro are read.

Parquet is read a few hundred rows at a time, ORC a stripe at a time, Avro a block at a time, and of
the columnar ones only the columns that are asked for. No row is changed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from ingestor.extraction.extracted import Refusal
from ingestor.faults import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_BATCH_ROWS = 256
_BATCH_BYTES = 4 * 2**20
_BUFFER_BYTES = 2**20
_AVRO_TIMES = frozenset(
    {
        *("int-date", "int-time-millis", "long-time-micros"),
        *("long-timestamp-millis", "long-timestamp-micros"),
        *("long-local-timestamp-millis", "long-local-timestamp-micros"),
    }
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as columns' values by name; None is a row that could not be parsed.

    ``columns`` is None where only the rows tell.
    """

    columns: tuple[str, ...] | None
    rows: Iterator[Mapping[str, object] | None]


def parquet(file: BinaryIO, select: Callable[[Sequence[str]], list[str] | None]) -> Table:
    """The rows of a Parquet file; ``select`` says which of its columns are read, None for all."""
    from pyarrow import parquet as reader  # noqa: PLC0415 — with the formats in hand only

    # Read ahead, whole row groups would be held.
    ahead = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
    opened = _opened("parquet", reader.ParquetFile, file, **ahead)
    names = opened.schema_arrow.names
    chosen = select(names)
    stored = opened.metadata
    # Of the groups the one with the largest rows decides how many are in memory at a time.
    groups = [stored.row_group(place) for place in range(stored.num_row_groups)]
    row_bytes = max(
        (group.total_byte_size // max(1, group.num_rows) for group in groups), default=0
    )
    batch_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
    batches = opened.iter_batches(batch_size=batch_rows, columns=chosen, use_threads=False)
    return Table(tuple(names), _rows(batches))


def orc(file: BinaryIO, select: Callable[[Sequence[str]], list[str] | None]) -> Table:
    """The rows of an ORC file; ``select`` as for ``parquet``."""
    from pyarrow import orc as reader  # noqa: PLC0415 — with the formats in hand only

    opened = _opened("orc", reader.ORCFile, file)
    names = opened.schema.names
    chosen = select(names)
    stripes = (opened.read_stripe(place, columns=chosen) for place in range(opened.nstripes))
    pieces = (
        stripe.slice(start, _BATCH_ROWS)
        for stripe in stripes
        for start in range(0, stripe.num_rows, _BATCH_ROWS)
    )
    return Table(tuple(names), _rows(pieces))


def avro(stream: BinaryIO) -> Table:
    """The records of an Avro object container file; what is no record is a column ``value``."""
    import fastavro  # noqa: PLC0415 — with the formats in hand only

    readers = fastavro.read.LOGICAL_READERS
    for name in _AVRO_TIMES & readers.keys():
        if not isinstance(readers[name], partial):  # once in a process
            readers[name] = partial(_reached, readers[name])
    records = fastavro.reader(stream, handle_unicode_errors="replace")
    schema = records.writer_schema
    fields = schema.get("fields", ()) if isinstance(schema, dict) else ()
    names = tuple(str(field["name"]) for field in fields) or ("value",)
    rows = (record if isinstance(record, dict) else {"value": record} for record in records)
    return Table(names, rows)


def _reached(reader: Callable[..., object], value: object, *schemas: object) -> object:
    """What the reader of a logical type makes of it; the number for what Python cannot hold."""
    try:
        return reader(value, *schemas)
    except (ValueError, OverflowError):
        return value


def _opened(kind: str, reader: Any, file: BinaryIO, **options: object) -> Any:  # noqa: ANN401 — untyped
    try:
        return reader(pa.PythonFile(file, mode="r"), **options)
    except (OSError, pa.ArrowInvalid) as error:  # the structure's faults, nothing of the rows
        reason = (str(error).splitlines() or ["cut short"])[0][:200]
        raise Refusal(Cause.MALFORMED, f"it cannot be read as {kind}: {reason}") from None


def _rows(batches: Iterable[Any]) -> Iterator[Mapping[str, object]]:
    for batch in batches:
        columns = [_values(batch.column(place)) for place in range(batch.num_columns)]
        names = batch.schema.names
        for cells in zip(*columns, strict=True):
            yield dict(zip(names, cells, strict=True))


def _values(column: Any) -> list[object]:  # noqa: ANN401 — pyarrow has no types
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = _in_microseconds(column.type)
    if kind != column.type:
        column = column.cast(kind, safe=False)
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # a time that Python's do not reach
        values = [_reachable(cell) for cell in column]
    return values


def _reachable(cell: Any) -> object:  # noqa: ANN401 — pyarrow has no types
    """The value of a cell; of a time that Python's do not reach what pyarrow calls it."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        pass
    if isinstance(cell, pa.StructScalar):
        return {name: _reachable(member) for name, member in cell.items()}
    if isinstance(cell, pa.MapScalar):
        return [tuple(_reachable(part) for part in pair.values()) for pair in cell.values]
    if isinstance(cell, pa.ListScalar):
        return [_reachable(item) for item in cell.values]
    return cell.cast(pa.string()).as_py()


def _in_microseconds(  # noqa: PLR0911 — a case a type
    kind: Any,  # noqa: ANN401 — pyarrow has no types
) -> Any:  # noqa: ANN401 — pyarrow has no types
    """The type with times no finer than Python's, in UTC where they have a zone.

    Coarser ones stay as they are: in microseconds the farthest would overflow.
    """
    if pa.types.is_timestamp(kind):
        return pa.timestamp(_unit(kind), "UTC" if kind.tz else None)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_duration(kind):
        return pa.duration(_unit(kind))
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_in_microseconds(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_in_microseconds(kind.value_type), kind.list_size)
    if pa.types.is_map(kind):
        return pa.map_(_in_microseconds(kind.key_type), _in_microseconds(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _in_microseconds(field.type)) for field in kind])
    return kind


def _unit(kind: Any) -> str:  # noqa: ANN401 — pyarrow has no types
    return "us" if kind.unit == "ns" else str(kind.unit)
