"""A judged collection on disk, in the layout of BEIR: documents, queries and relevance grades.

    corpus.jsonl    {"_id", "title", "text"} a line
    queries.jsonl   {"_id", "text"} a line
    qrels/test.tsv  query-id, corpus-id, score, after a header line

Reads only; what is not as the layout says is named by file and line.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CORPUS = "corpus.jsonl"
QUERIES = "queries.jsonl"
QRELS = "qrels/test.tsv"


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """One document of the corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query and the grades of the documents judged for it; above 0 is relevant."""

    id: str
    text: str
    grades: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """A data set on disk.

    Attributes:
        name: of its folder.
        folder: where it lies.
        digest: of the corpus, hex.
        queries: those with at least one relevant document, as BEIR counts them.
    """

    name: str
    folder: Path
    digest: str
    queries: tuple[JudgedQuery, ...]

    def documents(self) -> Iterator[JudgedDocument]:
        """The documents that have any text, read as they are asked for."""
        for place, row in _rows(self.folder / CORPUS):
            document = JudgedDocument(
                _string(row, "_id", place), row.get("title") or "", _string(row, "text", place)
            )
            if document.title.strip() or document.text.strip():
                yield document


def read_judged_set(folder: Path) -> JudgedSet:
    """Read the queries and grades, and name the corpus by its content.

    Raises:
        InvalidArgument: a file is missing, or a line is not as the layout says.
    """
    for name in (CORPUS, QUERIES, QRELS):
        if not (folder / name).is_file():
            raise InvalidArgument(f"{folder} is not in BEIR layout: there is no {name}")
    grades = _grades(folder / QRELS)
    queries = []
    for place, row in _rows(folder / QUERIES):
        judged = grades.get(_string(row, "_id", place), {})
        if any(grade > 0 for grade in judged.values()):
            queries.append(JudgedQuery(row["_id"], _string(row, "text", place), judged))
    if not queries:
        raise InvalidArgument(f"{folder / QRELS} names no relevant document for any query")
    with (folder / CORPUS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return JudgedSet(folder.resolve().name, folder, digest, tuple(queries))


def _grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8") as file:
        next(file, None)  # the header
        for number, line in enumerate(file, start=2):
            columns = line.rstrip("\r\n").split("\t")
            try:
                query, document, grade = columns
                grades.setdefault(query, {})[document] = int(grade)
            except ValueError:
                raise InvalidArgument(
                    f"{path}:{number}: expected query-id, corpus-id and a whole number, "
                    "separated by tabs"
                ) from None
    return grades


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InvalidArgument(f"{path}:{number}: not a JSON object")
            yield f"{path}:{number}", row


def _string(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise InvalidArgument(f"{place}: {key} is missing or no string")
    return value
