"""A judged collection on disk, in the layout of BEIR: documents, queries and relevance grades.

    corpus.jsonl    {"_id", "title", "text"} a line
    queries.jsonl   {"_id", "text"} a line
    qrels/test.tsv  query-id, corpus-id, score, after a header line

Reads only; what is not as the layout says is named by file and line.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import InvalidArgument
from common.judgements import QRELS, QUERIES, json_rows, read_grades, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CORPUS = "corpus.jsonl"


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
        for place, row in json_rows(self.folder / CORPUS):
            document = JudgedDocument(
                text_at(row, "_id", place), row.get("title") or "", text_at(row, "text", place)
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
    grades = read_grades(folder / QRELS)
    queries = []
    for place, row in json_rows(folder / QUERIES):
        judged = grades.get(text_at(row, "_id", place), {})
        if any(grade > 0 for grade in judged.values()):
            queries.append(JudgedQuery(row["_id"], text_at(row, "text", place), judged))
    if not queries:
        raise InvalidArgument(f"{folder / QRELS} names no relevant document for any query")
    with (folder / CORPUS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return JudgedSet(folder.resolve().name, folder, digest, tuple(queries))
