"""How queries are asked and scored, against a query server that answers as told."""

from __future__ import annotations

import itertools

import pytest

from client.evaluating.asking import Plan, ask_all, run_lines
from client.evaluating.judged_collection import Written, document_names
from common.errors import NotFound
from sluice.query.v1 import query_pb2
from tests.unit.client.evaluating.found_evaluation import data_set
from tests.unit.client.told_searches import ToldSearches, serving

WRITTEN = Written("docs", "token")
TOLD: list[tuple[str, int, int]] = []


def answer(judged, *documents, **fields):
    """Hits of these documents, each worse than the one before."""
    ids = {name: id_ for id_, name in document_names(judged).items()}
    hits = [
        query_pb2.Hit(rank=rank, document_id=ids[document], score=1 / rank)
        for rank, document in enumerate(documents, start=1)
    ]
    timings = [query_pb2.StageTiming(stage=s, duration_ms=2.0) for s in ("retrieve", "retrieve")]
    return query_pb2.SearchResponse(hits=hits, timings=timings, **fields)


@pytest.fixture
def judged(tmp_path):
    return data_set(tmp_path / "tiny")


async def measured(judged, plan, *answers):
    searches = ToldSearches(*answers)
    async with serving([], searches) as (client, _):
        found = await ask_all(client, judged, WRITTEN, plan, lambda *said: TOLD.append(said))
    return found, searches.asked


async def test_a_document_stands_where_its_best_chunk_does_with_its_score(judged):
    hits = answer(judged, "d2", "d1", "d2", "d3", degraded=[query_pb2.DEGRADATION_RERANK_SKIPPED])
    found, _ = await measured(judged, Plan(("dense",)), hits)
    first = found["dense"][0]
    assert first.ranking == (("d2", 1.0), ("d1", 0.5), ("d3", 0.25))
    assert first.reciprocal_rank_at_10 == 0.5
    assert first.recall_at_100 == 0.5
    # Grades 2 and 1, the first of them in second place: gains 3 and 1.
    assert first.ndcg_at_10 == pytest.approx((3 / 1.584963) / (3 + 1 / 1.584963), abs=1e-6)
    assert first.linear_ndcg_at_10 == pytest.approx((2 / 1.584963) / (2 + 1 / 1.584963), abs=1e-6)
    assert (first.stages_ms, first.degraded) == ({"retrieve": 4.0}, ("rerank_skipped",))
    assert first.call_ms > 0
    assert run_lines(judged, found)[0]["documents"] == [["d2", 1.0], ["d1", 0.5], ["d3", 0.25]]


async def test_times_are_of_usual_calls_and_scores_of_long_lists(judged):
    _, asked = await measured(judged, Plan(("bm25",), depth=150), answer(judged, "d1"))
    warm_up, timed, ranked = asked[:4], asked[4:8], asked[8:]
    usual = query_pb2.SearchRequest(
        collection="docs", candidate_count=2000, rerank=query_pb2.RERANK_MODE_LEXICAL
    )
    for query, request in zip(judged.queries, timed, strict=True):
        usual.text = query.text
        assert request == usual
    assert {(q.top_k, q.keep_duplicates, q.candidate_count) for q in ranked} == {(150, True, 2000)}
    assert {request.at_least for request in warm_up} == {"token"}
    assert TOLD[-1] == ("ranking", 4, 4)


async def test_modes_take_turns_in_beginning(judged):
    _, asked = await measured(judged, Plan(("dense", "fused")), answer(judged, "d1"))
    timed = [request.rerank for request in asked[8:16]]
    dense, fused = query_pb2.RERANK_MODE_DENSE, query_pb2.RERANK_MODE_FUSED
    assert timed == [dense, fused, fused, dense] * 2


async def test_a_query_that_fails_ends_it_with_its_error(judged):
    good = answer(judged, "d1")
    with pytest.raises(NotFound, match="it was deleted"):
        await measured(
            judged,
            Plan(("dense",), concurrency=3),
            *itertools.repeat(good, 5),
            NotFound("it was deleted"),
        )
