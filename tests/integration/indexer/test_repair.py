"""A repair on Chroma: what crashes left is mended, also by a second repair after a failed one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from common.errors import Unavailable
from indexer.repair import Repaired, repair
from indexer.store import ChromaVectorStore
from indexer.target import Target
from indexer.verification import verify
from tests.unit.indexer.broken_documents import FAULTS, SENT_AGAIN, SURPLUS_CHUNKS, record, write
from tests.unit.indexer.corpus import document, index, pipeline, sentences
from tests.unit.indexer.stores import FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.chroma import Chroma
    from indexer.pipeline import IndexPipeline


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


async def opened(chroma: Chroma, number: int = 1) -> ChromaVectorStore:
    return ChromaVectorStore(await chroma.create_collection(f"default.docs.v{number:06d}"))


async def test_repaired_and_sent_again_a_version_passes(
    chroma: Chroma, rule: IndexPipeline
) -> None:
    store = await opened(chroma)
    await write(rule, store)
    repaired = await repair(rule, Target("store", store))
    assert repaired.deleted_chunks == SURPLUS_CHUNKS
    assert set(repaired.incomplete) == SENT_AGAIN
    assert repaired.incomplete_documents == len(SENT_AGAIN)
    left = await verify(store, record())
    assert set(left.faults) == {FAULTS["holed"], FAULTS["half moved"]}
    for fault in repaired.incomplete:
        name = fault.source_uri.removeprefix("file:///")
        again = document(name, 3, sentences(3, name), container=fault.container_uri)
        await index(rule, store, [again])
    found = await verify(store, record(), expected_documents=7)
    assert found.verdict.passed
    assert (found.documents, found.faults) == (7, ())
    assert await repair(rule, Target("store", store)) == Repaired(0, (), 0)
    assert (await verify(store, record())).chunks == found.chunks


@pytest.mark.parametrize("moment", ["before", "half", "after"])
async def test_a_repair_that_fails_anywhere_is_finished_by_the_next(
    chroma: Chroma, rule: IndexPipeline, moment: str
) -> None:
    clean = await opened(chroma)
    await write(rule, clean)
    await repair(rule, Target("clean", clean))
    expected = [id_ async for page in clean.pages() for id_ in page]
    calls: list[str] = []
    for call in itertools.count(1):
        store = await opened(chroma, call + 1)
        await write(rule, store)
        faulty = FaultyStore(store, fail_at=call, moment=moment)
        try:
            await repair(rule, Target("store", faulty))
        except Unavailable:
            await repair(rule, Target("store", store))
        else:
            calls = faulty.calls
            break
        held = [id_ async for page in store.pages() for id_ in page]
        assert sorted(held) == sorted(expected)
    assert calls == ["held", "held", "delete"]
