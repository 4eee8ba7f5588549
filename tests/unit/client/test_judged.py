"""Reading a judged collection, and naming what is wrong with one."""

import json

import pytest

from client.evaluation import collection_name
from client.judged import read_judged_set
from common.errors import InvalidArgument
from common.identity import check_collection


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "My Set"
    (folder / "qrels").mkdir(parents=True)
    write(
        folder, "corpus.jsonl", [{"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "text": " "}]
    )
    write(folder, "queries.jsonl", [{"_id": "q1", "text": "a?"}, {"_id": "q2", "text": "b?"}])
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t2\nq2\t1\t0\n")
    return folder


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_queries_without_a_relevant_document_are_left_out(folder):
    assert [(q.id, q.grades) for q in read_judged_set(folder).queries] == [("q1", {"1": 2})]


def test_blank_documents_are_left_out(folder):
    assert [document.id for document in read_judged_set(folder).documents()] == ["1"]


def test_another_corpus_is_another_collection(folder):
    before = collection_name(read_judged_set(folder))
    assert check_collection(before).startswith("my-set-")
    write(folder, "corpus.jsonl", [{"_id": "1", "title": "T", "text": "y"}])
    assert collection_name(read_judged_set(folder)) != before


def test_a_missing_file_is_named(folder):
    (folder / "queries.jsonl").unlink()
    with pytest.raises(InvalidArgument, match=r"no queries\.jsonl"):
        read_judged_set(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "queries.jsonl",
            '{"_id": "q1", "text": "a?"}\n[]\n',
            "queries.jsonl:2: not a JSON object",
        ),
        ("queries.jsonl", '{"_id": "q1"}\n', "queries.jsonl:1: text is missing"),
        ("qrels/test.tsv", "h\nq1\t1\n", "test.tsv:2: expected"),
        ("qrels/test.tsv", "h\nq1\t1\tyes\n", "test.tsv:2: expected"),
        ("qrels/test.tsv", "h\n", "names no relevant document"),
    ],
)
def test_a_broken_line_is_named(folder, name, content, said):
    (folder / name).write_text(content)
    with pytest.raises(InvalidArgument, match=said):
        read_judged_set(folder)
