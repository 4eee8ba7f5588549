"""How words rank on a real index: titles, identifiers, weights, statistics, and what is kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from query.admission import Admission
from query.chunks import ChunkCache
from query.ranking import RerankMode
from query.search_query import Weights
from query.selection import MIN_WINDOW
from rerank_zig import RerankLibrary, WordStatistics
from tests.integration.query.asking import FAILOVER, QUEUES, QUOTA, MovingIndex, ask, uris
from tests.integration.query.written_index import Document, WrittenIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from query.chunks import StoredChunk
    from query.index_version import IndexVersion
    from query.search_result import SearchResult
    from tests.integration.query.asking import OpenSearcher

QUORUM = Document("file:///quorum", ["Three machines vote, two decide."], title="Quorum of etcd")
ALARM = Document("file:///42", ["Alarm NN-HA-42 means that the standby lags behind."])
OTHERS = [
    Document(f"file:///{code}", [f"Alarm NN-HA-{code}: see the NN, the HA pair and 42 more of HA."])
    for code in (40, 41, 43, 44)
]


class Reading(MovingIndex):
    """The real index; says whose texts were read."""

    def __init__(self, index: WrittenIndex) -> None:
        super().__init__(index)
        self.read: list[list[str]] = []

    async def stored(
        self, version: IndexVersion, ids: Any, *, texts: bool
    ) -> dict[str, StoredChunk]:
        if texts:
            self.read.append(list(ids))
        return await super().stored(version, ids, texts=texts)


class Known:
    """Statistics of every version."""

    def __init__(self, statistics: WordStatistics) -> None:
        self._statistics = statistics
        self.asked: list[int] = []

    def of(self, version: IndexVersion) -> WordStatistics:
        self.asked.append(version.number)
        return self._statistics


def counted(library: RerankLibrary, texts: Sequence[bytes]) -> WordStatistics:
    """Statistics of texts without titles."""
    counts = library.count_words([b""] * len(texts), texts)
    hashes, frequencies = np.unique(counts.hashes, return_counts=True)
    return WordStatistics(
        chunks=len(texts),
        text_words=int(counts.text_words.sum()),
        title_words=0,
        hashes=hashes.astype(np.uint32),
        frequencies=frequencies.astype(np.uint32),
    )


def told(result: SearchResult) -> list[Any]:
    return [(hit.chunk_id, hit.score, hit.parts, hit.highlights) for hit in result.hits]


async def test_words_that_stand_only_in_the_title_are_found(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA, QUEUES, QUORUM)
    searcher = await open_searcher()
    for mode in (RerankMode.FUSED, RerankMode.LEXICAL):
        result = await ask(searcher, "quorum", mode=mode, explain=True, weights=Weights(alpha=0.25))
        first, *rest = result.hits
        assert first.source_uri == QUORUM.uri
        assert first.parts is not None
        assert 0 < first.parts.title <= first.parts.bm25
        assert first.highlights == ()
        assert all(hit.parts is not None and hit.parts.bm25 == 0 for hit in rest)
    untitled = await ask(searcher, "quorum", explain=True, weights=Weights(title=0))
    assert all(hit.parts is not None and hit.parts.bm25 == 0 for hit in untitled.hits)


@pytest.mark.parametrize("mode", [RerankMode.FUSED, RerankMode.LEXICAL])
async def test_an_identifier_is_matched_as_one(
    index: WrittenIndex, open_searcher: OpenSearcher, mode: RerankMode
):
    await index.holding(*OTHERS[:2], ALARM, *OTHERS[2:])
    result = await ask(await open_searcher(), "what does NN-HA-42 mean", mode=mode, explain=True)
    assert uris(result)[0] == ALARM.uri
    assert result.explanation is not None
    assert "nn-ha-42" in result.explanation.terms


async def test_words_near_each_other_count_more(index: WrittenIndex, open_searcher: OpenSearcher):
    near = Document(
        "file:///near", ["A full disk of some machine stops every job that is running."]
    )
    far = Document("file:///far", ["A disk of some machine stops every job that is running full."])
    await index.holding(far, near)
    searcher = await open_searcher()
    mode = RerankMode.LEXICAL
    first, second = (await ask(searcher, "full disk", mode=mode, explain=True)).hits
    assert first.source_uri == near.uri
    assert first.parts is not None
    assert second.parts is not None
    assert first.parts.proximity > second.parts.proximity >= 0
    level = await ask(searcher, "full disk", mode=mode, weights=Weights(proximity=0))
    assert level.hits[0].score == pytest.approx(level.hits[1].score)


async def test_weights_are_the_requests_own(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    searcher = await open_searcher()
    weights = Weights(alpha=0.25, k1=2, b=0.5, title=3, proximity=0.5)
    result = await ask(searcher, explain=True, weights=weights)
    assert result.explanation is not None
    assert result.explanation.alpha == pytest.approx(0.25)
    options = result.explanation.options
    assert (options.k1, options.b, options.title, options.proximity) == (2, 0.5, 3, 0.5)
    for hit in result.hits:
        assert hit.parts is not None
        mixed = 0.25 * hit.parts.dense + 0.75 * hit.parts.lexical
        assert hit.score == pytest.approx(mixed, abs=1e-5)
        assert hit.score == hit.parts.fused
    for alpha in (0.0, 1.0):
        extreme = await ask(searcher, explain=True, weights=Weights(alpha=alpha))
        assert extreme.explanation is not None
        assert extreme.explanation.alpha == alpha


async def test_without_a_weight_of_its_own_the_share_of_meaning_adapts_to_the_query(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA, QUEUES, ALARM, *OTHERS)
    searcher = await open_searcher()
    alphas = []
    for text in ("NN-HA-42", "what is it that one could do about this"):
        explanation = (await ask(searcher, text, explain=True)).explanation
        assert explanation is not None
        assert 0 <= explanation.alpha <= 1
        alphas.append(explanation.alpha)
    assert alphas[0] < alphas[1]


async def test_the_versions_statistics_say_which_words_are_rare(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    texts = [b"the lake is wide", b"the shore is wide", b"the road is wide"]
    await index.holding(*(Document(f"file:///{n}", [t.decode()]) for n, t in enumerate(texts)))
    library = RerankLibrary.load()
    lake_is_common = counted(library, [*texts, *[b"a lake"] * 50])
    shore_is_common = counted(library, [*texts, *[b"a shore"] * 70])
    mode = RerankMode.LEXICAL
    for statistics, first in ((lake_is_common, "file:///1"), (shore_is_common, "file:///0")):
        known = Known(statistics)
        searcher = await open_searcher(statistics=known)
        result = await ask(searcher, "lake shore", mode=mode, explain=True)
        assert uris(result)[0] == first
        assert result.hits[0].score > result.hits[1].score
        assert set(known.asked) == {1}
        assert result.explanation is not None
        assert result.explanation.corpus_statistics
        assert result.explanation.statistics_chunks == statistics.chunks
    result = await ask(await open_searcher(), "lake shore", mode=mode, explain=True)
    assert result.hits[0].score == pytest.approx(result.hits[1].score)
    assert result.explanation is not None
    assert not result.explanation.corpus_statistics
    assert result.explanation.statistics_chunks == 3


async def test_a_second_query_reads_no_texts(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    source = Reading(index)
    searcher = await open_searcher(source=source)
    before = await ask(searcher, explain=True)
    assert [sorted(ids) for ids in source.read] == [sorted(FAILOVER.ids + QUOTA.ids + QUEUES.ids)]
    after = await ask(searcher, explain=True)
    assert len(source.read) == 1
    assert told(after) == told(before)


async def test_where_texts_are_not_kept_only_those_of_ranks_looked_at_are_read(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    many = [Document(f"file:///{n}", [f"namenode {n}"]) for n in range(60)]
    await index.holding(*many)
    source = Reading(index)
    searcher = await open_searcher(source=source, texts=ChunkCache(0))
    await ask(searcher)
    assert {id_ for ids in source.read for id_ in ids} == {id_ for one in many for id_ in one.ids}
    source.read.clear()
    hits = (await ask(searcher, top_k=5)).hits
    read = {id_ for ids in source.read for id_ in ids}
    assert read.issuperset(hit.chunk_id for hit in hits)
    assert len(read) == MIN_WINDOW


@pytest.mark.parametrize("counted_over", ["candidates", "version"])
async def test_what_does_not_fit_into_the_store_of_terms_is_scored_all_the_same(
    index: WrittenIndex, open_searcher: OpenSearcher, counted_over: str
):
    many = [
        Document(
            f"file:///{n}", [f"Namenode {n} " + "waits for its quota " * (n % 7)], title=str(n)
        )
        for n in range(60)
    ]
    await index.holding(*many, replace(QUEUES, title="Namenode"))
    known = counted(RerankLibrary.load(), [many[n].chunks[0].encode() for n in range(60)])
    parts = {"statistics": Known(known)} if counted_over == "version" else {}
    roomy = await ask(await open_searcher(**parts), explain=True, top_k=61)
    source = Reading(index)
    tight = await open_searcher(store_bytes=1, source=source, **parts)
    for _ in range(2):
        result = await ask(tight, explain=True, top_k=61)
        assert [hit.chunk_id for hit in result.hits] == [hit.chunk_id for hit in roomy.hits]
        for hit, expected in zip(result.hits, roomy.hits, strict=True):
            assert hit.score == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize("store_bytes", [2**13, 2**20])  # one that keeps some of them, or all
async def test_searches_at_once_answer_as_one_alone(
    index: WrittenIndex, open_searcher: OpenSearcher, store_bytes: int
):
    many = [
        Document(f"file:///{n}", [f"Namenode {n} of rack {n % 5} waits for quota {n % 3}."])
        for n in range(60)
    ]
    await index.holding(*many)
    texts = [f"namenode of rack {n % 5} with quota {n % 7}" for n in range(24)]
    alone = await open_searcher()
    expected = [told(await ask(alone, text, explain=True, candidate_count=30)) for text in texts]
    searcher = await open_searcher(
        store_bytes=store_bytes, texts=ChunkCache(0), admission=Admission(running=8, waiting=16)
    )
    answers = await asyncio.gather(
        *(ask(searcher, text, explain=True, candidate_count=30) for text in texts)
    )
    assert [told(answer) for answer in answers] == expected


async def test_a_record_of_another_with_a_line_break_in_its_id_is_left_aside(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA)
    await (await index.store()).upsert(
        ids=["another's\nrecord"],
        embeddings=await index.embedder.embed_documents(["namenode quota queue"]),
        documents=["namenode quota queue"],
        metadatas=[{"foreign": True}],
    )
    result = await ask(await open_searcher())
    assert len(result.hits) == 4
