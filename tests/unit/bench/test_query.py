"""What the query benchmark says of a server's own time is what its stages and its log say."""

from __future__ import annotations

import pytest

from bench.passages import Passage
from bench.query import Told, _questions


def test_outside_is_the_whole_call_but_for_chroma_and_embedding():
    told = Told()
    told.stages["a"] = {"route": 1.0, "embed": 2.0, "retrieve": 30.0, "fetch": 4.0, "rerank": 0.5}
    figures = told.figures({"a": 40.0, "of another": 900.0})
    # 40 - 2 - 30 - 4; of it 1.5 in stages.
    assert figures["outside_ms"]["p50"] == figures["outside_ms"]["p99"] == 4.0
    assert figures["outside_ms"]["own_stages"]["p99"] == 1.5
    assert figures["outside_ms"]["rest_of_call"]["p99"] == 2.5
    assert figures["server_call_ms"]["p50_ms"] == 40.0
    assert figures["stages"]["retrieve"] == {"p50_ms": 30.0, "p99_ms": 30.0}


def test_percentiles_are_of_each_querys_sum_and_not_sums_of_percentiles():
    told = Told()
    told.stages = {"a": {"route": 1.0, "rerank": 9.0}, "b": {"route": 9.0, "rerank": 1.0}}
    outside = told.figures({"a": 10.0, "b": 10.0})["outside_ms"]
    assert outside["p99"] == 10.0


def test_an_answer_that_the_log_does_not_know_is_no_figure():
    told = Told()
    told.stages["a"] = {"route": 1.0}
    with pytest.raises(KeyError):
        told.figures({})


def test_questions_are_words_of_passages_and_mostly_differ():
    passages = [Passage("", " ".join(f"w{n}x{i}" for i in range(100))) for n in range(20)]
    asked = _questions(passages, 300, seed=1)
    assert asked == _questions(passages, 300, seed=1)
    assert len(set(asked)) > 280
    assert all(any(question in passage.text for passage in passages) for question in asked)
    assert {len(question.split()) for question in asked} == set(range(3, 10))
