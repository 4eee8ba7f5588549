"""Index versions in Chroma: candidates by vector and chunks by id, the one place that names it.

Reads only. A version's collection never changes its name and no name is used twice, so its handle
is kept.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from itertools import repeat
from typing import TYPE_CHECKING, Final

import numpy as np

from common import records
from query.candidates import Candidates
from query.chunks import ChunkText, StoredChunk
from query.where import to_where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from common.chroma import Chroma, ChromaCollection
    from common.records import MetadataValue
    from query.filter import Expression
    from query.index_version import IndexVersion

MAX_HANDLES: Final = 256


class ChromaIndex:
    """A CandidateSource and a ChunkSource over one Chroma store."""

    def __init__(self, chroma: Chroma) -> None:
        self._chroma = chroma
        self._handles: OrderedDict[str, ChromaCollection] = OrderedDict()

    async def candidates(
        self,
        version: IndexVersion,
        vector: NDArray[np.float32],
        count: int,
        matching: Expression | None,
    ) -> Candidates:
        """Ask for ids and cosine distances; a similarity is 1 minus its distance."""
        where = to_where(matching) if matching is not None else None
        collection = await self._collection(version)
        ids, distances = await collection.query(vector, n_results=count, where=where)
        similarities = np.clip(np.float32(1) - distances, -1, 1)
        if "\n" in "".join(ids):  # a record of another's: no id of ours has a line break
            ours = [index for index, chunk_id in enumerate(ids) if "\n" not in chunk_id]
            ids, similarities = [ids[index] for index in ours], similarities[ours]
        return Candidates(
            ids=ids,
            similarities=similarities,
            store_filter=json.dumps(where, ensure_ascii=False) if where else "",
        )

    async def stored(
        self, version: IndexVersion, ids: Sequence[str], *, texts: bool
    ) -> dict[str, StoredChunk]:
        """Read by id, all in one call."""
        collection = await self._collection(version)
        include = ("metadatas", "documents") if texts else ("metadatas",)
        found = await collection.get(ids=ids, include=include)
        # A record of another's may have no text and no metadata at all.
        return {
            chunk_id: StoredChunk(metadata or {}, _text(metadata or {}, text) if texts else None)
            for chunk_id, metadata, text in zip(
                found.ids,
                found.metadatas or (),
                found.documents or repeat(None, len(found.ids)),
                strict=True,
            )
        }

    async def _collection(self, version: IndexVersion) -> ChromaCollection:
        name = version.store_collection
        handle = self._handles.get(name)
        if handle is None:
            handle = await self._chroma.collection(name)
            self._handles[name] = handle
            if len(self._handles) > MAX_HANDLES:
                self._handles.popitem(last=False)
        else:
            self._handles.move_to_end(name)
        return handle


def _text(metadata: Mapping[str, MetadataValue], text: str | None) -> ChunkText:
    return ChunkText(str(metadata.get(records.TITLE, "")).encode(), (text or "").encode())
