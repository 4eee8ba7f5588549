"""Where the table of an index version's words is kept: in parts, in a Chroma collection beside it.

A part is a record without a text (Chroma makes texts searchable, which takes ten times as long)
whose vector means nothing. A table's name is used once, so that a part never changes: readers of
one table and the writer of the next never meet. Which table counts, the coordinator says.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import numpy as np

from common.errors import NotFound
from common.word_table import UnreadableTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.chroma import Chroma

MAX_PART_BYTES: Final = 2**20
_PART: Final = "part"
_READ_AT_ONCE: Final = 4
# What a record holds beside its part, generously; base64 makes 4 bytes of 3.
_ENVELOPE_BYTES: Final = 2**12


def words_collection(store_collection: str) -> str:
    """Name of the collection that keeps the tables of a version: at most 222 characters."""
    return f"{store_collection}.words"


class WordParts:
    """Parts of tables, by the name of the version's own collection."""

    def __init__(self, chroma: Chroma) -> None:
        self._chroma = chroma

    async def write(self, store_collection: str, table: str, blob: bytes) -> int:
        """Write a table that is not there; how many parts it has. Durable on return."""
        room = (self._chroma.max_request_bytes - _ENVELOPE_BYTES) * 3 // 4
        size = min(MAX_PART_BYTES, room)
        parts = [blob[start : start + size] for start in range(0, len(blob), size)]
        if parts:
            collection = await self._chroma.create_collection(words_collection(store_collection))
            await collection.upsert(
                ids=[_id(table, index) for index in range(len(parts))],
                embeddings=np.ones((len(parts), 1), np.float32),
                documents=None,
                metadatas=[{_PART: base64.b64encode(part).decode()} for part in parts],
            )
        return len(parts)

    async def read(self, store_collection: str, table: str, parts: int, *, max_bytes: int) -> bytes:
        """All parts of a table joined.

        Raises:
            UnreadableTable: one is missing, no part, or they have more bytes than that.
        """
        if not parts:
            return b""
        joined = bytearray()
        try:
            collection = await self._chroma.collection(words_collection(store_collection))
            for start in range(0, parts, _READ_AT_ONCE):
                ids = [_id(table, part) for part in range(start, min(start + _READ_AT_ONCE, parts))]
                found = await collection.get(ids=ids)
                by_id = dict(zip(found.ids, found.metadatas or (), strict=True))
                for id_ in ids:
                    joined += base64.b64decode(str(by_id[id_][_PART]), validate=True)
                if len(joined) > max_bytes:
                    raise UnreadableTable(f"the table of words exceeds {max_bytes} bytes")
        except (NotFound, KeyError, binascii.Error):
            raise UnreadableTable("parts of the table of words are missing or damaged") from None
        return bytes(joined)

    async def ids(self, store_collection: str) -> list[str]:
        """Ids of all parts of all tables."""
        try:
            collection = await self._chroma.collection(words_collection(store_collection))
        except NotFound:
            return []
        return (await collection.get(include=())).ids

    async def delete(self, store_collection: str, part_ids: Sequence[str]) -> None:
        """Delete parts; those that are not there are fine."""
        if not part_ids:
            return
        try:
            collection = await self._chroma.collection(words_collection(store_collection))
            await collection.delete(part_ids)
        except NotFound:
            return

    async def drop(self, store_collection: str) -> None:
        """Delete all tables of a version; none is fine."""
        await self._chroma.delete_collection(words_collection(store_collection))


def belongs_to(part_id: str, table: str) -> bool:
    """Whether a part is one of this table."""
    return part_id.startswith(f"{table}:")


def _id(table: str, index: int) -> str:
    return f"{table}:{index}"
