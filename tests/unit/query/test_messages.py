"""Every field of the contract arrives, both ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.errors import InvalidArgument
from common.identity import ConsistencyToken, encode_token
from query.duplicates import Duplicate
from query.messages import answer, question
from query.ranking import RerankMode
from query.search_result import Degradation, Explanation, Hit, ScoreParts, SearchResult
from query.selection import Diversity
from rerank_zig import FusionOptions, Normalisation
from sluice.query.v1 import query_pb2

WEIGHTS = {"alpha": 0.25, "k1": 2.0, "b": 0.5, "title": 3.0, "proximity": 0.75}
HIT = Hit(
    chunk_id="d:r:1",
    document_id="d",
    document_version=7,
    source_uri="file:///d",
    title="A title",
    media_type="text/plain",
    span=(3, 9),
    page=2,
    text="a text",
    metadata={"lang": "en"},
    score=1.5,
    highlights=((0, 1),),
    parts=ScoreParts(
        similarity=0.5,
        dense=0.25,
        bm25=4.0,
        lexical=0.75,
        dense_rank=3,
        title=1.25,
        proximity=0.125,
        fused=0.625,
        cross_encoder=-2.0,
    ),
    duplicates=(Duplicate("e:r:0", "e", "file:///e", "Another", (1, 7)),),
    merged_chunk_ids=("d:r:1", "d:r:2"),
)
EXPLANATION = Explanation(
    terms=("text",),
    mode=RerankMode.CROSS_ENCODER,
    options=FusionOptions(alpha=None, k1=2, b=0.5, title=3, proximity=0.75),
    alpha=0.375,
    candidates=9,
    store_filter="{}",
    statistics_chunks=100,
    corpus_statistics=True,
)
RESULT = SearchResult(
    hits=(HIT,),
    index_version=4,
    generation=5,
    degraded=tuple(Degradation),
    timings_ms={"route": 0.5, "cross_encode": 8.0},
    explanation=EXPLANATION,
    cross_encoded=6,
)


def test_a_question_arrives_whole():
    token = ConsistencyToken("team", "docs", 3, 9)
    request = query_pb2.SearchRequest(
        tenant="team",
        collection="docs",
        text="words",
        top_k=5,
        candidate_count=50,
        filter='lang = "en"',
        rerank=query_pb2.RERANK_MODE_CROSS_ENCODER,
        weights=query_pb2.RerankWeights(
            **WEIGHTS, normalisation=query_pb2.NORMALISATION_THEORETICAL
        ),
        at_least=encode_token(token),
        explain=True,
        max_per_document=2,
        keep_duplicates=True,
        merge_neighbours=True,
        cross_encoder_candidates=20,
    )
    query = question(request, FusionOptions())
    assert (query.tenant, query.collection, query.text) == ("team", "docs", "words")
    assert (query.top_k, query.candidate_count, query.cross_encoder_candidates) == (5, 50, 20)
    assert query.vector is None
    assert query.matching is not None
    assert query.mode is RerankMode.CROSS_ENCODER
    assert query.options == FusionOptions(**WEIGHTS, normalisation=Normalisation.THEORETICAL)
    assert query.at_least == token
    assert query.explain
    assert query.diversity == Diversity(2, keep_duplicates=True, merge_neighbours=True)
    assert question(query_pb2.SearchRequest(collection="c", text="x", index_version=8),
                    FusionOptions()).index_version == 8  # fmt: skip


def test_what_a_question_leaves_out_has_the_servers_defaults():
    defaults = FusionOptions(alpha=0.75, k1=3, b=0.25, title=9, proximity=0.5)
    query = question(query_pb2.SearchRequest(collection="docs", text="words"), defaults)
    assert query.options == defaults
    assert (query.mode, query.diversity) == (RerankMode.FUSED, Diversity())
    assert (query.top_k, query.candidate_count, query.cross_encoder_candidates) == (10, 200, 0)
    vector = query_pb2.Vector(values=[0.0, 2.0])
    query = question(query_pb2.SearchRequest(collection="docs", vector=vector), defaults)
    assert query.mode is RerankMode.DENSE
    assert query.vector is not None
    assert np.array_equal(query.vector, [0, 2])


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_that_is_given_replaces_only_its_default(name: str):
    defaults = FusionOptions(alpha=None, k1=3, b=0.25, title=9, proximity=0.5)
    weights = query_pb2.RerankWeights(**{name: 0.0})  # type: ignore[arg-type]  # one of the weights
    request = query_pb2.SearchRequest(collection="docs", text="words", weights=weights)
    options = question(request, defaults).options
    assert getattr(options, name) == 0
    assert replace(options, **{name: getattr(defaults, name)}) == defaults


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_per_document": -1}, "max_per_document: must be 0 to 1,000; 0 means any number"),
        ({"max_per_document": 1_001}, "max_per_document: must be 0 to 1,000"),
        ({"cross_encoder_candidates": -1}, "cross_encoder_candidates: must be 0 to 1,000; 0 means"),
        ({"cross_encoder_candidates": 1_001}, "cross_encoder_candidates: must be 0 to 1,000"),
        ({"weights": {"title": -0.1}}, "weights.title: must be 0 to 100"),
        ({"weights": {"title": 100.5}}, "weights.title: must be 0 to 100"),
        ({"weights": {"title": float("nan")}}, "weights.title: must be 0 to 100"),
        ({"weights": {"proximity": -0.1}}, "weights.proximity: must be 0 to 10"),
        ({"weights": {"proximity": 10.5}}, "weights.proximity: must be 0 to 10"),
        ({"weights": {"proximity": float("inf")}}, "weights.proximity: must be 0 to 10"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(fields: dict[str, object], message: str):
    request = query_pb2.SearchRequest(collection="docs", text="words", **fields)  # type: ignore[arg-type]  # any of its fields
    with pytest.raises(InvalidArgument, match=message.replace(".", r"\.")):
        question(request, FusionOptions())


@pytest.mark.parametrize("mode", ["FUSED", "LEXICAL", "CROSS_ENCODER"])
def test_a_vector_has_no_words_to_rank_by(mode: str):
    request = query_pb2.SearchRequest(
        collection="docs",
        vector=query_pb2.Vector(values=[1.0]),
        rerank=query_pb2.RerankMode.Value(f"RERANK_MODE_{mode}"),
    )
    with pytest.raises(InvalidArgument, match=f"rerank: {mode} needs words"):
        question(request, FusionOptions())


def test_an_answer_arrives_whole():
    message = answer(RESULT)
    assert (message.index_version, message.generation, message.cross_encoded) == (4, 5, 6)
    assert list(message.degraded) == [
        query_pb2.DEGRADATION_RERANK_SKIPPED,
        query_pb2.DEGRADATION_STALE_ROUTE,
        query_pb2.DEGRADATION_CROSS_ENCODER_CUT,
    ]
    timings = [(timing.stage, timing.duration_ms) for timing in message.timings]
    assert timings == [("route", 0.5), ("cross_encode", 8.0)]
    [hit] = message.hits
    for name in ("chunk_id", "document_id", "document_version", "source_uri", "title", "score"):
        assert getattr(hit, name) == getattr(HIT, name)
    assert (hit.rank, hit.media_type, hit.page, hit.text) == (1, "text/plain", 2, "a text")
    assert (hit.span.start, hit.span.end) == (3, 9)
    assert hit.metadata["lang"].string_value == "en"
    assert [(span.start, span.end) for span in hit.highlights] == [(0, 1)]
    [duplicate] = hit.duplicates
    assert (duplicate.chunk_id, duplicate.document_id) == ("e:r:0", "e")
    assert (duplicate.source_uri, duplicate.title) == ("file:///e", "Another")
    assert (duplicate.span.start, duplicate.span.end) == (1, 7)
    assert list(hit.merged_chunk_ids) == ["d:r:1", "d:r:2"]
    assert hit.parts == query_pb2.ScoreParts(
        similarity=0.5,
        dense=0.25,
        bm25=4.0,
        lexical=0.75,
        dense_rank=3,
        title=1.25,
        proximity=0.125,
        fused=0.625,
        cross_encoder=-2.0,
    )
    assert message.explanation == query_pb2.Explanation(
        terms=["text"],
        rerank=query_pb2.RERANK_MODE_CROSS_ENCODER,
        alpha=0.375,
        k1=2,
        b=0.5,
        normalisation=query_pb2.NORMALISATION_MIN_MAX,
        candidates=9,
        store_filter="{}",
        title=3,
        proximity=0.75,
        statistics_chunks=100,
        corpus_statistics=True,
    )
    unset = {field.name for field in query_pb2.Hit.DESCRIPTOR.fields} - {
        field.name for field, _ in hit.ListFields()
    }
    assert not unset
