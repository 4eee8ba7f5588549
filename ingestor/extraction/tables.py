"""Tables, and files of records: each row a document, as a rule of ``ingest.formats`` says.

A row is known by its identity column, else by its number, counted from 0. A row whose text is
blank, and one that could not be parsed, is passed over. Rows stream: the file is never held.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from common.media_types import PLAIN_TEXT
from ingestor.extraction import line_stream
from ingestor.extraction.extracted import (
    MAX_FRAGMENT_CHARACTERS,
    Extracted,
    Part,
    Refusal,
    title_of,
)
from ingestor.extraction.identities import Identities
from ingestor.extraction.row_values import as_lines, as_metadata, as_text, cell
from ingestor.faults import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from common.records import MetadataValue
    from ingestor.extraction.table_rows import Table
    from ingestor.extraction.worker_protocol import Limits, Reading

_MAX_NAMES_SHOWN = 50
_MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns are what; the fields of a ``TableRule``, ``metadata`` by key."""

    id: str | None = None
    text: Sequence[str] = ()
    template: str | None = None
    title: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def text_columns(self) -> list[str]:
        """The columns that the text is made of; none means all."""
        return list(self.text) if self.template is None else placeholders(self.template)

    def columns(self) -> list[str]:
        """Every column the rule names."""
        named = [*self.text_columns(), *self.metadata.values()]
        return list(dict.fromkeys(named + [name for name in (self.id, self.title) if name]))

    def select(self, existing: Sequence[str]) -> list[str] | None:
        """The columns to read, None for all; Refusal if the rule names one that does not exist."""
        self.check(existing)
        if not self.text_columns():
            return None
        return list(
            dict.fromkeys(
                name if name in existing else name.partition(".")[0] for name in self.columns()
            )
        )

    def check(self, existing: Iterable[str]) -> None:
        """Refusal if the rule names a column that is not among these."""
        known = set(existing)
        for name in self.columns():
            if name not in known and name.partition(".")[0] not in known:
                raise missing_column(name, known)


def placeholders(template: str) -> list[str]:
    """The columns a template names; ValueError for one that is no template of columns."""
    found = []
    for _, column, specification, conversion in string.Formatter().parse(template):
        if column is None:
            continue
        if not column.strip() or specification or conversion:
            raise ValueError("write placeholders as {column}, and braces that are text twice")
        found.append(column)
    return found


def missing_column(name: str, existing: Iterable[str]) -> Refusal:
    """The refusal of a table without a column that the rule names."""
    names = sorted(existing)
    more = ", …" if len(names) > _MAX_NAMES_SHOWN else ""
    # A damaged file may have names of any length.
    shown = ", ".join(name[:_MAX_NAME_CHARACTERS] for name in names[:_MAX_NAMES_SHOWN])
    return Refusal(Cause.MALFORMED, f"it has no column {name!r}; it has {shown}{more}")


def parts(reading: Reading, file: BinaryIO, limits: Limits) -> Iterator[Part | None]:
    """The documents of a table; None for a row that is passed over."""
    layout = Layout(**reading.rule)
    table = _open(reading, file, limits, layout)
    rows = table.rows if table.columns is not None else _checked(table.rows, layout)
    documents = _Rows(reading.name, layout, limits)
    for number, row in enumerate(rows):
        yield None if row is None else documents.part(number, row)


def _open(reading: Reading, file: BinaryIO, limits: Limits, layout: Layout) -> Table:
    from ingestor.extraction import (  # noqa: PLC0415 — each kind imports its own parsers
        delimited_rows,
        sequence_file,
        table_rows,
    )

    match reading.kind:
        case "parquet":
            return table_rows.parquet(file, layout.select)
        case "orc":
            return table_rows.orc(file, layout.select)
    if reading.codec:
        from ingestor.extraction.compression import expanding  # noqa: PLC0415

        file = expanding(file, reading.codec, limits.max_expanded_bytes)
    bound = limits.max_characters
    text = partial(
        line_stream.lines, fallback_encoding=limits.fallback_encoding, max_characters=bound
    )
    match reading.kind:
        case "avro":
            table = table_rows.avro(file)
        case "sequencefile":
            table = sequence_file.read(file, limits)
        case "csv":
            table = delimited_rows.delimited(text(file), delimiter=None, max_characters=bound)
        case "tsv":
            table = delimited_rows.delimited(text(file), delimiter="\t", max_characters=bound)
        case _:
            return delimited_rows.json_lines(text(file))
    if table.columns is not None:
        layout.check(table.columns)
    return table


