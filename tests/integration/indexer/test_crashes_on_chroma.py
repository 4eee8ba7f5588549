"""I1 and I2 on Chroma itself: a crash at every store call, then a replay."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from common.errors import Unavailable
from indexer.reconcile import complete_heads
from indexer.store import ChromaVectorStore
from tests.unit.indexer.corpus import document, id_of, index, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore

if TYPE_CHECKING:
    from common.chroma import Chroma, ChromaCollection

BEFORE = [
    document("written", 1, sentences(5, "old")),
    document("moved", 1, sentences(3, "same"), metadata={"gone": 1.5}),
]
AFTER = [
    document("written", 2, sentences(3, "new")),
    document("moved", 2, sentences(3, "same"), metadata={"tags": ["a", "b"]}),
]


async def content(collection: ChromaCollection) -> dict[str, object]:
    found = await collection.get(include=("metadatas", "documents", "embeddings"))
    assert found.documents is not None
    assert found.metadatas is not None
    assert found.embeddings is not None
    return {
        id_: (text, metadata, vector)
        for id_, text, metadata, vector in zip(
            found.ids, found.documents, found.metadatas, found.embeddings.tolist(), strict=True
        )
    }


@pytest.mark.parametrize("moment", ["before", "half", "after"])
async def test_i1_and_i2_hold_after_a_crash_at_any_call(chroma: Chroma, moment: str) -> None:
    rule = pipeline()
    clean = await chroma.create_collection("default.clean.v000001")
    await index(rule, ChromaVectorStore(clean), AFTER)
    faulty = FaultyStore(ChromaVectorStore(clean))
    for call in itertools.count(1):
        collection = await chroma.create_collection(f"default.docs.v{call:06d}")
        store = ChromaVectorStore(collection)
        await index(rule, store, BEFORE)
        faulty = FaultyStore(store, fail_at=call, moment=moment)
        try:
            await index(rule, faulty, AFTER)
        except Unavailable:
            assert faulty.failed
        else:
            break
        held = await store.held([id_of("written"), id_of("moved")])
        assert all(complete_heads(chunks) for chunks in held.values())
        assert len(held) == 2
        await index(rule, store, AFTER)
        assert await content(collection) == await content(clean)
    assert faulty.calls == ["held", "move", "write", "delete"]
    await rule.aclose()
