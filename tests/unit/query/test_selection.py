"""The walk down the ranks: what may be answered, how far it looks, what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from common import records
from common.identity import chunk_id
from query.chunks import ChunkCache, ChunkReader, ChunkText, StoredChunk
from query.duplicates import RESEMBLANCE
from query.selection import LOOK_AHEAD, MIN_WINDOW, Diversity, select
from rerank_zig import RerankLibrary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from common.records import MetadataValue
    from query.index_version import IndexVersion
    from query.selection import Selection

VERSION = cast("IndexVersion", None)  # the source below holds one only
OLD, NEW = "0" * 16, "1" * 16


def name(document: int, ordinal: int = 0, revision: str = NEW) -> str:
    return chunk_id(f"{document:032x}", revision, ordinal)


class Chunks:
    """A ChunkSource in memory that remembers what it was asked for."""

    def __init__(self) -> None:
        self.metadata: dict[str, Mapping[str, MetadataValue]] = {}
        self.bodies: dict[str, str] = {}
        self.asked: list[Sequence[str]] = []
        self.read: list[str] = []

    def add(self, document: int, *texts: str, revision: str = NEW, version: int = 1) -> None:
        for ordinal, text in enumerate(texts):
            self.bodies[name(document, ordinal, revision)] = text
            self.metadata[name(document, ordinal, revision)] = {
                records.SOURCE_URI: f"file:///{document}",
                records.REVISION: revision,
                records.VERSION: version,
                records.START: 100 * ordinal,
                records.END: 100 * ordinal + len(text),
            }

    async def stored(
        self, _version: IndexVersion, ids: Sequence[str], *, texts: bool
    ) -> dict[str, StoredChunk]:
        self.asked.append(ids)
        if texts:
            self.read += ids
        return {
            one: StoredChunk(self.metadata[one], self._text(one) if texts else None)
            for one in ids
            if one in self.metadata
        }

    def _text(self, one: str) -> ChunkText | None:
        return ChunkText(b"", self.bodies[one].encode()) if one in self.bodies else None


async def selected(
    chunks: Chunks, candidates: Sequence[str], count: int = 3, **diversity: Any
) -> Selection:
    library = RerankLibrary.load()

    async def group(texts: Sequence[bytes]) -> NDArray[np.int32]:
        return library.group_duplicates(texts, RESEMBLANCE)

    return await select(
        ChunkReader(chunks, ChunkCache(2**20)),
        VERSION,
        candidates,
        range(len(candidates)),
        count,
        Diversity(**diversity),
        group,
    )


def ids(selection: Selection) -> list[str]:
    return [passage.chunk_id for passage in selection.selected]


def numbered(chunks: Chunks, count: int, text: str = "Text {}.") -> list[str]:
    for document in range(count):
        chunks.add(document, text.format(document))
    return [name(document) for document in range(count)]


async def test_a_walk_reads_one_window_where_that_is_enough():
    chunks = Chunks()
    candidates = numbered(chunks, 200)
    selection = await selected(chunks, candidates, count=10)
    assert ids(selection) == candidates[:10]
    assert not selection.moved
    [asked] = chunks.asked
    assert list(asked) == candidates[: 10 + LOOK_AHEAD]
    assert chunks.read == candidates[: 10 + LOOK_AHEAD]


async def test_a_window_has_a_least_size():
    chunks = Chunks()
    candidates = numbered(chunks, 200)
    await selected(chunks, candidates, count=1)
    assert chunks.read == candidates[:MIN_WINDOW]


async def test_duplicates_make_the_walk_go_on_and_are_listed():
    chunks = Chunks()
    candidates = numbered(chunks, 40, "The same text everywhere.")
    chunks.add(40, "Another text.")
    selection = await selected(chunks, [*candidates, name(40)], count=2)
    assert ids(selection) == [name(0), name(40)]
    first, second = selection.selected
    assert [copy.chunk_id for copy in first.duplicates] == candidates[1:]
    assert first.duplicates[-1].source_uri == "file:///39"
    assert second.duplicates == ()
    assert len(chunks.asked) == 2
    assert len(chunks.read) == 41


async def test_kept_duplicates_stand_for_themselves():
    chunks = Chunks()
    candidates = numbered(chunks, 4, "The same text everywhere.")
    selection = await selected(chunks, candidates, keep_duplicates=True)
    assert ids(selection) == candidates[:3]
    assert not any(passage.duplicates for passage in selection.selected)


async def test_a_walk_ends_with_the_candidates():
    chunks = Chunks()
    candidates = numbered(chunks, 500, "The same text everywhere.")
    selection = await selected(chunks, candidates, count=5)
    assert ids(selection) == [name(0)]
    assert len(selection.selected[0].duplicates) == 100
    assert sum(map(len, chunks.asked)) == 500
    assert (await selected(chunks, [])).selected == []


async def test_what_is_listed_may_be_answered_too():
    chunks = Chunks()
    text = "The same text everywhere."
    chunks.add(0, text)
    chunks.add(1, "A head.", text, revision=OLD, version=1)
    chunks.add(1, "A head, newer.", text, revision=NEW, version=2)
    chunks.add(2, "A head.", text)
    del chunks.metadata[name(2, 0)]  # no complete revision
    chunks.add(3, "A head.", text)
    del chunks.metadata[name(3, 1)]  # the chunk went
    found = [name(0), name(1, 1, OLD), name(1, 1), name(2, 1), name(3, 1)]
    selection = await selected(chunks, found)
    assert ids(selection) == [name(0)]
    assert [copy.chunk_id for copy in selection.selected[0].duplicates] == [name(1, 1)]
    assert selection.moved


@pytest.mark.parametrize("gone", ["head", "chunk", "text"])
async def test_what_moved_matters_before_the_last_place_only(gone: str):
    chunks = Chunks()
    candidates = numbered(chunks, 3)
    chunks.add(3, "A head.", "Text of a chunk.")
    match gone:
        case "head":
            del chunks.metadata[name(3, 0)]
        case "chunk":
            del chunks.metadata[name(3, 1)]
        case _:
            del chunks.bodies[name(3, 1)]
    within = await selected(chunks, [*candidates[:2], name(3, 1), candidates[2]], count=3)
    assert (ids(within), within.moved) == (candidates, True)
    beyond = await selected(chunks, [*candidates, name(3, 1)], count=3)
    assert (ids(beyond), beyond.moved) == (candidates, False)


async def test_the_order_is_that_of_the_ranks():
    chunks = Chunks()
    candidates = numbered(chunks, 3)
    library = RerankLibrary.load()

    async def group(texts: Sequence[bytes]) -> NDArray[np.int32]:
        return library.group_duplicates(texts, RESEMBLANCE)

    reader = ChunkReader(chunks, ChunkCache(0))
    selection = await select(reader, VERSION, candidates, [2, 0, 1], 2, Diversity(), group)
    assert [passage.index for passage in selection.selected] == [2, 0]
    assert ids(selection) == [candidates[2], candidates[0]]


async def test_shares_and_merging_reach_over_windows():
    chunks = Chunks()
    chunks.add(0, *(f"{chr(97 + n % 26) * (1 + n // 26)} part.".ljust(99) for n in range(60)))
    chunks.add(1, "Another text.")
    candidates = [*(name(0, n) for n in range(60)), name(1)]
    selection = await selected(
        chunks, candidates, count=2, max_per_document=1, merge_neighbours=True
    )
    assert [len(passage.merged) for passage in selection.selected] == [60, 0]
    assert selection.selected[0].span == (0, 5999)
    selection = await selected(chunks, candidates, count=2, max_per_document=1)
    assert ids(selection) == [name(0), name(1)]
