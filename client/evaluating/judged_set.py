"""A judged collection on disk, in the layout of BEIR: documents, queries and relevance grades.

    corpus.jsonl    {"_id", "title", "text"} a line
    queries.jsonl   {"_id", "text"} a line
    qrels/test.tsv  query-id, corpus-id, score, usually after a header line; or another split

Reads only. What is not as the layout says is named by file and line, an id that stands twice too;
what the files say of each other that does not fit is counted and told, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.quantities import number
from common.errors import InvalidArgument
from common.judgements import QUERIES, json_rows, read_grades, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CORPUS = "corpus.jsonl"
DEFAULT_SPLIT = "test"
# As the contract bounds a query.
MAX_QUERY_BYTES = 8_192


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
        split: whose judgements were read.
        digest: of the corpus, hex.
        size: documents that have any text.
        queries: those with at least one relevant document, as BEIR counts them.
        notes: what of the judgements does not fit queries or corpus, for people.
    """

    name: str
    folder: Path
    split: str
    digest: str
    size: int
    queries: tuple[JudgedQuery, ...]
    notes: tuple[str, ...] = ()

    def documents(self) -> Iterator[JudgedDocument]:
        """The documents that have any text, read as they are asked for."""
        return _documents(self.folder / CORPUS)


def read_judged_set(folder: Path, split: str = DEFAULT_SPLIT) -> JudgedSet:
    """Read the queries and grades, and name the corpus by its content.

    Documents that were judged but are not in the corpus stay in the judgements: they count as not
    found, as trec_eval counts them.

    Raises:
        InvalidArgument: a file is missing, or a line is not as the layout says.
    """
    qrels = _judgements(folder, split)
    for name in (CORPUS, QUERIES):
        if not (folder / name).is_file():
            raise InvalidArgument(f"{folder} is not in BEIR layout: there is no {name}")
    grades = read_grades(qrels)
    queries = tuple(_judged_queries(folder / QUERIES, grades))
    if not queries:
        raise InvalidArgument(f"{qrels} names no relevant document for any query of {QUERIES}")
    ids = {document.id for document in _documents(folder / CORPUS)}
    with (folder / CORPUS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return JudgedSet(
        name=folder.resolve().name,
        folder=folder,
        split=split,
        digest=digest,
        size=len(ids),
        queries=queries,
        notes=tuple(_notes(folder, grades, queries, ids)),
    )


def _judgements(folder: Path, split: str) -> Path:
    """The file of a split; a fault says which splits there are."""
    there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if re.fullmatch(r"[\w.-]+", split) and split in there:
        return folder / "qrels" / f"{split}.tsv"
    if there:
        raise InvalidArgument(
            f"{folder} has no qrels/{split}.tsv; choose with --split one of {', '.join(there)}"
        )
    raise InvalidArgument(f"{folder} is not in BEIR layout: there is no qrels/{split}.tsv")


def _judged_queries(path: Path, grades: Mapping[str, Mapping[str, int]]) -> Iterator[JudgedQuery]:
    for place, row in _unique_rows(path):
        judged = grades.get(row["_id"], {})
        text = text_at(row, "text", place)
        if not any(grade > 0 for grade in judged.values()):
            continue
        if not text.strip():
            raise InvalidArgument(f"{place}: text is blank")
        if len(text.encode()) > MAX_QUERY_BYTES:
            raise InvalidArgument(f"{place}: text is longer than {MAX_QUERY_BYTES:,} bytes")
        yield JudgedQuery(row["_id"], text, judged)


def _documents(path: Path) -> Iterator[JudgedDocument]:
    for place, row in _unique_rows(path):
        title = row.get("title")
        if not isinstance(title, str | None):
            raise InvalidArgument(f"{place}: title is no string")
        document = JudgedDocument(row["_id"], title or "", text_at(row, "text", place))
        if document.title.strip() or document.text.strip():
            yield document


def _notes(
    folder: Path,
    grades: Mapping[str, Mapping[str, int]],
    queries: tuple[JudgedQuery, ...],
    documents: set[str],
) -> Iterator[str]:
    known = {row["_id"] for _, row in _unique_rows(folder / QUERIES)}
    if unknown := len(grades.keys() - known):
        yield f"judgements of {number(unknown, 'query')} that {QUERIES} lacks were left out"
    if barren := len(grades.keys() & known) - len(queries):
        yield f"judged without a relevant document and left out: {number(barren, 'query')}"
    relevant = {id_ for query in queries for id_, grade in query.grades.items() if grade > 0}
    if missing := len(relevant - documents):
        yield (
            f"relevant but missing from {CORPUS}, or without text there:"
            f" {number(missing, 'document')}, counted as not found"
        )


def _unique_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each JSON object of a file with its place, FILE:LINE; each has an ``_id`` of its own."""
    places: dict[str, str] = {}
    for place, row in json_rows(path):
        id_ = text_at(row, "_id", place)
        if id_ in places:
            raise InvalidArgument(f"{place}: _id {id_!r} stands in {places[id_]} already")
        places[id_] = place
        yield place, row
