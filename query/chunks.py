"""Texts of chunks: an id means the same text and title for ever, so they are kept once read.

Only these are cached. Whether a chunk still belongs to the index, and what its metadata say now,
is always read from the store.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from common.records import MetadataValue
    from query.index_version import IndexVersion

# What an entry costs beyond its bytes: the id, four objects' headers and the table's slots.
ENTRY_BYTES: Final = 400


class ChunkText(NamedTuple):
    """What words are looked for in: UTF-8, the title that of the chunk's document."""

    title: bytes
    text: bytes


class StoredChunk(NamedTuple):
    """A chunk as the store has it now: metadata in the layout of `common.records`, and its text."""

    metadata: Mapping[str, MetadataValue]
    text: ChunkText | None


class ChunkSource(Protocol):
    """Reads chunks of an index version by id."""

    async def stored(
        self, version: IndexVersion, ids: Sequence[str], *, texts: bool
    ) -> dict[str, StoredChunk]:
        """Chunks as of one moment; ids that are not there are left out.

        Args:
            version: the one to read.
            ids: different chunk ids.
            texts: whether texts are wanted too.

        Raises:
            NotFound: the version is no longer there.
            Unavailable: the store does not answer.
        """
        ...


class ChunkCache:
    """Texts by chunk id, the least recently used going first.

    Args:
        max_bytes: bound of all entries together, ``ENTRY_BYTES`` for each included.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._texts: OrderedDict[str, ChunkText] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, chunk_id: str) -> ChunkText | None:
        """The text, which becomes the most recently used; None if it is not here."""
        text = self._texts.get(chunk_id)
        if text is not None:
            self._texts.move_to_end(chunk_id)
        return text

    def put(self, chunk_id: str, text: ChunkText) -> None:
        """Keep a text; one greater than the whole bound is not kept."""
        cost = _cost(text)
        if chunk_id in self._texts or cost > self._max_bytes:
            return
        self._texts[chunk_id] = text
        self.bytes += cost
        while self.bytes > self._max_bytes:
            _, oldest = self._texts.popitem(last=False)
            self.bytes -= _cost(oldest)


def _cost(text: ChunkText) -> int:
    return len(text.title) + len(text.text) + ENTRY_BYTES


class ChunkReader:
    """Reads chunks, and their texts through a cache."""

    def __init__(self, source: ChunkSource, cache: ChunkCache) -> None:
        self._source = source
        self._cache = cache

    async def texts(self, version: IndexVersion, ids: Sequence[str]) -> dict[str, ChunkText]:
        """Titles and texts by id; ids neither kept nor in the store are left out.

        Raises:
            NotFound: the version is no longer there.
            Unavailable: the store does not answer.
        """
        kept = self._kept(ids)
        missing = [chunk_id for chunk_id in ids if chunk_id not in kept]
        if not missing:
            return kept
        return kept | self._keep(await self._source.stored(version, missing, texts=True))

    async def stored(
        self, version: IndexVersion, ids: Sequence[str], shown: Sequence[str]
    ) -> dict[str, StoredChunk]:
        """Chunks as they are now, in one call, those of ``shown`` with their texts.

        Raises:
            NotFound, Unavailable: as ``texts``.
        """
        kept = self._kept(shown)
        stored = await self._source.stored(version, ids, texts=len(kept) < len(shown))
        self._keep(stored)
        return stored | {
            chunk_id: StoredChunk(stored[chunk_id].metadata, text)
            for chunk_id, text in kept.items()
            if chunk_id in stored
        }

    def _kept(self, ids: Sequence[str]) -> dict[str, ChunkText]:
        found = ((chunk_id, self._cache.get(chunk_id)) for chunk_id in ids)
        return {chunk_id: text for chunk_id, text in found if text is not None}

    def _keep(self, stored: Mapping[str, StoredChunk]) -> dict[str, ChunkText]:
        texts = {
            chunk_id: chunk.text for chunk_id, chunk in stored.items() if chunk.text is not None
        }
        for chunk_id, text in texts.items():
            self._cache.put(chunk_id, text)
        return texts
