"""What stands in an answer: one passage a text, neighbours joined, no document beyond its share.

It arranges chunks in the order of their ranks and reads nothing; whether a chunk may be answered at
all was found out before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

from common import records
from query.duplicates import MAX_DUPLICATES, Duplicate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from common.identity import ChunkId
    from common.records import MetadataValue

# White space between two chunks, in characters; beyond it they stay passages of their own.
MAX_GAP: Final = 4_096
# Copies of a text among which the one is looked for that joins what stands already.
MAX_COPIES: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A candidate that may stand in the answer.

    Attributes:
        rank: its place in the order, from 0.
        index: its place among the candidates.
        id: the parts of its id.
        chunk_id: its id.
        chunk: its own metadata, of which only place and page are of use.
        head: metadata of its revision's head: what to say of the document.
        text: UTF-8.
    """

    rank: int
    index: int
    id: ChunkId
    chunk_id: str
    chunk: Mapping[str, MetadataValue]
    head: Mapping[str, MetadataValue]
    text: bytes

    @property
    def span(self) -> tuple[int, int]:
        """Where the text stands in its document, in characters."""
        return cast("int", self.chunk[records.START]), cast("int", self.chunk[records.END])


@dataclass(frozen=True, slots=True)
class Passage:
    """One hit: a chunk, or neighbouring chunks of one document.

    Attributes:
        index: the candidate whose score and rank it has: the best of those it stands for.
        chunk_id: of its best chunk.
        document_id: whose text it is.
        head: metadata of the document's head.
        text: of all of its chunks; white space between two of them, which is not stored, is one
            blank, a blank line, or an indented line, as long as what stood there.
        span: where it stands in the document, in characters, half open.
        page: the page it begins on; 0 for sources without pages.
        duplicates: where nearly its text stands once more, best first.
        merged: the chunks' ids in the order of the text; empty for a chunk alone.
    """

    index: int
    chunk_id: str
    document_id: str
    head: Mapping[str, MetadataValue]
    text: str
    span: tuple[int, int]
    page: int
    duplicates: tuple[Duplicate, ...]
    merged: tuple[str, ...]


class _Growing:
    """A passage to be.

    ``place`` is the best chunk that it stands for, itself or a duplicate of one of its chunks.
    """

    def __init__(self, chunk: Located, place: Located, leader: int) -> None:
        self.place = place
        self.chunks = {chunk.id.ordinal: chunk}
        self.leaders = [leader]

    def __len__(self) -> int:
        return len(self.chunks)

    def absorb(self, other: _Growing) -> None:
        self.place = min(self.place, other.place, key=lambda chunk: chunk.rank)
        self.chunks |= other.chunks
        self.leaders += other.leaders


