"""An evaluation at 80 columns, as a person sees it."""

from dataclasses import replace

import pytest
from rich.cells import cell_len

from client.evaluating.figures import Estimate
from client.evaluating.table import table
from tests.unit.client.evaluating.found_evaluation import EVIL, NDCG, evaluation
from tests.unit.client.terminal import lines, shown

TO = "\N{EN DASH}"


def test_modes_stand_side_by_side_with_their_intervals(tmp_path):
    found = evaluation(tmp_path / "tiny")
    dense, fused = found.modes.values()
    gap = fused.difference
    assert gap is not None
    told = replace(
        found,
        modes={
            "dense": replace(dense, measures={**dense.measures, "ndcg@10": Estimate(0.5, 0.25, 1)}),
            "fused": replace(
                fused,
                measures={**fused.measures, "ndcg@10": Estimate(0.625, 0.5, 0.75)},
                difference=replace(
                    gap, measures={**gap.measures, "ndcg@10": Estimate(0.125, -0.5, 1)}
                ),
            ),
        },
    )
    assert lines(shown(table(told)))[:7] == [
        "tiny  4 queries, 3 documents",
        "",
        "mode      ndcg@10  recall@100       mrr@10    ndcg vs dense  p50 ms  p99 ms",
        "dense        .500        .500        1.000                     20.0    40.0",
        f"       .250{TO}1.000   .500{TO}.500  1.000{TO}1.000",
        "fused        .625        .500        1.000            +.125    40.0    80.0",
        f"        .500{TO}.750   .500{TO}.500  1.000{TO}1.000  -.500 to +1.000",
    ]


def test_times_stand_by_stage_and_mode(tmp_path):
    text = [line.split() for line in lines(shown(table(evaluation(tmp_path / "tiny"))))]
    assert ["ms,", "p50", "/", "p99", "dense", "fused"] in text
    assert ["retrieve", "4.00", "/", "8.00", "4.00", "/", "8.00"] in text
    assert ["rerank", "0.50", "/", "0.50"] in text
    assert ["whole", "call", "20.00", "/", "40.00", "40.00", "/", "80.00"] in text


def test_what_to_know_of_the_figures_stands_below_them(tmp_path):
    text = " ".join(shown(table(evaluation(tmp_path / "tiny"))).split())
    assert "95% interval over the queries (2,000 resamples, seed 1)" in text
    assert "note: bm25 ranked the whole corpus by words alone" in text


@pytest.mark.parametrize("width", [80, 200])
def test_four_modes_fit_and_nothing_can_steer_the_terminal(tmp_path, width):
    modes = dict.fromkeys(("dense", "bm25", "fused", "reranked"), NDCG["dense"])
    found = evaluation(tmp_path / "tiny", modes, notes=(EVIL * 9,))
    text = shown(table(found), width=width)
    assert max(map(cell_len, lines(text))) <= width
    assert not set(text) & set("\x1b\x07\x9b")
