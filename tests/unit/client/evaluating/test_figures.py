"""What an evaluation says of its queries, against values worked out by hand."""

import json

import pytest

from client.evaluating.figures import degradations, figures, times, verdict
from tests.unit.client.evaluating.found_evaluation import NDCG, asked, evaluation


@pytest.fixture
def found(tmp_path):
    return evaluation(tmp_path / "tiny")


def test_means_intervals_and_times_are_those_of_the_queries(found):
    dense = found.modes["dense"]
    mean, low, high = dense.measures["ndcg@10"]
    assert mean == pytest.approx(0.5625)
    assert 0 <= low < mean < high <= 1
    assert dense.measures["recall@100"] == (0.5, 0.5, 0.5)
    assert dense.linear_ndcg == pytest.approx(0.28125)
    assert dense.call == (20.0, 40.0, 40.0)
    assert dense.stages == {"retrieve": (4.0, 8.0, 8.0)}
    assert dense.difference is None


def test_a_difference_is_taken_query_by_query(found):
    gap = found.modes["fused"].difference
    assert gap.to == "dense"
    assert gap.by_query == pytest.approx((1.0, 0.0, -0.75, 0.25))
    assert gap.measures["ndcg@10"].mean == pytest.approx(0.125)
    assert (gap.better, gap.worse) == (2, 1)
    assert gap.measures["mrr@10"] == (0, 0, 0)


def test_programs_find_the_names_they_rely_on_first(found):
    told = json.loads(json.dumps(found.to_json()))
    assert list(told)[:3] == ["dataset", "queries", "modes"]
    assert (told["dataset"], told["queries"], told["statistics"]) == ("tiny", 4, "corpus")
    fused = told["modes"]["fused"]
    assert list(fused)[:5] == ["ndcg@10", "recall@100", "mrr@10", "p50_ms", "p99_ms"]
    assert fused["ndcg@10_interval"] == list(found.modes["fused"].measures["ndcg@10"][1:])
    assert fused["stages_ms"]["rerank"] == {"p50": 0.5, "p90": 0.5, "p99": 0.5}
    assert fused["difference"]["to"] == "dense"
    assert fused["difference"]["ndcg@10"] == pytest.approx(0.125)
    counts = [fused["difference"][key] for key in ("better", "equal", "worse")]
    assert counts == [2, 1, 1]
    assert "difference" not in told["modes"]["dense"]
    assert told["bootstrap"] == {"resamples": 2000, "seed": 1, "level": 0.95}


def test_stages_stand_in_the_order_they_run(found):
    assert found.stages == ["retrieve", "rerank", "assemble"]


def test_a_stage_counts_the_queries_that_came_to_it():
    answers = [asked(1.0, 5.0, rerank=1.0), asked(1.0, 6.0), asked(1.0, 7.0, rerank=3.0)]
    assert figures({"fused": answers}, lambda _: 9)["fused"].stages == {"rerank": (1.0, 3.0, 3.0)}


def test_percentiles_are_times_that_were_measured():
    assert times([float(ms) for ms in range(1, 101)]) == (50, 90, 99)


@pytest.mark.parametrize(
    ("fused", "said"),
    [
        ((0.5, 1.0, 1.0, 1.0), "fused is better than dense: +0.312 ("),
        ((0.0, 0.0, 0.0, 0.0), "fused is worse than dense: -0.562 ("),
        (NDCG["fused"], "fused is neither clearly better nor clearly worse than dense: +0.125 ("),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(tmp_path, fused, said):
    dense = (0.25, 0.5, 0.75, 0.75) if said.endswith("+0.312 (") else NDCG["dense"]
    told = verdict(evaluation(tmp_path / "tiny", {"dense": dense, "fused": fused}))
    assert told[1].startswith(said)


def test_one_mode_alone_is_compared_with_nothing(tmp_path):
    found = evaluation(tmp_path / "tiny", {"dense": NDCG["dense"]})
    assert verdict(found) == ["dense reaches nDCG@10: 0.562."]


def test_answers_that_were_less_than_they_could_be_are_counted(found):
    assert list(degradations(found.modes)) == ["fused: 1 answer degraded, stale route"]
