"""Reading a judged collection, and naming what is wrong with one."""

import json

import pytest

from client.evaluating.judged_collection import collection_name
from client.evaluating.judged_set import MAX_QUERY_BYTES, read_judged_set
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
        ("queries.jsonl", '{"_id": "q1", "text": " "}\n', "queries.jsonl:1: text is blank"),
        (
            "queries.jsonl",
            json.dumps({"_id": "q1", "text": "x" * (MAX_QUERY_BYTES + 1)}),
            "queries.jsonl:1: text is longer than 8,192 bytes",
        ),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": "a"}\n\n{"_id": "q1", "text": "b"}\n',
            r"queries.jsonl:3: _id 'q1' stands in .*queries.jsonl:1 already",
        ),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": "\\ud800"}\n',
            "queries.jsonl:1: .* valid Unicode",
        ),
        (
            "corpus.jsonl",
            '{"_id": 1, "text": "x"}\n',
            "corpus.jsonl:1: _id is missing or no string",
        ),
        ("corpus.jsonl", '{"_id": "1", "text": "x", "title": 1}', "corpus.jsonl:1: title is no"),
        (
            "corpus.jsonl",
            '{"_id": "1", "text": "x"}\n' * 2,
            r"corpus.jsonl:2: _id '1' stands in .*corpus.jsonl:1 already",
        ),
        (
            "qrels/test.tsv",
            "q1\t1\t1\nq1\t1\t2\n",
            "test.tsv:2: 1 was graded 1 for q1 before; keep one",
        ),
        ("qrels/test.tsv", "h\nq1\t1\n", "test.tsv:2: expected"),
        ("qrels/test.tsv", "h\nq1\t1\tyes\n", "test.tsv:2: expected"),
        ("qrels/test.tsv", "h\n", "names no relevant document"),
    ],
)
def test_a_broken_line_is_named(folder, name, content, said):
    (folder / name).write_text(content)
    with pytest.raises(InvalidArgument, match=said):
        read_judged_set(folder)


def test_a_byte_that_is_no_text_is_named(folder):
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "1", "text": "\xff"}\n')
    with pytest.raises(InvalidArgument, match=r"corpus\.jsonl:1: not UTF-8"):
        read_judged_set(folder)


def test_files_of_other_systems_are_read_alike(folder):
    plain = read_judged_set(folder)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    found = read_judged_set(folder)
    assert found.queries == plain.queries
    assert list(found.documents()) == list(plain.documents())


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "query\tdocument\n"])
def test_a_header_is_passed_over_and_may_lack(folder, header):
    (folder / "qrels/test.tsv").write_text(f"{header}q1\t1\t2\nq1\t1\t2\n")
    assert [(q.id, q.grades) for q in read_judged_set(folder).queries] == [("q1", {"1": 2})]


def test_another_split_is_read_and_a_missing_one_is_named(folder):
    (folder / "qrels/dev.tsv").write_text("q2\t1\t1\n")
    found = read_judged_set(folder, "dev")
    assert (found.split, [q.id for q in found.queries]) == ("dev", ["q2"])
    (folder / "qrels/test.tsv").unlink()
    with pytest.raises(
        InvalidArgument, match=r"no qrels/test\.tsv; choose with --split one of dev"
    ):
        read_judged_set(folder)
    with pytest.raises(InvalidArgument, match=r"no qrels/\.\./dev\.tsv"):
        read_judged_set(folder, "../dev")
    (folder / "qrels/dev.tsv").unlink()
    with pytest.raises(InvalidArgument, match=r"not in BEIR layout: there is no qrels/test\.tsv"):
        read_judged_set(folder)


def test_what_does_not_fit_is_counted_and_missing_documents_stay_judged(folder):
    (folder / "qrels/test.tsv").write_text("q1\t1\t1\nq1\t9\t1\nq1\t2\t1\nq2\t1\t-1\nq7\t1\t1\n")
    found = read_judged_set(folder)
    assert found.queries[0].grades == {"1": 1, "9": 1, "2": 1}
    assert found.notes == (
        "judgements of 1 query that queries.jsonl lacks were left out",
        "judged without a relevant document and left out: 1 query",
        (
            "relevant but missing from corpus.jsonl, or without text there: 2 documents, counted as"
            " not found"
        ),
    )
    assert found.size == 1
