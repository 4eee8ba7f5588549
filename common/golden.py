"""Golden queries: questions and the sources that must be among their first hits.

They are read from JSON Lines, ``{"query": "…", "expected": "…"}`` or with a list of them, or from a
folder in BEIR layout (``queries.jsonl`` and ``qrels/test.tsv``), where every document graded above
0 is expected by its id. An expectation is a source URI, the end of one after a slash, or a document
id. What is not so is named by file and line; nothing is skipped silently but queries that nobody
judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from common.errors import InvalidArgument
from common.judgements import QRELS, QUERIES, json_rows, read_grades, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As the contract bounds a verification and a search.
MAX_QUERIES = 2_000
MAX_EXPECTED = 1_000
MAX_QUERY_BYTES = 8_192


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One query, not blank, and what it must find: 1 to ``MAX_EXPECTED``, none twice."""

    query: str
    expected: tuple[str, ...]


def load_golden(path: Path) -> tuple[GoldenCase, ...]:
    """Read golden queries, 1 to ``MAX_QUERIES``, in the order of the file.

    Args:
        path: a file of JSON Lines, or a folder in BEIR layout.

    Raises:
        InvalidArgument: names the file, the line and what is wrong there.
        OSError: the file cannot be read.
    """
    cases = tuple(islice(_judged(path) if path.is_dir() else _listed(path), MAX_QUERIES + 1))
    if not cases:
        raise InvalidArgument(f"{path} holds no golden query")
    if len(cases) > MAX_QUERIES:
        raise InvalidArgument(
            f"{path} holds more than {MAX_QUERIES:,} golden queries; choose fewer of them"
        )
    return cases


def _listed(path: Path) -> Iterator[GoldenCase]:
    for place, row in json_rows(path):
        query = text_at(row, "query", place)
        expected = row.get("expected")
        if isinstance(expected, str):
            expected = [expected]
        if not isinstance(expected, list) or not all(isinstance(one, str) for one in expected):
            raise InvalidArgument(f"{place}: expected is missing or neither string nor strings")
        yield _case(query, expected, place)


def _judged(folder: Path) -> Iterator[GoldenCase]:
    for name in (QUERIES, QRELS):
        if not (folder / name).is_file():
            raise InvalidArgument(f"{folder} is not in BEIR layout: there is no {name}")
    grades = read_grades(folder / QRELS)
    for place, row in json_rows(folder / QUERIES):
        judged = grades.get(text_at(row, "_id", place), {})
        relevant = [document for document, grade in judged.items() if grade > 0]
        if relevant:
            yield _case(text_at(row, "text", place), relevant, place)


def _case(query: str, expected: list[str], place: str) -> GoldenCase:
    try:
        size = len(query.encode())
        "".join(expected).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{place}: text must be valid Unicode") from None
    if not query.strip():
        raise InvalidArgument(f"{place}: the query is blank")
    if size > MAX_QUERY_BYTES:
        raise InvalidArgument(
            f"{place}: the query has {size:,} bytes, more than {MAX_QUERY_BYTES:,}"
        )
    wanted = tuple(dict.fromkeys(expected))
    if not wanted or not all(one.strip() for one in wanted):
        raise InvalidArgument(f"{place}: expected is empty or holds a blank source")
    if len(wanted) > MAX_EXPECTED:
        raise InvalidArgument(
            f"{place}: {len(wanted):,} sources are expected, more than {MAX_EXPECTED:,}"
        )
    return GoldenCase(query, wanted)
