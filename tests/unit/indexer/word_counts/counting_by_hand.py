"""Counts of words made by hand, and what a recount gives: no ledger, no library."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from rerank_zig import WordCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from common.word_table import WordTable


def counts(chunks: Iterable[Sequence[int]], *, title_words: int = 1) -> WordCounts:
    """Counts of chunks of which each is the hashes of its words."""
    listed = [list(chunk) for chunk in chunks]
    unique = [sorted(set(chunk)) for chunk in listed]
    return WordCounts(
        hashes=np.array([word for chunk in unique for word in chunk], np.uint32),
        offsets=np.array([0, *np.cumsum([len(chunk) for chunk in unique])], np.uint32),
        text_words=np.array([len(chunk) for chunk in listed], np.uint32),
        title_words=np.full(len(listed), title_words, np.uint32),
    )


def recount(chunks: Mapping[str, Sequence[int]], *, title_words: int = 1) -> dict[str, object]:
    """What a table must say of these chunks."""
    frequencies = Counter(word for chunk in chunks.values() for word in set(chunk))
    return {
        "chunks": len(chunks),
        "text_words": sum(map(len, chunks.values())),
        "title_words": title_words * len(chunks),
        "terms": dict(sorted(frequencies.items())),
    }


def said(table: WordTable) -> dict[str, object]:
    """What a table says, in the form of `recount`."""
    terms = zip(table.hashes.tolist(), table.frequencies.tolist(), strict=True)
    return {
        "chunks": table.chunks,
        "text_words": table.text_words,
        "title_words": table.title_words,
        "terms": dict(terms),
    }
