"""What words texts hold, as the indexer counts them and the query server weighs them.

Terms stand as hashes of 32 bits, as include/sluice_rerank.h defines them. It must never cut a text
into words itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ANALYSIS: Final = 1
"""Version of the rules by which texts are cut into words. Counts and statistics made under one
version do not fit another."""


@dataclass(frozen=True, slots=True, eq=False)
class WordCounts:
    """The words of n chunks.

    Args:
        hashes: of the terms of each chunk, title and text together, each once and ascending within
            the chunk: those of chunk i are ``hashes[offsets[i]:offsets[i + 1]]``.
        offsets: shape (n + 1,).
        text_words: shape (n,): how many words each text has, stop words too.
        title_words: shape (n,): likewise of each title.
    """

    hashes: NDArray[np.uint32]
    offsets: NDArray[np.uint32]
    text_words: NDArray[np.uint32]
    title_words: NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class WordStatistics:
    """What is known of the words of a whole collection.

    Args:
        chunks: how many chunks were counted, at least 1.
        text_words: words of all their texts together.
        title_words: words of all their titles together.
        hashes: shape (m,), of terms, ascending, each once.
        frequencies: shape (m,): how many chunks hold the term; none is above ``chunks``.
    """

    chunks: int
    text_words: int
    title_words: int
    hashes: NDArray[np.uint32]
    frequencies: NDArray[np.uint32]
