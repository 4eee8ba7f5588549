"""The baselines of the quality benchmark are what they are called."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.ranking import markdown, run
from bench.ranking_baselines import Scored, score
from client.evaluating.judged_set import read_judged_set
from common.embedding.hashing_embedder import HashingEmbedder


def scored(dense, bm25):
    rows = [np.array([row], np.float32) for row in (dense, bm25)]
    return Scored(["a", "b", "c"], rows[0], rows[1], rows[1]).rankings()


def test_each_baseline_ranks_by_its_own_score():
    found = scored([0.9, 0.5, 0.1], [1.0, 3.0, 2.0])
    assert found["dense"] == [["a", "b", "c"]]
    assert found["bm25s"] == [["b", "c", "a"]]


def test_by_words_alone_a_document_without_any_is_not_found():
    assert scored([0.9, 0.5, 0.1], [0.0, 3.0, 0.0])["bm25s"] == [["b"]]


def test_the_mix_weighs_both_from_their_least_possible_scores():
    # a: 2/2 + 1/4 = 1.25; b: 1.5/2 + 4/4 = 1.75; c: 1.9/2 + 2/4 = 1.45. From the least score that
    # occurs, c would come before b.
    assert scored([1.0, 0.5, 0.9], [1.0, 4.0, 2.0])["simple"] == [["b", "c", "a"]]
    # Without words, meaning alone.
    assert scored([0.1, 0.5, 0.9], [0.0, 0.0, 0.0])["simple"] == [["c", "b", "a"]]


async def test_a_corpus_is_scored_with_titles_and_stems(tmp_path):
    rows = [
        {"_id": "1", "title": "Leases", "text": "of the writer"},
        {"_id": "2", "title": "", "text": "replicas of blocks are placed on racks"},
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q", "text": "placing a replica"}\n{"_id": "p", "text": "lease"}\n'
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t2\t1\np\t1\t1\n")
    found = (await score(read_judged_set(tmp_path), HashingEmbedder())).rankings()
    assert found["bm25s"] == [["2"], ["1"]]


def test_a_run_without_collections_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="BEIR"):
        run(folders=[tmp_path], quick=False)


def test_the_table_tells_losses_as_plainly_as_gains():
    measures = {"ndcg@10": 0.5, "recall@100": 0.9}
    modes = dict.fromkeys(("dense", "bm25s", "bm25s_plus", "simple", "ours"), measures)
    row = modes | {"max_of_both": 0.5, "ours_less_max": -0.004}
    table = markdown({"embedder": "m", "collections": {"one": row}, "mean": row})
    assert "| one | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | -0.004 |" in table