class Arrangement:
    """Takes chunks best first until one more passage than wanted would begin.

    A group of texts counts once: the first of its chunks that has a place shows it, the others are
    its duplicates. Where neighbours merge, a copy is shown from the document that the answer
    already has, so that the chunks of copied documents come together.

    Args:
        count: passages wanted.
        max_per_document: passages of one document, at most; 0 means any number.
        merge_neighbours: whether chunks that follow each other in a document become one passage.
    """

    def __init__(self, count: int, *, max_per_document: int, merge_neighbours: bool) -> None:
        self._count = count
        self._share = max_per_document or count
        self._merges = merge_neighbours
        self._closed = False
        self._groups: dict[int, list[Located]] = {}  # by leader, best first
        self._shown: set[int] = set()
        self._passages: dict[tuple[str, int], _Growing] = {}  # by document and ordinal
        self._standing: dict[_Growing, None] = {}
        self._of_document: Counter[str] = Counter()
        # Chunks whose document had its share, by ordinal, best first: they may still join.
        self._waiting: dict[str, dict[int, tuple[Located, int]]] = {}

    @property
    def is_full(self) -> bool:
        """Whether as many passages stand as are wanted."""
        return len(self._standing) >= self._count

    def expect(self, grouped: Iterable[tuple[Located, int]]) -> None:
        """Make chunks known that come next, best first, each with its group's leader."""
        for chunk, leader in grouped:
            self._groups.setdefault(leader, []).append(chunk)

    def take(self, chunk: Located, leader: int) -> None:
        """Find a place for the next chunk."""
        pending = [(chunk, leader)]
        while pending and not self._closed:
            chunk, leader = pending.pop()
            if leader not in self._shown:
                pending += self._offer(chunk, leader)

    def passages(self) -> list[Passage]:
        """What stands, best first."""
        return [
            self._finished(growing)
            for growing in sorted(self._standing, key=lambda growing: growing.place.rank)
        ]

    def _offer(self, chunk: Located, leader: int) -> list[tuple[Located, int]]:
        """Place one of a group, and return what waited and has a chance now."""
        for copy in self._copies(chunk, leader):
            beside = self._beside(copy)
            document = copy.id.document_id
            if not beside:
                if self._of_document[document] >= self._share:
                    continue
                if self.is_full:
                    self._closed = True
                    return []
            self._place(copy, chunk, leader, beside)
            return list(self._revived(copy, bridged=len(beside) > 1))
        waiting = self._waiting.setdefault(chunk.id.document_id, {})
        waiting.setdefault(chunk.id.ordinal, (chunk, leader))
        return []

    def _copies(self, chunk: Located, leader: int) -> Sequence[Located]:
        """Chunks that could show the group, the most fitting first."""
        if not self._merges:
            return [chunk]
        of_known = (
            copy
            for copy in self._groups[leader]
            if copy is not chunk and self._of_document[copy.id.document_id]
        )
        return sorted(
            [chunk, *islice(of_known, MAX_COPIES)],
            key=lambda copy: (
                not self._beside(copy),
                not self._of_document[copy.id.document_id],
                copy.rank,
            ),
        )

    def _beside(self, chunk: Located) -> list[_Growing]:
        """The one or two passages that the chunk would join."""
        if not self._merges:
            return []
        document, ordinal = chunk.id.document_id, chunk.id.ordinal
        beside = []
        for neighbour in (ordinal - 1, ordinal + 1):
            growing = self._passages.get((document, neighbour))
            if growing:
                first, second = sorted(
                    (chunk, growing.chunks[neighbour]), key=lambda one: one.id.ordinal
                )
                if second.span[0] - first.span[1] <= MAX_GAP:
                    beside.append(growing)
        return beside

    def _place(self, chunk: Located, place: Located, leader: int, beside: list[_Growing]) -> None:
        document = chunk.id.document_id
        # The longest takes in the others, so that a long passage does not move at every chunk.
        longest, *others = sorted([_Growing(chunk, place, leader), *beside], key=len, reverse=True)
        self._standing[longest] = None
        self._passages[document, chunk.id.ordinal] = longest
        for other in others:
            self._passages |= {(document, ordinal): longest for ordinal in other.chunks}
            self._standing.pop(other, None)
            longest.absorb(other)
        self._of_document[document] += 1 - len(beside)
        self._shown.add(leader)

    def _revived(self, placed: Located, *, bridged: bool) -> Iterator[tuple[Located, int]]:
        """What waited for a neighbour like this one, or for the share that two passages had."""
        waiting = self._waiting.get(placed.id.document_id, {})
        if bridged and waiting:
            yield waiting.pop(next(iter(waiting)))
        for ordinal in (placed.id.ordinal - 1, placed.id.ordinal + 1):
            if ordinal in waiting:
                yield waiting.pop(ordinal)

    def _finished(self, growing: _Growing) -> Passage:
        chunks = [chunk for _, chunk in sorted(growing.chunks.items())]
        best = min(chunks, key=attrgetter("rank"))
        others = [
            copy
            for leader in growing.leaders
            for copy in self._groups[leader]
            if growing.chunks.get(copy.id.ordinal) is not copy
        ]
        others.sort(key=attrgetter("rank"))
        return Passage(
            index=growing.place.index,
            chunk_id=best.chunk_id,
            document_id=best.id.document_id,
            head=best.head,
            text=joined([(chunk.text.decode(), chunk.span) for chunk in chunks]),
            span=(chunks[0].span[0], max(chunk.span[1] for chunk in chunks)),
            page=cast("int", chunks[0].chunk.get(records.PAGE, 0)),
            duplicates=tuple(map(_duplicate, others[:MAX_DUPLICATES])),
            merged=tuple(chunk.chunk_id for chunk in chunks) if len(chunks) > 1 else (),
        )


def joined(texts: Sequence[tuple[str, tuple[int, int]]]) -> str:
    """The text that stands from the first of these to the last.

    Args:
        texts: in the order of their document, each with its span in characters. They may overlap;
            between two of them is nothing but white space.
    """
    parts: list[str] = []
    end = texts[0][1][0]
    for text, (start, stop) in texts:
        parts.append(_white_space(start - end))
        parts.append(text[max(end - start, 0) :])
        end = max(end, stop)
    return "".join(parts)


def _white_space(length: int) -> str:
    """What most often stands between two chunks: a blank, an empty line, an indented line."""
    match length:
        case 1:
            return " "
        case 2:
            return "\n\n"
        case _:
            return "\n" + " " * (length - 1) if length > 0 else ""


def _duplicate(chunk: Located) -> Duplicate:
    return Duplicate(
        chunk_id=chunk.chunk_id,
        document_id=chunk.id.document_id,
        source_uri=cast("str", chunk.head[records.SOURCE_URI]),
        title=cast("str", chunk.head.get(records.TITLE, "")),
        span=chunk.span,
    )
