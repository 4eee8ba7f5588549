"""What the benchmarks of ranking ask and search: passages of one size, and questions to them.

They come from a judged collection in BEIR layout, or from the project's own samples, and are the
same on every run. A corpus that is too small for the number of passages asked for is cut into
snippets, and passages are drawn of these; it must never pass those off as the corpus itself, so
``Passages.drawn`` tells.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from client.evaluating.judged_set import read_judged_set
from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
SUFFIXES = {".md", ".txt", ".html", ".csv", ".jsonl", ".log"}
# Asked of the samples.
QUESTIONS = (
    "why did the active NameNode lose its lease",
    "how long are HDFS audit logs kept",
    "decommission a DataNode without losing replicas",
    "the balancer moves blocks too slowly",
    "java.io.IOException could not obtain block blk_1184512763",
    "Kerberos ticket expires in a long running job",
    "who is on call when a JournalNode disk is full",
    "nn1.lake.example in safe mode",
    "compact small files of a Hive table",
    "restore a deleted directory from a snapshot",
    "yarn queue capacity for the nightly batch",
    "DSQuotaExceededException in the landing zone",
    "change ticket for the DataNode upgrade",
    "GC pause of the NameNode in March 2025",
    "missing and corrupt blocks after a rack failure",
    "which datasets are confidential",
)
# How many times longer a passage is than the snippets that drawn ones are made of.
SNIPPETS = 8


class Passage(NamedTuple):
    """One text and the title of the document that it begins in."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Passages:
    """What is searched and what is asked.

    Attributes:
        corpus: name of where they come from.
        passages: in no meant order.
        drawn: whether they were made of snippets, for want of text.
        questions: asked by people of this corpus.
    """

    corpus: str
    passages: Sequence[Passage]
    drawn: bool
    questions: Sequence[str]


def read_passages(corpus: Path | None, count: int, *, size: int, seed: int) -> Passages:
    """Passages of a folder in BEIR layout, of the samples without one.

    Args:
        corpus: the folder.
        count: how many.
        size: most bytes of one in UTF-8; all but a few bytes of it are used.
        seed: of the choice.

    Raises:
        ValueError: the folder is not as the layout says, or holds less text than one passage.
    """
    if corpus is None:
        name, documents = SAMPLES.name, list(_samples())
        questions: Sequence[str] = QUESTIONS
    else:
        try:
            judged = read_judged_set(corpus)
            documents = [Passage(one.title, one.text) for one in judged.documents()]
        except InvalidArgument as error:
            raise ValueError(error.message) from error
        name, questions = judged.name, tuple(query.text for query in judged.queries)
    choice = random.Random(seed)  # noqa: S311 — the same passages on every run
    cut = list(_cut(documents, size))
    if not cut:
        raise ValueError(f"{name} holds less than {size} bytes of text")
    if drawn := len(cut) < count:
        snippets = list(_cut(documents, size // SNIPPETS))
        passages = [_draw(choice, snippets, size) for _ in range(count)]
    else:
        passages = choice.sample(cut, count)
    return Passages(name, passages, drawn, questions)


def _samples() -> Iterator[Passage]:
    for path in sorted(SAMPLES.rglob("*")):
        if path.suffix in SUFFIXES:
            yield Passage(path.stem, path.read_text(encoding="utf-8"))


def _cut(documents: Sequence[Passage], size: int) -> Iterator[Passage]:
    """Pieces of the documents put one after the other."""
    starts, parts, length = [], [], 0
    for document in documents:
        starts.append(length)
        parts.append(document.text.encode() + b"\n")
        length += len(parts[-1])
    text, position = b"".join(parts), 0
    while position + size <= length:
        piece = _head(text, position, size)
        title = documents[bisect_right(starts, position) - 1].title
        yield Passage(title, piece.decode("utf-8", "ignore"))
        position += len(piece) + 1


def _draw(choice: random.Random, snippets: Sequence[Passage], size: int) -> Passage:
    chosen = choice.choices(snippets, k=2 * SNIPPETS)
    text = "\n".join(snippet.text for snippet in chosen).encode()
    return Passage(chosen[0].title, _head(text, 0, size).decode("utf-8", "ignore"))


def _head(text: bytes, start: int, size: int) -> bytes:
    """At most so many bytes, ended where a word ends unless it is all one word."""
    end = max(text.rfind(space, start, start + size) for space in (b" ", b"\n"))
    return text[start : end if end > start else start + size]


def turns(questions: Sequence[str], count: int, seed: int) -> list[str]:
    """So many of the questions in an order of their own, from the first again when they end."""
    order = list(questions)
    random.Random(seed).shuffle(order)  # noqa: S311 — the same order on every run
    return list(islice(cycle(order), count))