def _checked(
    rows: Iterator[Mapping[str, object] | None], layout: Layout
) -> Iterator[Mapping[str, object] | None]:
    """The rows; Refusal at their end if none could be parsed, or none had a column of the text.

    Without a schema a column that is sometimes there may be in no row of one file.
    """
    columns = layout.text_columns()
    heads = {name for column in columns for name in (column, column.partition(".")[0])}
    found = not columns
    others: dict[str, None] = {}
    parsed = 0
    for row in rows:
        if row is not None:
            parsed += 1
            found = found or not heads.isdisjoint(row)
            if not found and len(others) <= _MAX_NAMES_SHOWN:
                others.update(dict.fromkeys(row))
        yield row
    if not parsed:
        raise Refusal(Cause.MALFORMED, "no line of it is JSON")
    if not found:
        raise missing_column(columns[0], others)


class _Rows:
    """Makes the documents of one file's rows, and knows their identities."""

    def __init__(self, name: str, layout: Layout, limits: Limits) -> None:
        self._name = name
        self._layout = layout
        self._limits = limits
        self._encoding = limits.fallback_encoding
        self._identities = Identities()
        self._text_columns = layout.text_columns()

    def part(self, number: int, row: Mapping[str, object]) -> Part | None:
        """The document of a row; None if its text is blank, or it is nested beyond reason."""
        try:
            return self._part(number, row)
        except RecursionError:
            return None

    def _part(self, number: int, row: Mapping[str, object]) -> Part | None:
        text = self._text(row)
        if not text.strip():
            return None
        bound = self._limits.max_characters
        if len(text) > bound:
            raise Refusal(Cause.TOO_LARGE, f"row {number} is over {bound} characters")
        layout = self._layout
        fragment, shown = f"row={number}", f"row {number}"
        if layout.id is not None:
            identity = self._identity(layout.id, number, row)
            fragment, shown = f"id={quote(identity, safe='')}", identity
            if len(fragment) > MAX_FRAGMENT_CHARACTERS:
                message = f"the identity of row {number} is longer than a document's URI may be"
                raise Refusal(Cause.MALFORMED, message)
        title = title_of(as_text(cell(row, layout.title), self._encoding)) if layout.title else ""
        metadata: dict[str, MetadataValue] = {}
        for key, column in layout.metadata.items():
            value = as_metadata(cell(row, column), self._encoding)
            if value is not None:
                metadata[key] = value
        title = title or title_of(f"{self._name} {shown}")
        return Part(fragment, Extracted(text, title, PLAIN_TEXT, metadata=metadata))

    def _text(self, row: Mapping[str, object]) -> str:
        if not self._text_columns:
            lines = (as_lines(name, value, self._encoding) for name, value in row.items())
            return "\n".join(line for cells in lines for line in cells)
        texts = [as_text(cell(row, column), self._encoding) for column in self._text_columns]
        if self._layout.template is None:
            return "\n\n".join(text for text in texts if text.strip())
        if not any(text.strip() for text in texts):
            return ""
        filled = iter(texts)
        return "".join(
            literal + ("" if column is None else next(filled))
            for literal, column, _, _ in string.Formatter().parse(self._layout.template)
        )

    def _identity(self, column: str, number: int, row: Mapping[str, object]) -> str:
        value = cell(row, column)
        identity = as_text(value, self._encoding)
        if not identity and isinstance(value, bytes):
            identity = value.hex()
        if not identity:
            message = f"row {number} has no {column!r}: name a column that every row has as its id"
            raise Refusal(Cause.MALFORMED, message)
        before = self._identities.add(identity, number)
        if before is not None:
            message = f"rows {before} and {number} have the same {column!r}: an id must be unique"
            raise Refusal(Cause.MALFORMED, message)
        return identity
