"""One document of each fault, left as a crash leaves it, and the record of their version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from common.coordination import ChunkingSpec, Pointer, VersionRecord, VersionState
from common.errors import Unavailable
from indexer.faults import Fault, FaultKind
from tests.unit.indexer.corpus import EMBEDDER, document, id_of, index, sentences
from tests.unit.indexer.stores import FaultyStore

if TYPE_CHECKING:
    from common.embedding import EmbedderSpec
    from indexer.pipeline import IndexPipeline
    from indexer.store import VectorStore

BOX = "file:///box"
WHOLE = ("first", "last")


def record(number: int = 2, embedder: EmbedderSpec = EMBEDDER.spec) -> VersionRecord:
    return VersionRecord(
        tenant="default",
        collection="docs",
        number=number,
        state=VersionState.READY,
        embedder=embedder,
        chunking=ChunkingSpec("sentence", 8, 2),
        documents=None,
        chunks=None,
        created_at=datetime.now(UTC),
        activated_at=None,
    )


def pointer(version: int = 1, embedder: EmbedderSpec = EMBEDDER.spec) -> Pointer:
    return Pointer("default", "docs", version, 1, embedder, datetime.now(UTC), 0)


def fault(name: str, kind: FaultKind, surplus: int = 0, container: str = "") -> Fault:
    return Fault(id_of(name), f"file:///{name}", container, kind, surplus)


# What ``write`` leaves, by what made it.
FAULTS = {
    "beheaded": fault("beheaded", FaultKind.INCOMPLETE, 2),
    "holed": fault("holed", FaultKind.INCOMPLETE, container=BOX),
    "unfinished": fault("unfinished", FaultKind.SURPLUS, 2),
    "left over": fault("left over", FaultKind.SURPLUS, 3),
    "half moved": fault("half moved", FaultKind.DIVERGED),
}
SENT_AGAIN = {fault for fault in FAULTS.values() if fault.sent_again}
SURPLUS_CHUNKS = sum(fault.surplus_chunks for fault in FAULTS.values())


async def write(rule: IndexPipeline, store: VectorStore) -> None:
    """Two whole documents of 2 chunks each, and one of 3 chunks of each fault between them."""
    await index(rule, store, [document("first", 1, sentences(2, "first"))])
    await index(
        rule,
        store,
        [
            document(name, 1, sentences(3, name), container=BOX if name == "holed" else "")
            for name in FAULTS
        ],
    )
    beheaded, holed = [sorted(await store.ids_of([id_of(name)])) for name in ("beheaded", "holed")]
    await store.delete([beheaded[0], holed[2]])
    await _crash(rule, store, "unfinished", sentences(4, "new"), at=2, moment="half")
    await _crash(rule, store, "left over", sentences(2, "new"), at=3, moment="before")
    await _crash(rule, store, "half moved", sentences(3, "half moved"), at=2, moment="half")
    await index(rule, store, [document("last", 1, sentences(2, "last"))])


async def _crash(
    rule: IndexPipeline, store: VectorStore, name: str, text: str, *, at: int, moment: str
) -> None:
    """Begin to index the next version of a document, and fail at a call to the store."""
    with pytest.raises(Unavailable):
        await index(rule, FaultyStore(store, fail_at=at, moment=moment), [document(name, 2, text)])
