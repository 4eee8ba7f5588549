"""The measures against values worked out by hand."""

from math import log2

import pytest

from client.evaluating.metrics import linear_gain, ndcg, percentile, recall, reciprocal_rank

GRADES = {"a": 3, "b": 2, "c": 1, "d": 0}


def test_ndcg_uses_the_exponential_gain_and_the_logarithmic_discount():
    # gains 2^grade - 1: c 1, x 0, a 7; best possible a 7, b 3, c 1
    found = 1 / log2(2) + 0 / log2(3) + 7 / log2(4)
    best = 7 / log2(2) + 3 / log2(3) + 1 / log2(4)
    assert ndcg(["c", "x", "a"], GRADES, 10) == pytest.approx(found / best)
    assert found / best == pytest.approx(0.4790, abs=1e-4)


def test_ndcg_with_the_grade_as_gain_is_that_of_trec_eval():
    # gains: c 1, x 0, a 3; best possible a 3, b 2, c 1
    found = 1 / log2(2) + 0 / log2(3) + 3 / log2(4)
    best = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    assert ndcg(["c", "x", "a"], GRADES, 10, linear_gain) == pytest.approx(found / best)


def test_both_gains_agree_where_relevance_is_yes_or_no():
    judged = {"a": 1, "b": 1, "c": 0, "d": -1}
    ranking = ["d", "a", "c", "b"]
    assert ndcg(ranking, judged, 10) == ndcg(ranking, judged, 10, linear_gain)


def test_a_grade_below_zero_neither_helps_nor_harms():
    assert ndcg(["d", "a"], {"a": 1, "d": -1}, 10) == ndcg(["x", "a"], {"a": 1}, 10)


def test_ndcg_of_the_best_ranking_is_one_and_of_no_ranking_zero():
    assert ndcg(["a", "b", "c", "d"], GRADES, 10) == pytest.approx(1)
    assert ndcg([], GRADES, 10) == 0
    assert ndcg(["d"], {"d": 0}, 10) == 0


def test_ndcg_looks_at_the_first_k_of_both_rankings():
    assert ndcg(["b", "a"], GRADES, 1) == pytest.approx(3 / 7)


def test_recall_counts_relevant_documents_among_the_first_k():
    assert recall(["a", "x", "c", "b"], GRADES, 3) == pytest.approx(2 / 3)
    assert recall(["a", "x", "c", "b"], GRADES, 2) == pytest.approx(1 / 3)
    assert recall(["d"], GRADES, 3) == 0
    assert recall(["d"], {"d": 0}, 3) == 0


def test_reciprocal_rank_is_that_of_the_first_relevant_document():
    assert reciprocal_rank(["d", "x", "c", "a"], GRADES, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["d", "x", "c"], GRADES, 2) == 0


def test_percentiles_are_values_that_were_measured():
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
