"""Reading golden queries, and naming what is wrong with them by file and line."""

import json

import pytest

from common.errors import InvalidArgument
from common.golden import MAX_EXPECTED, MAX_QUERIES, MAX_QUERY_BYTES, GoldenCase, load_golden


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        file = tmp_path / "golden.jsonl"
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file

    return write


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "one?"}\n{"_id": "q2", "text": "two?"}\n'
        '{"_id": "q3", "text": "nobody judged this"}\n'
    )
    (tmp_path / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq2\td3\t1\nq1\td1\t2\nq1\td2\t0\nq1\td4\t1\n"
    )
    return tmp_path


def test_a_line_names_one_source_or_several(written):
    file = written(
        {"query": "how?", "expected": "a.md"},
        "",
        {"query": "¿por qué?", "expected": ["b.md", "c.md", "b.md"], "note": "for people"},
    )
    assert load_golden(file) == (
        GoldenCase("how?", ("a.md",)),
        GoldenCase("¿por qué?", ("b.md", "c.md")),
    )


def test_a_folder_gives_what_was_judged_relevant_in_the_order_of_its_queries(folder):
    assert load_golden(folder) == (
        GoldenCase("one?", ("d1", "d4")),
        GoldenCase("two?", ("d3",)),
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("[]", "not a JSON object"),
        ('{"query": "x"', "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ({"expected": "a"}, "query is missing or no string"),
        ({"query": 3, "expected": "a"}, "query is missing or no string"),
        ({"query": " ", "expected": "a"}, "the query is blank"),
        ({"query": "x"}, "expected is missing or neither string nor strings"),
        ({"query": "x", "expected": [1]}, "expected is missing or neither string nor strings"),
        ({"query": "x", "expected": []}, "expected is empty or holds a blank source"),
        ({"query": "x", "expected": ["a", ""]}, "expected is empty or holds a blank source"),
        ({"query": "x", "expected": " "}, "expected is empty or holds a blank source"),
        ('{"query": "\\ud800", "expected": "a"}', "text must be valid Unicode"),
        ('{"query": "x", "expected": "\\ud800"}', "text must be valid Unicode"),
        ({"query": "x" * (MAX_QUERY_BYTES + 1), "expected": "a"}, "the query has 8,193 bytes"),
        (
            {"query": "x", "expected": [str(n) for n in range(MAX_EXPECTED + 1)]},
            "1,001 sources are expected, more than 1,000",
        ),
    ],
)
def test_a_broken_line_is_named(written, row, said):
    file = written({"query": "fine", "expected": "a"}, "", row)
    with pytest.raises(InvalidArgument) as raised:
        load_golden(file)
    assert raised.value.message.startswith(f"{file}:3: {said}")


def test_what_is_just_within_the_bounds_is_taken(written):
    longest = "é" * (MAX_QUERY_BYTES // 2)
    most = [str(number) for number in range(MAX_EXPECTED)]
    assert load_golden(written({"query": longest, "expected": most})) == (
        GoldenCase(longest, tuple(most)),
    )
    with pytest.raises(InvalidArgument, match="8,194 bytes"):
        load_golden(written({"query": f"{longest}é", "expected": "a"}))


def test_there_may_be_so_many_queries_and_no_more(written):
    rows = [{"query": str(number), "expected": "a"} for number in range(MAX_QUERIES)]
    assert len(load_golden(written(*rows))) == MAX_QUERIES
    with pytest.raises(InvalidArgument, match=r"golden\.jsonl holds more than 2,000"):
        load_golden(written(*rows, rows[0]))


def test_text_that_is_not_utf8_is_named(tmp_path):
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b'{"query": "x", "expected": "a"}\n{"query": "caf\xe9", "expected": "a"}\n')
    with pytest.raises(InvalidArgument, match=r"golden\.jsonl:2: not UTF-8"):
        load_golden(file)


def test_a_file_without_a_query_is_no_examination(written, folder):
    with pytest.raises(InvalidArgument, match="holds no golden query"):
        load_golden(written(""))
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    with pytest.raises(InvalidArgument, match="holds no golden query"):
        load_golden(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("queries.jsonl", None, "there is no queries.jsonl"),
        ("qrels/test.tsv", None, "there is no qrels/test.tsv"),
        ("qrels/test.tsv", "h\nq1\td1\tyes\n", "test.tsv:2: expected query-id, corpus-id"),
        ("queries.jsonl", '{"_id": "q1"}\n', "queries.jsonl:1: text is missing"),
        ("queries.jsonl", '{"text": "one?"}\n', "queries.jsonl:1: _id is missing"),
    ],
)
def test_a_broken_folder_is_named(folder, name, content, said):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(InvalidArgument) as raised:
        load_golden(folder)
    assert said in raised.value.message


def test_a_file_that_is_not_there_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_golden(tmp_path / "golden.jsonl")
