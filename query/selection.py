"""Which candidates may stand in one answer, so that no document appears in two states.

A revision of a document is complete while its head (the chunk of ordinal 0) is in the store: heads
are written last and deleted first, and older revisions go only after a newer head is there. Of each
document the newest complete revision among the candidates is kept, and what is said of its version
and metadata comes from its one head, for the chunks of a revision may be updated one after the
other. What is listed as a duplicate obeys the same rules as what stands.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from common import records
from common.errors import InvalidArgument
from common.identity import chunk_id, parse_chunk_id
from query.duplicates import TextGroups
from query.passages import Arrangement, Located

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from common.identity import ChunkId
    from common.records import MetadataValue
    from query.chunks import ChunkReader, StoredChunk
    from query.duplicates import Group
    from query.index_version import IndexVersion
    from query.passages import Passage

logger = logging.getLogger(__name__)

# Ranks looked at in the first reading; each further reading takes twice as many.
MIN_WINDOW: Final = 16
# Ranks looked at beyond those wanted, for duplicates and neighbours of the last ones.
LOOK_AHEAD: Final = 8


@dataclass(frozen=True, slots=True)
class Diversity:
    """How far the hits of one answer must differ.

    Attributes:
        max_per_document: passages of one document, at most; 0 means any number.
        keep_duplicates: whether a text that nearly repeats a better one stands beside it.
        merge_neighbours: whether chunks that follow each other in a document become one passage.
    """

    max_per_document: int = 0
    keep_duplicates: bool = False
    merge_neighbours: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What may stand in the answer, best first.

    Attributes:
        selected: at most as many as asked for.
        moved: a document looked at has no complete revision among the candidates, or lost a chunk
            of it: its revision was replaced after the retrieval, and retrieving again finds the
            new one, or it is not written to its end yet.
    """

    selected: list[Passage]
    moved: bool


async def select(
    reader: ChunkReader,
    version: IndexVersion,
    candidates: Sequence[str],
    order: Sequence[int],
    count: int,
    diversity: Diversity,
    group: Group,
) -> Selection:
    """Walk down the ranks until ``count`` passages stand in one answer.

    Duplicates of them are listed as far as the walk looked.

    Args:
        reader: the store's present state and the candidates' texts; only those of ranks looked at
            are read.
        version: the one the candidates are of.
        candidates: chunk ids.
        order: indices of candidates, best first.
        count: how many are wanted.
        diversity: how far they must differ.
        group: finds texts that nearly repeat each other.
    """
    lookout = _Lookout(reader, version, candidates)
    groups = TextGroups(group)
    arrangement = Arrangement(
        count,
        max_per_document=diversity.max_per_document,
        merge_neighbours=diversity.merge_neighbours,
    )
    moved = False
    ranks = list(enumerate(order))
    start, size = 0, max(count + LOOK_AHEAD, MIN_WINDOW)
    while start < len(ranks) and not arrangement.is_full:
        looked_at = await lookout.look(ranks[start : start + size])
        start, size = start + size, size * 2
        texts = {chunk.index: chunk.text for chunk in looked_at if chunk}
        leaders = dict(zip(texts, texts, strict=True))
        if not diversity.keep_duplicates:
            leaders = await groups.leaders(texts)
        arrangement.expect((chunk, leaders[chunk.index]) for chunk in looked_at if chunk)
        for chunk in looked_at:
            if chunk:
                arrangement.take(chunk, leaders[chunk.index])
            elif not arrangement.is_full:
                moved = True
    return Selection(arrangement.passages(), moved)


class _Place(NamedTuple):
    """A candidate of a window: rank, place among the candidates, id whole and in parts."""

    rank: int
    candidate: int
    name: str
    id: ChunkId


class _Lookout:
    """Looks up which of the candidates may be answered, window by window."""

    def __init__(
        self,
        reader: ChunkReader,
        version: IndexVersion,
        candidates: Sequence[str],
    ) -> None:
        self._reader = reader
        self._version = version
        self._candidates = candidates
        self._heads: dict[str, Mapping[str, MetadataValue] | None] = {}

    async def look(self, window: Sequence[tuple[int, int]]) -> list[Located | None]:
        """Of each rank and index what may be answered; None for what moved, nothing for the old."""
        places = [
            _Place(rank, index, self._candidates[index], parsed)
            for rank, index in window
            if (parsed := _parse(self._candidates[index])) is not None
        ]
        if foreign := len(window) - len(places):
            # Their ids are somebody else's, and may be anything.
            logger.warning("the store holds records that are no chunks", extra={"records": foreign})
        stored = await self._stored(places) if places else {}
        heads = self._heads
        current = [
            (place, head)
            for place in places
            if (head := heads[place.id.document_id]) is None
            or head[records.REVISION] == place.id.revision
        ]
        looked_at: list[Located | None] = []
        for (rank, index, name, parsed), head in current:
            chunk = stored.get(name)
            looked_at.append(
                None
                if head is None or chunk is None or chunk.text is None
                else Located(rank, index, parsed, name, chunk.metadata, head, chunk.text.text)
            )
        return looked_at

    async def _stored(self, window: Sequence[_Place]) -> Mapping[str, StoredChunk]:
        """Read the window, and heads of documents that were not met before, in one call."""
        unknown = self._revisions(window)
        shown = [place.name for place in window]
        heads = [
            chunk_id(document, revision, 0)
            for document, revisions in unknown.items()
            for revision in revisions
        ]
        stored = await self._reader.stored(
            self._version, list(dict.fromkeys([*shown, *heads])), shown
        )
        for document, revisions in unknown.items():
            self._heads[document] = _newest(document, revisions, stored)
        return stored

    def _revisions(self, window: Sequence[_Place]) -> dict[str, set[str]]:
        """Of each document not met before, those that are among the candidates."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        known = set()
        for place in window:
            if place.id.document_id not in self._heads:
                found[place.id.document_id].add(place.id.revision)
                known.add(place.name)
        for name in self._candidates:
            # Few ids are of these documents; only those are taken apart.
            if name.partition(":")[0] in found and name not in known:
                parsed = _parse(name)
                if parsed is not None:
                    found[parsed.document_id].add(parsed.revision)
        return found


def _newest(
    document: str, revisions: set[str], stored: Mapping[str, StoredChunk]
) -> Mapping[str, MetadataValue] | None:
    """The head of the newest complete revision; None if none is complete."""
    complete = [
        head.metadata
        for revision in revisions
        if (head := stored.get(chunk_id(document, revision, 0))) is not None
    ]
    # Of two revisions of one version either would do, but it must always be the same one.
    return max(
        complete, key=lambda head: (head[records.VERSION], head[records.REVISION]), default=None
    )


def _parse(name: str) -> ChunkId | None:
    """The parts of an id; None for one that bears no chunk id, which Sluice did not write."""
    try:
        return parse_chunk_id(name)
    except InvalidArgument:
        return None
