"""What a search answers from a real index, also while that index moves under it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from common import records
from common.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
)
from common.rpc import Deadline
from query.admission import Admission
from query.ranking import RerankMode
from query.search_query import Weights
from query.search_result import Degradation
from tests.integration.query.asking import (
    FAILOVER,
    NEWER,
    QUEUES,
    QUOTA,
    MovingIndex,
    ask,
    asking,
    uris,
)
from tests.integration.query.written_index import Document, WrittenIndex

MODES = [RerankMode.DENSE, RerankMode.FUSED, RerankMode.LEXICAL]

if TYPE_CHECKING:
    from common.coordination import Coordinator
    from tests.integration.query.asking import OpenSearcher


async def test_a_hit_says_where_it_comes_from(index: WrittenIndex, open_searcher: OpenSearcher):
    pointer = await index.holding(FAILOVER, QUOTA, QUEUES)
    result = await ask(await open_searcher(), "fence the namenode", top_k=1)
    [hit] = result.hits
    assert hit.text == "Fence the old namenode before."
    assert hit.chunk_id == FAILOVER.ids[1]
    assert (hit.document_id, hit.document_version) == (FAILOVER.id, 7)
    assert (hit.source_uri, hit.title) == ("hdfs://lake/failover.md", "Failover")
    assert (hit.media_type, hit.page) == ("text/plain", 2)
    assert hit.span == (45, 75)
    assert hit.metadata == {"lang": "en", "year": 2024, "tags": ["hdfs"], "draft": False}
    assert [hit.text[start:end] for start, end in hit.highlights] == ["Fence", "namenode"]
    assert hit.parts is None
    assert result.explanation is None
    assert (result.index_version, result.generation) == (pointer.version, pointer.generation)
    assert result.degraded == ()
    assert list(result.timings_ms) == ["route", "embed", "retrieve", "fetch", "rerank", "assemble"]
    assert all(duration > 0 for duration in result.timings_ms.values())


async def test_each_mode_orders_by_its_own_score(index: WrittenIndex, open_searcher: OpenSearcher):
    texts = [
        "how to do the",  # near by words that say nothing
        "raise every quota before some big and slow jobs run at night",
        "a quota of some directory",
        "nothing of it",
    ]
    await index.holding(*(Document(f"file:///{n}", [text]) for n, text in enumerate(texts)))
    searcher = await open_searcher()
    answers = {
        mode: await ask(
            searcher, "how to raise the quota", mode=mode, explain=True, weights=Weights(alpha=0.25)
        )
        for mode in MODES
    }
    for mode, result in answers.items():
        scores = [hit.score for hit in result.hits]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)
        assert result.explanation is not None
        assert result.explanation.mode is mode
        shares = {RerankMode.DENSE: 1, RerankMode.FUSED: 0.25, RerankMode.LEXICAL: 0}
        assert result.explanation.alpha == shares[mode]
        for hit in result.hits:
            assert hit.parts is not None
            expected = {
                RerankMode.DENSE: hit.parts.similarity,
                RerankMode.FUSED: 0.25 * hit.parts.dense + 0.75 * hit.parts.lexical,
                RerankMode.LEXICAL: hit.parts.bm25,
            }[mode]
            assert hit.score == pytest.approx(expected, abs=1e-5)
    dense, fused = answers[RerankMode.DENSE], answers[RerankMode.FUSED]
    assert uris(dense)[0] == "file:///0"
    assert uris(fused)[0] == "file:///1"
    ranks = [hit.parts.dense_rank for hit in fused.hits if hit.parts]
    by_rank = dict(zip(ranks, fused.hits, strict=True))
    assert [by_rank[rank].source_uri for rank in (1, 2, 3, 4)] == uris(dense)


async def test_an_explanation_tells_the_plan(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    result = await ask(
        await open_searcher(),
        "raising the quotas",
        explain=True,
        filter_text='lang = "en" AND NOT year >= 2024',
    )
    assert result.explanation is not None
    assert result.explanation.terms == ("rais", "quota")
    assert result.explanation.candidates == 2
    assert (
        result.explanation.store_filter
        == '{"$and": [{"lang": {"$eq": "en"}}, {"year": {"$lt": 2024}}]}'
    )
    assert set(uris(result)) == {QUOTA.uri}


async def test_a_vector_is_searched_by_as_it_is(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    searcher = await open_searcher()
    vector = (await index.embedder.embed_query(QUEUES.chunks[0])).tolist()
    result = await ask(searcher, None, vector=vector, explain=True)
    assert uris(result)[0] == QUEUES.uri
    assert result.hits[0].score == pytest.approx(1, abs=1e-5)
    assert result.hits[0].highlights == ()
    assert "embed" not in result.timings_ms
    with pytest.raises(InvalidArgument, match="vector: must have 128 values, this has 127"):
        await ask(searcher, None, vector=vector[1:])


@pytest.mark.parametrize("mode", MODES)
async def test_an_empty_collection_answers_nothing(
    index: WrittenIndex, open_searcher: OpenSearcher, mode: RerankMode
):
    await index.holding()
    result = await ask(await open_searcher(), mode=mode, explain=True)
    assert result.hits == ()
    assert result.degraded == ()


async def test_fewer_chunks_than_wanted_are_all_answered(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA)
    searcher = await open_searcher()
    assert len((await ask(searcher, top_k=1_000)).hits) == 4
    assert (await ask(searcher, filter_text="year > 3000")).hits == ()


async def test_an_unfinished_update_leaves_the_old_state(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA)
    await index.write(NEWER, ordinals=[1])
    result = await ask(await open_searcher(), "no fencing of the namenode")
    assert {hit.text for hit in result.hits} == {*FAILOVER.chunks, *QUOTA.chunks}


async def test_of_two_complete_states_only_the_newer_is_answered(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA)
    await index.write(NEWER)
    source = MovingIndex(index)
    result = await ask(await open_searcher(source=source), "fence the namenode")
    assert {hit.text for hit in result.hits} == {*NEWER.chunks, *QUOTA.chunks}
    assert source.calls["candidates"] == 1


async def test_a_document_of_which_no_state_is_complete_is_left_out(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(QUOTA)
    await index.write(NEWER, ordinals=[1])
    source = MovingIndex(index)
    result = await ask(await open_searcher(source=source), "fencing")
    assert set(uris(result)) == {QUOTA.uri}
    assert source.calls["candidates"] == 2


async def test_places_of_dropped_candidates_are_filled_from_further_down(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    stale = Document("file:///stale", [f"namenode namenode {n}" for n in range(60)])
    await index.holding(FAILOVER, QUOTA)
    await index.write(stale, ordinals=range(1, 60))
    result = await ask(await open_searcher(), "namenode", top_k=3)
    assert len(result.hits) == 3
    assert stale.uri not in uris(result)


async def test_one_document_is_told_of_in_one_state_while_its_metadata_move(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    store = await index.store()
    await store.update_metadata(FAILOVER.ids[1:], [{records.VERSION: 8, "lang": "de"}])
    result = await ask(await open_searcher(), "namenode")
    assert [hit.document_version for hit in result.hits] == [7, 7]
    assert [hit.metadata["lang"] for hit in result.hits] == ["en", "en"]
    await store.update_metadata(FAILOVER.ids[:1], [{records.VERSION: 8, "lang": "de"}])
    result = await ask(await open_searcher(), "namenode")
    assert [(hit.document_version, hit.metadata["lang"]) for hit in result.hits] == [(8, "de")] * 2


@pytest.mark.parametrize("removed", [1, 2])  # the head goes before the other chunk
@pytest.mark.parametrize("mode", MODES)
async def test_an_update_that_lands_during_a_search_is_looked_at_again(
    index: WrittenIndex, open_searcher: OpenSearcher, mode: RerankMode, removed: int
):
    await index.holding(FAILOVER, QUOTA)

    async def update() -> None:
        await index.write(NEWER)
        await (await index.store()).delete(FAILOVER.ids[:removed])

    source = MovingIndex(index, update)
    result = await ask(await open_searcher(source=source), "fence the namenode", mode=mode)
    assert {hit.text for hit in result.hits} == {*NEWER.chunks, *QUOTA.chunks}
    assert source.calls["candidates"] == 2
    stages = ["route", "embed", "retrieve", "fetch", "rerank", "assemble"]
    if mode is RerankMode.DENSE:
        stages.remove("rerank")
    assert list(result.timings_ms) == stages


async def test_a_chunk_that_went_is_not_answered_though_its_text_is_known(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA)

    async def lose() -> None:
        await (await index.store()).delete(FAILOVER.ids[1:])

    async def nothing() -> None:
        pass

    source = MovingIndex(index, nothing, lose)
    searcher = await open_searcher(source=source)
    assert len((await ask(searcher)).hits) == 4
    result = await ask(searcher)
    assert {hit.text for hit in result.hits} == {FAILOVER.chunks[0], *QUOTA.chunks}
    assert source.calls == {"candidates": 3, "texts": 1}


async def test_an_index_that_never_rests_is_not_chased_for_ever(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    source = MovingIndex(index, lambda: index.remove(FAILOVER), lambda: index.remove(QUOTA))
    result = await ask(await open_searcher(source=source))
    assert uris(result) == [QUEUES.uri]
    assert source.calls["candidates"] == 2


async def test_texts_are_read_once_and_metadata_every_time(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    source = MovingIndex(index)
    searcher = await open_searcher(source=source)
    before = await ask(searcher)
    await (await index.store()).update_metadata(FAILOVER.ids[:1], [{"lang": "fr"}])
    after = await ask(searcher)
    assert source.calls["texts"] == 1
    assert [hit.text for hit in before.hits] == [hit.text for hit in after.hits]
    assert {hit.metadata["lang"] for hit in after.hits} == {"fr"}


async def test_records_that_sluice_did_not_write_are_left_aside_and_told_of_in_one_line(
    index: WrittenIndex, open_searcher: OpenSearcher, caplog: pytest.LogCaptureFixture
):
    await index.holding(FAILOVER)
    await (await index.store()).upsert(
        ids=["a8098c1a-f86e-11da-bd1a-00112444be1e", "another's"],
        embeddings=await index.embedder.embed_documents(["namenode", "namenode quota"]),
        documents=["namenode", "namenode quota"],
        metadatas=[{"foreign": True}, {"foreign": True}],
    )
    result = await ask(await open_searcher(), "namenode")
    assert set(uris(result)) == {FAILOVER.uri}
    told = [record for record in caplog.records if record.name == "query.selection"]
    assert [record.__dict__["records"] for record in told] == [2]


async def test_a_record_of_another_without_a_text_or_metadata_is_left_aside(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    vector = (await index.embedder.embed_documents(["namenode"]))[0].tolist()
    store = (await index.store())._collection
    await asyncio.to_thread(store.upsert, ids=["bare"], embeddings=[vector])
    await asyncio.to_thread(
        store.upsert, ids=["textless"], embeddings=[vector], metadatas=[{"title": 7}]
    )
    result = await ask(await open_searcher(), "namenode")
    assert set(uris(result)) == {FAILOVER.uri}


async def test_a_search_without_time_left_does_not_begin(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    source = MovingIndex(index)
    searcher = await open_searcher(source=source)
    with pytest.raises(DeadlineExceeded):
        await searcher.search(asking(), Deadline.after(0))
    assert not source.calls


async def test_a_search_in_progress_ends_at_the_deadline(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    source = MovingIndex(index, asyncio.Event().wait)
    searcher = await open_searcher(source=source)
    with pytest.raises(DeadlineExceeded, match="allow more time"):
        await searcher.search(asking(), Deadline.after(0.2))
    assert source.calls["candidates"] == 1


async def test_near_the_deadline_reranking_is_skipped_and_said_so(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    searcher = await open_searcher(reserve_s=60)
    result = await ask(searcher, explain=True)
    assert result.degraded == (Degradation.RERANK_SKIPPED,)
    assert result.explanation is not None
    assert result.explanation.mode is RerankMode.DENSE
    assert len(result.hits) == 5
    scores = [hit.parts.similarity for hit in result.hits if hit.parts]
    assert [hit.score for hit in result.hits] == scores
    whole = await ask(searcher, mode=RerankMode.DENSE)
    assert whole.degraded == ()


async def test_without_the_coordinator_the_last_known_version_answers(
    index: WrittenIndex, open_searcher: OpenSearcher, coordinator: Coordinator
):
    await index.holding(FAILOVER)
    searcher = await open_searcher()
    assert (await ask(searcher)).degraded == ()
    await coordinator.aclose()
    async with asyncio.timeout(5):
        while not (result := await ask(searcher)).degraded:
            pass
    assert result.degraded == (Degradation.STALE_ROUTE,)
    assert result.index_version == 1
    assert result.hits


async def test_beyond_its_bounds_a_search_is_refused(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    go, retrieved = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        retrieved.set()
        await go.wait()

    searcher = await open_searcher(
        source=MovingIndex(index, hold), admission=Admission(running=1, waiting=0)
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ask(searcher))
        await retrieved.wait()
        with pytest.raises(Overloaded) as refused:
            await ask(searcher)
        go.set()
    assert refused.value.retry_after_ms
    assert running.result().hits
    assert (await ask(searcher)).hits
