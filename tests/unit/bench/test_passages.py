"""The benchmarks of ranking measure with the texts that they say."""

from __future__ import annotations

import json

import pytest

from bench.passages import read_passages, turns

SIZE = 256


@pytest.fixture
def judged(tmp_path):
    rows = [
        {"_id": str(n), "title": f"Note {n}", "text": " ".join(f"w{n}x{i}" for i in range(200))}
        for n in range(8)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "what is w1x1"}) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    return tmp_path


def test_passages_are_whole_words_of_the_corpus_and_of_the_size(judged):
    found = read_passages(judged, 20, size=SIZE, seed=1)
    words = {f"w{n}x{i}" for n in range(8) for i in range(200)}
    assert not found.drawn
    assert len(found.passages) == 20
    assert found.questions == ("what is w1x1",)
    for passage in found.passages:
        assert set(passage.text.split()) <= words
        assert SIZE - len("w0x000 ") <= len(passage.text.encode()) <= SIZE
        assert passage.title == f"Note {passage.text[1]}"


def test_a_small_corpus_is_drawn_from_and_says_so(judged):
    found = read_passages(judged, 500, size=SIZE, seed=1)
    assert found.drawn
    assert len({passage.text for passage in found.passages}) == 500
    assert all(SIZE * 3 // 4 <= len(passage.text.encode()) <= SIZE for passage in found.passages)


def test_the_same_seed_gives_the_same_passages(judged):
    for count in (20, 500):
        one, same, other = (read_passages(judged, count, size=SIZE, seed=s) for s in (1, 1, 2))
        assert one == same
        assert one.passages != other.passages


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="BEIR"):
        read_passages(tmp_path, 1, size=SIZE, seed=1)


def test_questions_take_turns():
    asked = turns(["a", "b", "c"], 7, seed=1)
    assert sorted(asked[:3]) == ["a", "b", "c"]
    assert asked[3:] == (asked * 2)[:4]
