"""`sluice eval` on a small data set in BEIR layout and a real server: figures, files, refusals."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from bench.random_cross_encoder import write_cross_encoder
from client.cli import app
from client.client import SluiceClient
from client.evaluating.judged_collection import collection_name, write_corpus
from client.evaluating.judged_set import read_judged_set
from common.errors import FailedPrecondition
from tests.integration.client.small_collection import unused_name

# Words and nothing else tell these apart, and the embedder of these tests only hashes words.
CORPUS = {
    "renew": ("Kerberos", "Renew the kerberos ticket with a keytab before it expires."),
    "disk": ("Disks", "The disk is full: add machines or delete snapshots."),
    "queue": ("", "Applications wait in the queue until the scheduler finds room."),
    "lease": ("Leases", "A lease that nobody renews expires, and its file is closed."),
    "safe": ("Safe mode", "The NameNode stays in safe mode until enough blocks are reported."),
}
QUERIES = {
    "q1": "kerberos keytab ticket",
    "q2": "delete snapshots of a full disk",
    "q3": "applications in the queue of the scheduler",
    "q4": "nobody judged this",
}
# Where it does not matter how words are weighed.
NOW = ("--no-wait",)
QRELS = "query-id\tcorpus-id\tscore\nq1\trenew\t2\nq1\tlease\t1\nq2\tdisk\t1\nq3\tqueue\t1\n"


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / unused_name("judged")
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": i, "title": title, "text": text} for i, (title, text) in CORPUS.items()]
    queries = [{"_id": id_, "text": text} for id_, text in QUERIES.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "qrels/test.tsv").write_text(QRELS)
    return folder


class TestFigures:
    def test_modes_are_measured_side_by_side(self, sluice, dataset):
        result = sluice("eval", str(dataset), "--modes", "dense,bm25,fused", *NOW, "--json")
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout)
        assert (told["dataset"], told["queries"]) == (dataset.name, 3)
        assert (told["documents"], told["split"]) == (5, "test")
        assert list(told["modes"]) == ["dense", "bm25", "fused"]
        bm25 = told["modes"]["bm25"]
        assert (bm25["recall@100"], bm25["mrr@10"]) == (1, 1)
        low, high = bm25["ndcg@10_interval"]
        assert 0 < low <= bm25["ndcg@10"] <= high <= 1
        assert 0 < bm25["p50_ms"] <= bm25["p90_ms"] <= bm25["p99_ms"]
        assert {"route", "embed", "retrieve", "rerank", "assemble"} <= set(bm25["stages_ms"])
        assert "rerank" not in told["modes"]["dense"]["stages_ms"]
        within = sum(stage["p50"] for stage in bm25["stages_ms"].values())
        assert 0 < within < bm25["p99_ms"] * 2
        gap = bm25["difference"]
        assert gap["ndcg@10"] == pytest.approx(bm25["ndcg@10"] - told["modes"]["dense"]["ndcg@10"])
        assert gap["better"] + gap["equal"] + gap["worse"] == 3
        assert bm25["candidates"] == 2000
        assert told["modes"]["fused"]["candidates"] == 200
        assert "bm25 ranked the whole corpus by words alone" in told["notes"]

    def test_words_are_weighed_by_the_whole_corpus_once_they_are_counted(self, sluice, dataset):
        result = sluice("eval", str(dataset), "--modes", "fused", "--json")
        told = json.loads(result.stdout)
        assert told["statistics"] == "corpus"
        assert told["settings"]["words counted over"] == "5 chunks of the index version"
        assert not [note for note in told["notes"] if note.startswith("candidate statistics")]

    def test_many_at_a_time_and_another_split_are_the_same_ranking(self, sluice, dataset):
        (dataset / "qrels/dev.tsv").write_text(QRELS)
        (dataset / "qrels/test.tsv").unlink()
        ask = ("eval", str(dataset), "--modes", "bm25", "--split", "dev", *NOW, "--json")
        one = json.loads(sluice(*ask).stdout)
        many = json.loads(sluice(*ask, "--concurrency", "8").stdout)
        assert (one["split"], one["modes"]["bm25"]["mrr@10"]) == ("dev", 1)
        for name in ("ndcg@10", "recall@100", "mrr@10", "ndcg@10_interval"):
            assert one["modes"]["bm25"][name] == many["modes"]["bm25"][name]

    def test_the_older_name_of_bm25_asks_the_same(self, sluice, dataset):
        told = json.loads(sluice("eval", str(dataset), "--modes", "lexical", *NOW, "--json").stdout)
        assert list(told["modes"]) == ["lexical"]
        assert told["modes"]["lexical"]["candidates"] == 2000


class TestFiles:
    def test_the_table_the_page_and_the_run_file_agree(self, sluice, dataset, tmp_path):
        page, run = tmp_path / "page.html", tmp_path / "run.jsonl"
        files = ("--report", str(page), "--out", str(run))
        result = sluice("eval", str(dataset), "--modes", "dense,bm25", *NOW, *files)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(f"{dataset.name}  3 queries, 5 documents\n")
        rows = [json.loads(line) for line in run.read_text().splitlines()]
        assert [(row["mode"], row["query_id"]) for row in rows] == [
            (mode, query) for mode in ("dense", "bm25") for query in ("q1", "q2", "q3")
        ]
        for row in rows:
            documents, scores = zip(*row["documents"], strict=True)
            assert sorted(documents) == sorted(CORPUS)
            assert list(scores) == sorted(scores, reverse=True)
        first = rows[3]
        assert first["documents"][0][0] == "renew"
        mean = sum(row["ndcg@10"] for row in rows[3:]) / 3
        html = page.read_text()
        assert f"<td>{mean:.3f}<small>" in html
        assert f"{mean:.3f}".removeprefix("0") in result.stdout
        assert collection_name(read_judged_set(dataset)) in html
        assert not re.search(r"<script|https?:|src=", html)


class TestRefusals:
    def test_a_server_without_a_cross_encoder_says_so_before_it_indexes(self, sluice, dataset):
        result = sluice("eval", str(dataset), "--modes", "dense,reranked")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: mode reranked: ")
        assert "cross-encoder" in result.stderr
        assert "or leave the mode out of --modes" in result.stderr
        shown = sluice("collections", "show", collection_name(read_judged_set(dataset)), "--json")
        assert json.loads(shown.stdout)["versions"][0]["documents"] == 0

    def test_a_broken_line_is_wrong_usage_and_is_named(self, sluice, dataset):
        (dataset / "qrels/test.tsv").write_text(QRELS + "q1\trenew\n")
        result = sluice("eval", str(dataset))
        assert result.exit_code == 2
        assert "test.tsv:6: expected query-id, corpus-id and a whole number" in result.stderr

    async def test_a_collection_that_holds_something_else_is_not_measured(self, address, dataset):
        from client.evaluating.asking import Plan, ask_all  # noqa: PLC0415  # only here
        from client.indexing import Document  # noqa: PLC0415  # only here

        async def another():
            yield Document("doc://another", "Something else in the queue.", 1)

        judged = read_judged_set(dataset)
        async with SluiceClient(address) as client:
            written = await write_corpus(client, judged, lambda *_: None)
            stream = client.index_documents(another(), collection=written.collection)
            assert [a.outcome async for a in stream] == ["indexed"]
            with pytest.raises(FailedPrecondition, match="not of this corpus; delete"):
                await ask_all(client, judged, written, Plan(("dense",)), lambda *_: None)


def test_a_server_with_a_cross_encoder_is_measured_with_it(dataset, tmp_path, monkeypatch, environ):
    write_cross_encoder(
        tmp_path / "pairs", layers=1, hidden=32, heads=2, intermediate=64, vocabulary=2000, seed=1,
        int8=False,
    )  # fmt: skip
    monkeypatch.setenv("SLUICE_EMBEDDING__KIND", environ["SLUICE_EMBEDDING__KIND"])
    monkeypatch.setenv("SLUICE_QUERY__CROSS_ENCODER__FOLDER", str(tmp_path / "pairs"))
    run = tmp_path / "run.jsonl"
    ask = ["eval", str(dataset), "--modes", "fused,reranked", *NOW, "--json", "--out", str(run)]
    result = CliRunner().invoke(app, ask)
    assert result.exit_code == 0, result.stderr
    modes = json.loads(result.stdout)["modes"]
    assert modes["reranked"]["stages_ms"]["cross_encode"]["p50"] > 0
    assert "cross_encode" not in modes["fused"]["stages_ms"]
    assert modes["reranked"]["degraded"] == {}
    # Random weights order by nothing: what matters is that they did.
    rows = [json.loads(line)["documents"] for line in run.read_text().splitlines()]
    assert rows[:3] != rows[3:]
    for ranked in rows[3:]:
        assert [score for _, score in ranked] == sorted((s for _, s in ranked), reverse=True)
