"""What is asked of a server before anything is measured, against servers that answer as told."""

from __future__ import annotations

import pytest

from client.evaluating import judged_collection
from client.evaluating.judged_collection import (
    Written,
    await_statistics,
    collection_name,
    write_corpus,
)
from common.errors import FailedPrecondition
from sluice.collections.v1 import collections_pb2 as pb
from sluice.query.v1 import query_pb2
from tests.unit.client.evaluating.found_evaluation import data_set
from tests.unit.client.told_collections import version
from tests.unit.client.told_searches import ToldSearches, serving

WRITTEN = Written("docs", "token")


def weighed(chunks, *, corpus):
    told = query_pb2.Explanation(
        rerank=query_pb2.RERANK_MODE_FUSED,
        normalisation=query_pb2.NORMALISATION_MIN_MAX,
        statistics_chunks=chunks,
        corpus_statistics=corpus,
    )
    return query_pb2.SearchResponse(index_version=7, explanation=told)


def described(counted=None):
    fields = {} if counted is None else {"word_statistics": pb.WordStatistics(chunks=counted)}
    found = pb.Collection(
        name="docs", active=pb.ActivePointer(version=7), versions=[version(7, **fields)]
    )
    return pb.DescribeCollectionResponse(collection=found)


@pytest.fixture
def judged(tmp_path):
    return data_set(tmp_path / "tiny")


@pytest.fixture
def progress(monkeypatch):
    """Looks every 10 ms, and keeps what was told."""
    monkeypatch.setattr(judged_collection, "_LOOK_EVERY_S", 0.01)
    told: list[tuple[str, int, int]] = []
    return told, lambda *said: told.append(said)


async def test_measuring_waits_until_all_chunks_are_counted_and_ranked_with(judged, progress):
    told, tell = progress
    searches = ToldSearches(
        weighed(3, corpus=False), weighed(5, corpus=True), weighed(5, corpus=True),
        weighed(9, corpus=True),
    )  # fmt: skip
    answers = [described(), described(5), described(9), described(9)]
    async with serving(answers, searches) as (client, _):
        counted = await await_statistics(client, judged, WRITTEN, wait_s=60, progress=tell)
    assert counted.whole
    assert counted.explanation.statistics_chunks == 9
    assert counted.version.number == 7
    assert told == [("counting words", done, 9) for done in (0, 5, 9)]
    assert {(q.rerank, q.explain, q.at_least) for q in searches.asked} == {
        (query_pb2.RERANK_MODE_FUSED, True, "token")
    }


@pytest.mark.parametrize("wait_s", [0, 0.05])
async def test_a_server_that_counts_nothing_is_waited_for_within_a_bound(judged, progress, wait_s):
    answers = (described() for _ in range(1000))
    async with serving(answers, ToldSearches(weighed(3, corpus=False))) as (client, told):
        counted = await await_statistics(
            client, judged, WRITTEN, wait_s=wait_s, progress=progress[1]
        )
    assert not counted.whole
    assert not counted.explanation.corpus_statistics
    assert (len(told.asked) == 1) == (wait_s == 0)


async def test_a_mode_the_server_lacks_is_refused_before_anything_is_written(judged, progress):
    refusal = FailedPrecondition("this server has no cross-encoder; set query.cross_encoder")
    created = pb.CreateCollectionResponse(collection=pb.Collection(name="docs"))
    empty = pb.DescribeCollectionResponse(collection=pb.Collection(name="docs"))
    searches = ToldSearches(query_pb2.SearchResponse(), refusal)
    async with serving([empty, created], searches) as (client, told):
        with pytest.raises(FailedPrecondition) as refused:
            await write_corpus(
                client, judged, progress[1], {"dense": "dense", "reranked": "cross_encoder"}
            )
    assert refused.value.message == (
        "mode reranked: this server has no cross-encoder; set query.cross_encoder; or leave the"
        " mode out of --modes"
    )
    assert [type(asked).__name__ for asked in told.asked] == [
        "DescribeCollectionRequest",
        "CreateCollectionRequest",
    ]
    assert {asked.collection for asked in searches.asked} == {collection_name(judged)}
    assert [asked.rerank for asked in searches.asked] == [
        query_pb2.RERANK_MODE_DENSE,
        query_pb2.RERANK_MODE_CROSS_ENCODER,
    ]
