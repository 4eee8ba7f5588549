"""The client and its command line against a real server: what a user gets, from end to end."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from client.answers import SearchQuery, SearchResponse
from client.cli import app
from client.client import SluiceClient
from client.evaluating.judged_collection import Written, collection_name, write_corpus
from client.evaluating.judged_set import read_judged_set
from common.errors import InvalidArgument, NotFound
from common.identity import document_id
from tests.integration.client.small_collection import TEXTS, documents, unused_name


class TestClient:
    async def test_a_search_finds_what_was_indexed(self, address, collection):
        async with SluiceClient(address) as client:
            query = SearchQuery("kerberos keytab ticket", collection, top_k=2, explain=True)
            answer = await client.search(query)
        first = answer.hits[0]
        assert (first.source_uri, first.title) == ("doc://renew", "DOC://RENEW")
        assert first.document_id == document_id("doc://renew")
        assert {first.text[s.start : s.end] for s in first.highlights} == {
            "kerberos",
            "keytab",
            "ticket",
        }
        assert first.metadata == {"year": 2024, "tags": ["x"]}
        assert first.parts is not None
        assert first.parts.bm25 > 0
        assert answer.explanation is not None
        assert answer.explanation.rerank == "fused"
        assert answer.server_ms > 0
        assert (answer.index_version, answer.degraded) == (1, ())

    async def test_a_write_can_be_read_by_its_token(self, address, collection):
        async with SluiceClient(address) as client:
            changed = documents(version=2, texts={"doc://disk": "The disk is empty again."})
            (written,) = [a async for a in client.index_documents(changed, collection=collection)]
            query = SearchQuery("disk", collection, at_least=written.consistency_token)
            texts = {hit.text for hit in (await client.search(query)).hits}
        assert "The disk is empty again." in texts
        assert TEXTS["doc://disk"] not in texts

    async def test_many_queries_on_one_stream_come_back_with_their_numbers(
        self, address, collection
    ):
        async def queries():
            yield SearchQuery("disk snapshots", collection, top_k=1)
            yield SearchQuery("disk", "no-such-collection")
            yield SearchQuery("queue scheduler", collection, top_k=1)

        async with SluiceClient(address) as client:
            answers = {number: answer async for number, answer in client.search_stream(queries())}
        first, _, third = (answers[number] for number in range(3))
        assert isinstance(first, SearchResponse)
        assert isinstance(third, SearchResponse)
        assert first.hits[0].source_uri == "doc://disk"
        assert isinstance(answers[1], NotFound)
        assert third.hits[0].source_uri == "doc://queue"

    async def test_documents_are_deleted(self, address, collection):
        ids = [document_id("doc://disk"), document_id("doc://never")]
        async with SluiceClient(address) as client:
            outcome = await client.delete_documents(ids, collection=collection)
            described = await client.describe(collection)
        assert outcome == dict(zip(ids, ["deleted", "absent"], strict=True))
        assert described.active_version is not None
        assert described.active_version.documents == 2

    async def test_wrong_input_is_an_error_of_our_tree(self, address, collection):
        async with SluiceClient(address) as client:
            with pytest.raises(InvalidArgument, match=r"^filter:"):
                await client.search(SearchQuery("disk", collection, filter="year >"))
        async with SluiceClient(address, tenant="Not/One") as client:
            with pytest.raises(InvalidArgument, match=r"^tenant:"):
                await client.search(SearchQuery("disk", collection))


class TestCommands:
    def test_search_prints_one_json_object(self, sluice, collection):
        result = sluice("search", "kerberos ticket", "--collection", collection, "--json")
        assert result.exit_code == 0
        answer = json.loads(result.stdout)
        assert answer["query"] == "kerberos ticket"
        assert answer["collection"] == collection
        assert answer["index_version"] == 1
        assert answer["hits"][0]["source_uri"] == "doc://renew"
        assert answer["hits"][0]["parts"] is None
        assert result.stderr == ""

    def test_search_reads_well(self, sluice, collection):
        result = sluice("search", "kerberos ticket", "-c", collection, "-k", "1", "--explain")
        assert result.exit_code == 0
        assert result.stdout.startswith("1.  DOC://RENEW")
        assert TEXTS["doc://renew"] in result.stdout
        assert "retrieve" in result.stdout
        assert "index version 1 · " in result.stdout.splitlines()[-1]

    def test_rerank_and_filter_reach_the_server(self, sluice, collection):
        options = ("--rerank", "lexical", "--filter", "year > 2030", "--json", "--explain")
        answer = json.loads(sluice("search", "disk", "-c", collection, *options).stdout)
        assert answer["hits"] == []
        assert answer["explanation"]["rerank"] == "lexical"

    def test_an_unknown_collection_is_a_failure(self, sluice):
        result = sluice("search", "disk", "--collection", "nowhere")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert "nowhere" in result.stderr
        assert result.stdout == ""

    def test_a_broken_filter_is_wrong_usage_and_points_at_the_place(self, sluice, collection):
        result = sluice("search", "disk", "-c", collection, "--filter", 'lang ~ "en"')
        assert result.exit_code == 2
        assert result.stderr.startswith("error: filter: ")
        assert "character 6" in result.stderr

    def test_collections_are_listed_with_fresh_counts(self, sluice, collection):
        listed = json.loads(sluice("collections", "list", "--json").stdout)["collections"]
        (mine,) = [found for found in listed if found["name"] == collection]
        assert mine["active"]["version"] == 1
        assert mine["versions"][0]["documents"] == 3
        assert collection in sluice("collections", "list").stdout

    def test_a_collection_is_shown(self, sluice, collection):
        shown = json.loads(sluice("collections", "show", collection, "--json").stdout)
        assert shown["versions"][0]["state"] == "active"
        assert sluice("collections", "show", collection).stdout.startswith(collection)

    def test_deleting_asks_first(self, sluice, collection):
        assert sluice("collections", "delete", collection).exit_code == 1
        assert sluice("collections", "show", collection).exit_code == 0
        assert sluice("collections", "delete", collection, "--yes").exit_code == 0
        assert sluice("collections", "show", collection).exit_code == 1

    def test_doctor_sees_a_serving_server(self, sluice, monkeypatch):
        monkeypatch.setenv("SLUICE_EMBEDDING__KIND", "hashing")
        found = json.loads(sluice("doctor", "--json").stdout)
        servers = {c["name"]: c["ok"] for c in found["checks"] if c["name"].endswith("server")}
        assert servers == {"index server": True, "collections server": True, "query server": True}


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / unused_name("tiny")
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": uri, "title": "", "text": text} for uri, text in TEXTS.items()]
    queries = [
        {"_id": "q1", "text": "kerberos keytab"},
        {"_id": "q2", "text": "disk snapshots"},
        {"_id": "q3", "text": "nobody judged this"},
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    qrels = "query-id\tcorpus-id\tscore\nq1\tdoc://renew\t1\nq2\tdoc://disk\t1\n"
    (folder / "qrels/test.tsv").write_text(qrels)
    return folder


class TestEvaluation:
    def test_a_data_set_is_measured_on_a_running_server(self, sluice, dataset):
        result = sluice("eval", str(dataset), "--modes", "lexical,dense", "--no-wait", "--json")
        assert result.exit_code == 0, result.stderr
        report = json.loads(result.stdout)
        assert (report["dataset"], report["queries"]) == (dataset.name, 2)
        assert list(report["modes"]) == ["lexical", "dense"]
        figures = report["modes"]["lexical"]
        assert list(figures)[:5] == ["ndcg@10", "recall@100", "mrr@10", "p50_ms", "p99_ms"]
        assert (figures["ndcg@10"], figures["recall@100"], figures["mrr@10"]) == (1, 1, 1)
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]

    async def test_a_corpus_is_written_once(self, address, dataset):
        judged = read_judged_set(dataset)
        told = []

        def progress(stage, done, total):
            told.append((stage, done, total))

        async with SluiceClient(address) as client:
            written = await write_corpus(client, judged, progress)
            name = written.collection
            assert name == collection_name(judged)
            assert written.token
            assert told[-1] == ("indexing", 3, 3)
            told.clear()
            assert await write_corpus(client, judged, progress) == Written(name)
            assert told == []
            (hit,) = (await client.search(SearchQuery("disk", name, top_k=1))).hits
            await client.delete_documents([hit.document_id], collection=name)
            await write_corpus(client, judged, progress)
            assert told[-1] == ("indexing", 3, 3)

    def test_without_a_target_it_brings_a_server_of_its_own(self, dataset, monkeypatch, environ):
        monkeypatch.setenv("SLUICE_EMBEDDING__KIND", environ["SLUICE_EMBEDDING__KIND"])
        result = CliRunner().invoke(
            app, ["eval", str(dataset), "--modes", "fused", "--no-wait", "--json"]
        )
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["modes"]["fused"]["ndcg@10"] > 0.5
