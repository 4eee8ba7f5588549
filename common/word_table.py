"""A table of how often words occur in an index version, as bytes that both services read alike.

Layout, little-endian: a header (magic ``SLWT``, layout, analysis, chunks, words of all texts and of
all titles, number of terms), then, compressed by zlib, the term hashes as differences from the one
before and the frequencies, both as u32 with all lowest bytes first, then all second bytes, and so
on: differences and frequencies are small, so the upper planes are nearly all zero. The same table
gives the same bytes. Nothing here reads or writes a store.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from common.errors import SluiceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TERM_BYTES: Final = 8
"""What one term takes in memory: its hash and its frequency."""

_MAGIC: Final = b"SLWT"
_LAYOUT: Final = 1
_HEADER: Final = struct.Struct("<4sIIQQQQ")
_LEVEL: Final = 1  # a higher one takes twice the time for a twentieth of the bytes


class UnreadableTable(SluiceError):
    """Bytes are not the table that they should be."""


@dataclass(frozen=True, slots=True, eq=False)
class WordTable:
    """In how many chunks each term occurs, and what they were counted over.

    Attributes:
        analysis: rules by which texts were cut into words.
        chunks: counted over.
        text_words: words of all texts.
        title_words: words of all titles, of each chunk anew.
        hashes: shape (n,), u32, ascending, unique, none is 0.
        frequencies: shape (n,), u32: chunks that hold the term of this hash, at least 1.
    """

    analysis: int
    chunks: int
    text_words: int
    title_words: int
    hashes: NDArray[np.uint32]
    frequencies: NDArray[np.uint32]


def encode(table: WordTable) -> bytes:
    """The table as bytes."""
    head = _HEADER.pack(
        _MAGIC,
        _LAYOUT,
        table.analysis,
        table.chunks,
        table.text_words,
        table.title_words,
        len(table.hashes),
    )
    gaps = np.diff(table.hashes, prepend=np.uint32(0))
    body = _planes(gaps) + _planes(table.frequencies)
    return head + zlib.compress(body, _LEVEL)


def decode(blob: bytes, *, max_terms: int) -> WordTable:
    """The table that ``encode`` made bytes of; it takes no more memory than its terms.

    Raises:
        UnreadableTable: they are not whole, not a table, of another layout, or of more terms.
    """
    try:
        magic, layout, analysis, chunks, text_words, title_words, terms = _HEADER.unpack_from(blob)
    except struct.error:
        raise UnreadableTable("the table of words is cut short") from None
    if (magic, layout) != (_MAGIC, _LAYOUT):
        raise UnreadableTable("these are no table of words of this layout; count the words anew")
    if terms > max_terms:
        raise UnreadableTable(f"the table holds {terms} terms; at most {max_terms} were expected")
    hashes, frequencies = _columns(blob[_HEADER.size :], terms)
    return WordTable(analysis, chunks, text_words, title_words, hashes, frequencies)


def _columns(body: bytes, terms: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(body, terms * TERM_BYTES + 1)
    except zlib.error:
        raise UnreadableTable("the table of words is damaged; count the words anew") from None
    if len(plain) != terms * TERM_BYTES or not unpacking.eof or unpacking.unused_data:
        raise UnreadableTable("the table of words is not whole; count the words anew")
    gaps, frequencies = _values(plain[: len(plain) // 2]), _values(plain[len(plain) // 2 :])
    hashes = np.cumsum(gaps, dtype=np.uint64)
    if terms and (not gaps.all() or not frequencies.all() or hashes[-1] > np.iinfo(np.uint32).max):
        raise UnreadableTable("the table of words is not in order; count the words anew")
    return hashes.astype(np.uint32), frequencies


def _planes(values: NDArray[np.uint32]) -> bytes:
    return values.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()


def _values(planes: bytes) -> NDArray[np.uint32]:
    columns = np.frombuffer(planes, np.uint8).reshape(4, -1)
    return np.ascontiguousarray(columns.T).view("<u4").reshape(-1).astype(np.uint32, copy=False)
