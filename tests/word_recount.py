"""What a recount of an index version's words gives, and what is published of them.

A recount knows no ledger and no table: it reads every chunk of the store, has each counted by
itself, and adds up.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from common.coordination import StatisticsRegistry
from common.identity import store_collection
from common.word_parts import WordParts
from common.word_table import decode
from rerank_zig import RerankLibrary

if TYPE_CHECKING:
    from common.chroma import Chroma
    from common.coordination import Coordinator

MAX_BYTES = 2**28


async def recounted(chroma: Chroma, number: int, collection: str = "docs") -> dict[str, Any]:
    """Chunks, words and frequencies by term of what the store holds now."""
    store = await chroma.collection(store_collection("default", collection, number))
    held = await store.get(include=("documents", "metadatas"))
    library = RerankLibrary.load()
    frequencies: Counter[int] = Counter()
    text_words = title_words = 0
    for text, metadata in zip(held.documents or (), held.metadatas or (), strict=True):
        counts = library.count_words([str(metadata["title"]).encode()], [text.encode()])
        frequencies.update(set(counts.hashes.tolist()))
        text_words += int(counts.text_words[0])
        title_words += int(counts.title_words[0])
    return {
        "chunks": len(held.ids),
        "text_words": text_words,
        "title_words": title_words,
        "terms": dict(sorted(frequencies.items())),
    }


async def published(
    chroma: Chroma, coordinator: Coordinator, number: int, collection: str = "docs"
) -> dict[str, Any] | None:
    """The same as it is published; None if nothing is. What is published must be readable."""
    seen = await StatisticsRegistry(coordinator).see("default", collection, number)
    if seen is None or seen.published is None:
        return None
    record = seen.published
    blob = await WordParts(chroma).read(
        store_collection("default", collection, number),
        record.table,
        record.parts,
        max_bytes=MAX_BYTES,
    )
    assert hashlib.sha256(blob).hexdigest() == record.digest
    terms: dict[int, int] = {}
    if record.chunks:
        table = decode(blob, max_terms=record.terms)
        assert len(table.hashes) == record.terms
        assert (table.chunks, table.text_words, table.title_words, table.analysis) == (
            record.chunks,
            record.text_words,
            record.title_words,
            record.analysis,
        )
        terms = dict(zip(table.hashes.tolist(), table.frequencies.tolist(), strict=True))
    return {
        "chunks": record.chunks,
        "text_words": record.text_words,
        "title_words": record.title_words,
        "terms": terms,
    }
