"""Which candidates may stand in one answer, so that no document appears in two states.

A revision of a document is complete while its head (the chunk of ordinal 0) is in the store: heads
are written last and deleted first, and older revisions go only after a newer head is there. Of each
document the newest complete revision among the candidates is kept, and what is said of its version
and metadata comes from its one head, for the chunks of a revision may be updated one after the
other.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from common import records
from common.errors import InvalidArgument
from common.identity import ChunkId, chunk_id, parse_chunk_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from common.records import MetadataValue
    from query.chunks import ChunkSource
    from query.index_version import IndexVersion

logger = logging.getLogger(__name__)

# Ranks looked at in the first reading; each further reading takes twice as many.
MIN_WINDOW: Final = 16


@dataclass(frozen=True, slots=True)
class Selected:
    """A candidate that may stand in the answer.

    Attributes:
        index: its place among the candidates.
        id: the parts of its id.
        chunk: its own metadata, of which only place and page are of use.
        head: metadata of its revision's head: what to say of the document.
    """

    index: int
    id: ChunkId
    chunk: Mapping[str, MetadataValue]
    head: Mapping[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class Selection:
    """What may stand in the answer, best first.

    Attributes:
        selected: at most as many as asked for.
        moved: a document looked at has no complete revision among the candidates, or lost a chunk
            of it: its revision was replaced after the retrieval, and retrieving again finds the
            new one, or it is not written to its end yet.
    """

    selected: list[Selected]
    moved: bool


async def select(
    source: ChunkSource,
    version: IndexVersion,
    candidates: Sequence[str],
    order: Sequence[int],
    count: int,
) -> Selection:
    """Walk down the ranks until ``count`` candidates may stand in one answer.

    Args:
        source: the store's present state.
        version: the one the candidates are of.
        candidates: chunk ids.
        order: indices of candidates, best first.
        count: how many are wanted.
    """
    ids = _parse(candidates)
    revisions: dict[str, set[str]] = {}
    for parsed in ids.values():
        revisions.setdefault(parsed.document_id, set()).add(parsed.revision)
    heads: dict[str, Mapping[str, MetadataValue] | None] = {}
    selected: list[Selected] = []
    moved = False
    ranks = [index for index in order if index in ids]
    start, size = 0, max(count, MIN_WINDOW)
    while start < len(ranks) and len(selected) < count:
        window = ranks[start : start + size]
        start, size = start + size, size * 2
        unknown = {ids[index].document_id for index in window} - heads.keys()
        asked = [candidates[index] for index in window]
        asked += [chunk_id(doc, revision, 0) for doc in unknown for revision in revisions[doc]]
        stored = await source.stored(version, list(dict.fromkeys(asked)))
        for document in unknown:
            heads[document] = _newest(document, revisions[document], stored)
        for index in window:
            if len(selected) == count:
                break
            parsed, chunk = ids[index], stored.get(candidates[index])
            head = heads[parsed.document_id]
            if head is None:
                moved = True
            elif head[records.REVISION] == parsed.revision:
                if chunk is None:
                    moved = True
                else:
                    selected.append(Selected(index, parsed, chunk, head))
    return Selection(selected, moved)


def _newest(
    document: str, revisions: set[str], stored: Mapping[str, Mapping[str, MetadataValue]]
) -> Mapping[str, MetadataValue] | None:
    """The head of the newest complete revision; None if none is complete."""
    complete = [
        head
        for revision in revisions
        if (head := stored.get(chunk_id(document, revision, 0))) is not None
    ]
    # Of two revisions of one version either would do, but it must always be the same one.
    return max(
        complete, key=lambda head: (head[records.VERSION], head[records.REVISION]), default=None
    )


def _parse(candidates: Sequence[str]) -> dict[int, ChunkId]:
    """Ids by index; what bears no chunk id was not written by Sluice and is left aside."""
    ids: dict[int, ChunkId] = {}
    for index, text in enumerate(candidates):
        with suppress(InvalidArgument):
            ids[index] = parse_chunk_id(text)
    if foreign := len(candidates) - len(ids):
        # Their ids are somebody else's, and may be anything.
        logger.warning("the store holds records that are no chunks", extra={"records": foreign})
    return ids
