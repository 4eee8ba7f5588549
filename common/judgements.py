"""Reads what people judged by hand: JSON Lines, and the relevance grades of the BEIR layout.

Every fault is named by file and line. Lines are read as they are asked for; nothing is written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUERIES = "queries.jsonl"
QRELS = "qrels/test.tsv"


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each JSON object of a file with its place, FILE:LINE; blank lines are passed over."""
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InvalidArgument(f"{place}: not a JSON object")
        yield place, row


def text_at(row: dict[str, Any], key: str, place: str) -> str:
    """The string a row holds under a key."""
    value = row.get(key)
    if not isinstance(value, str):
        raise InvalidArgument(f"{place}: {key} is missing or no string")
    return value


def read_grades(path: Path) -> dict[str, dict[str, int]]:
    """Grades by query id and document id; above 0 is relevant. The first line is the header."""
    grades: dict[str, dict[str, int]] = {}
    lines = _lines(path)
    next(lines, None)
    for place, line in lines:
        columns = line.rstrip("\r\n").split("\t")
        try:
            query, document, grade = columns
            grades.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise InvalidArgument(
                f"{place}: expected query-id, corpus-id and a whole number, separated by tabs"
            ) from None
    return grades


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path}:{number}"
            try:
                yield place, line.decode()
            except UnicodeDecodeError:
                raise InvalidArgument(f"{place}: not UTF-8") from None
