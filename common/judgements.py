"""Reads what people judged by hand: JSON Lines, and the relevance grades of the BEIR layout.

Every fault is named by file and line. Lines are read as they are asked for; nothing is written.
"""

from __future__ import annotations

import codecs
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
        try:
            row = json.loads(line)
            # Escapes may spell halves of characters, which no text may hold.
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"{place}: text must be valid Unicode") from None
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
    """Grades by query id and document id; a first line that is no judgement is the header."""
    grades: dict[str, dict[str, int]] = {}
    for line_number, (place, line) in enumerate(_lines(path)):
        columns = line.split("\t")
        try:
            query, document, text = columns
            grade = int(text)
        except ValueError:
            if line_number == 0:
                continue
            raise InvalidArgument(
                f"{place}: expected query-id, corpus-id and a whole number, separated by tabs"
            ) from None
        if grades.setdefault(query, {}).setdefault(document, grade) != grade:
            raise InvalidArgument(
                f"{place}: {document} was graded {grades[query][document]} for {query} before;"
                " keep one line of them"
            )
    return grades


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not blank with its place, without its end and without a byte order mark."""
    with path.open("rb") as file:
        for line_number, line in enumerate(file, start=1):
            place = f"{path}:{line_number}"
            try:
                text = line.removeprefix(codecs.BOM_UTF8).decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise InvalidArgument(f"{place}: not UTF-8") from None
            if text.strip():
                yield place, text
