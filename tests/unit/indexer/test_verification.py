"""A verification's bounds and words; what it finds on Chroma is shown in the integration tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from common.errors import FailedPrecondition
from indexer import verification
from indexer.golden import Exam, FoundSource, GoldenQuery
from indexer.verification import verify
from tests.unit.indexer.broken_documents import FAULTS, pointer, record, write
from tests.unit.indexer.corpus import document, index, pipeline, sentences
from tests.unit.indexer.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from indexer.pipeline import IndexPipeline

EXAM = Exam((GoldenQuery("who", ("a",)), GoldenQuery("where", ("b", "c"))))


@pytest.fixture
async def rule() -> AsyncIterator[IndexPipeline]:
    opened = pipeline()
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("page_ids", [1, 4, 20_000])
async def test_every_fault_is_found_whatever_the_pages(rule: IndexPipeline, page_ids: int) -> None:
    store = MemoryStore(page_ids=page_ids)
    await write(rule, store)
    found = await verify(store, record(), expected_documents=5)
    assert set(found.faults) == set(FAULTS.values())
    assert (found.documents, found.chunks) == (5, len(store.kept))
    assert not found.verdict.passed
    assert sorted(found.verdict.findings) == sorted(map(str, FAULTS.values()))


async def test_a_whole_version_passes_and_its_count_is_compared(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await index(rule, store, [document(name, 1, sentences(2, name)) for name in "abc"])
    found = await verify(store, record(), expected_documents=3)
    assert (found.documents, found.chunks, found.faults, found.misses) == (3, 6, (), ())
    assert found.verdict.passed
    assert found.verdict.findings == ()
    assert found.verdict.golden is None
    fewer = await verify(store, record(), expected_documents=4)
    assert fewer.verdict.findings == ("holds 3 complete documents, expected 4",)
    assert not fewer.verdict.passed
    empty = await verify(MemoryStore(), record(), expected_documents=0)
    assert (empty.documents, empty.chunks, empty.verdict.passed) == (0, 0, True)


@pytest.mark.parametrize("lacks", [{"model": ""}, {"digest": ""}, {"dimension": 0}])
async def test_a_record_without_its_embedder_falls_short(lacks: dict[str, object]) -> None:
    unknown = record(embedder=replace(record().embedder, **lacks))  # type: ignore[arg-type]  # its fields
    (finding,) = (await verify(MemoryStore(), unknown)).verdict.findings
    assert "which embedder" in finding


async def test_findings_and_faults_are_bounded_and_what_is_left_out_is_counted(
    rule: IndexPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(page_ids=7)
    names = [f"n{n}" for n in range(12)]
    await index(rule, store, [document(name, 1, sentences(2, name)) for name in names])
    await store.delete([id_ for id_ in store.kept if id_.endswith(":0")])
    for kept, lines in ((8, 5), (20, 5), (12, 13), (8, 13)):
        monkeypatch.setattr(verification, "MAX_FAULTS", kept)
        monkeypatch.setattr(verification, "MAX_FINDINGS", lines)
        found = await verify(store, record(), expected_documents=12)
        findings = found.verdict.findings
        assert len(found.faults) == min(kept, 12)
        assert findings[0] == "holds 0 complete documents, expected 12"
        told = [line for line in findings if line.startswith("document")]
        assert set(told) <= set(map(str, found.faults))
        left_out = 12 - len(told)
        assert len(findings) <= lines
        if left_out:
            assert findings[-1] == f"and {left_out} more findings"
        assert bool(left_out) == ((kept, lines) != (12, 13))


async def test_golden_queries_count_with_the_documents(rule: IndexPipeline) -> None:
    store = MemoryStore()
    await index(rule, store, [document("a", 1, sentences(2, "a"))])

    async def ask(
        tenant: str, collection: str, version: int, query: str, depth: int
    ) -> list[FoundSource]:
        assert (tenant, collection, depth) == ("default", "docs", 10)
        found = {(2, "who"): "a", (1, "who"): "a", (1, "where"): "b"}.get((version, query))
        return [FoundSource(f"file:///{found}", "")] if found else []

    found = await verify(
        store, record(), expected_documents=2, exam=EXAM, ask=ask, active=pointer()
    )
    golden = found.verdict.golden
    assert golden is not None
    assert (golden.candidate, golden.active, golden.active_version) == (0.5, 0.75, 1)
    assert [miss.missing for miss in found.misses] == [("b", "c")]
    assert not found.verdict.passed
    assert [line[:12] for line in found.verdict.findings] == [
        "holds 1 comp",
        *["golden queri"] * 2,
        "golden query",
    ]


async def test_golden_queries_without_a_query_server_are_refused() -> None:
    with pytest.raises(FailedPrecondition, match="query server; start one"):
        await verify(MemoryStore(), record(), exam=EXAM)
