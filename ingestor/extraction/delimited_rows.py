"""Rows of text tables, read as they come: CSV, TSV and JSON Lines.

The first row of CSV and TSV names the columns; a quoted cell may hold line ends. A line of JSON
Lines that is not JSON is a row that could not be parsed.
"""

from __future__ import annotations

import csv
import json
from itertools import chain
from typing import TYPE_CHECKING

from ingestor.extraction import plain_text
from ingestor.extraction.extracted import Refusal
from ingestor.extraction.table_rows import Table
from ingestor.faults import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def delimited(lines: Iterator[str], *, delimiter: str | None, max_characters: int) -> Table:
    """The rows of CSV; without a delimiter it is the one that the first line has most of.

    Cells beyond the named columns are ``column <n>``. Every value is text.
    """
    header = next((line for line in lines if line.strip()), "")
    if delimiter is None:
        delimiter = plain_text.likely_delimiter(header)
    csv.field_size_limit(max_characters)
    rows = csv.reader((f"{line}\n" for line in chain([header], lines)), delimiter=delimiter)
    cells = _cells(rows)
    columns = tuple(_named(cell, place) for place, cell in enumerate(next(cells, [])))
    return Table(columns, (_by_name(columns, row) for row in cells))


def _cells(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    number = 0
    try:
        for row in rows:
            if row:
                number += 1
                yield row
    except csv.Error as error:
        oversized = "field limit" in str(error)
        message = f"row {number}: {'a cell is not closed, or too long' if oversized else error}"
        raise Refusal(Cause.TOO_LARGE if oversized else Cause.MALFORMED, message) from None


def _named(cell: str, place: int) -> str:
    return cell.strip() or f"column {place + 1}"


def _by_name(columns: tuple[str, ...], row: list[str]) -> Mapping[str, object]:
    named = dict(zip(columns, row, strict=False))
    named.update((_named("", place), row[place]) for place in range(len(columns), len(row)))
    return named


def json_lines(lines: Iterator[str]) -> Table:
    """The objects of JSON Lines; what is no object is a column ``value``."""
    return Table(None, (_parsed(line) for line in lines if line.strip()))


def _parsed(line: str) -> Mapping[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else {"value": value}
