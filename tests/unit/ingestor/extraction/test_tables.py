import codecs
import gzip
import io
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from pyarrow import orc, parquet

from ingestor.extraction import tables
from ingestor.extraction.extracted import Part, Refusal
from ingestor.extraction.format_rules import TableRule, fields
from ingestor.extraction.identities import Identities
from ingestor.extraction.worker_protocol import Reading
from ingestor.faults import Cause
from ingestor.settings import ExtractionSettings

ROWS: list[dict[str, Any]] = [
    {"key": "a b", "title": "First", "body": "Grüße", "n": 1, "note": None},
    {"key": "c/d", "title": "", "body": " ", "n": 2, "note": "blank"},
    {"key": "e", "title": "Third", "body": "third", "n": 3, "note": "last"},
]
AVRO_SCHEMA = {
    "type": "record",
    "name": "row",
    "fields": [
        {"name": "key", "type": "string"},
        {"name": "title", "type": "string"},
        {"name": "body", "type": "string"},
        {"name": "n", "type": "long"},
        {"name": "note", "type": ["null", "string"]},
    ],
}


def written(kind: str, rows: list[dict[str, Any]], codec: str = "null") -> bytes:
    """The rows as a file of this format."""
    buffer = io.BytesIO()
    match kind:
        case "parquet":
            parquet.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=2)
        case "orc":
            orc.write_table(pa.Table.from_pylist(rows), buffer)
        case "avro":
            fastavro.writer(buffer, AVRO_SCHEMA, rows, codec=codec)
        case "jsonl":
            buffer.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        case _:
            tab = "\t" if kind == "tsv" else ","
            for cells in (rows[0], *(row.values() for row in rows)):
                line = tab.join("" if cell is None else str(cell) for cell in cells)
                buffer.write(f"{line}\n".encode())
    return buffer.getvalue()


def read(
    kind: Any, data: bytes, settings: ExtractionSettings | None = None, **rule: Any
) -> list[Part | None]:
    made = TableRule(match="*", format=kind, **rule)
    reading = Reading(kind, "file", rule=fields(made))
    limits = (settings or ExtractionSettings()).limits()
    return list(tables.parts(reading, io.BufferedReader(io.BytesIO(data)), limits))


def refusal(kind: str, data: bytes, **rule: Any) -> Refusal:
    with pytest.raises(Refusal) as raised:
        read(kind, data, **rule)
    return raised.value


@pytest.mark.parametrize("kind", ["parquet", "orc", "avro", "csv", "tsv", "jsonl"])
def test_each_row_is_a_document(kind):
    rule: dict[str, Any] = {
        "id": "key",
        "text": ["body"],
        "title": "title",
        "metadata": ["n", "note"],
    }
    first, blank, third = read(kind, written(kind, ROWS), **rule)
    assert blank is None
    assert first is not None
    assert third is not None
    assert (first.fragment, third.fragment) == ("id=a%20b", "id=e")
    assert (first.extracted.text, third.extracted.text) == ("Grüße", "third")
    assert (first.extracted.title, third.extracted.title) == ("First", "Third")
    assert first.extracted.media_type == "text/plain"
    one, three = ("1", "3") if kind in {"csv", "tsv"} else (1, 3)
    assert first.extracted.metadata == {"n": one}
    assert third.extracted.metadata == {"n": three, "note": "last"}


@pytest.mark.parametrize("kind", ["parquet", "orc", "avro", "csv", "tsv", "jsonl"])
def test_without_a_choice_every_column_is_text_and_rows_are_numbered(kind):
    parts = read(kind, written(kind, ROWS))
    assert [part and part.fragment for part in parts] == ["row=0", "row=1", "row=2"]
    assert parts[2] is not None
    assert parts[2].extracted.text == "key: e\ntitle: Third\nbody: third\nn: 3\nnote: last"
    assert parts[2].extracted.title == "file row 2"


@pytest.mark.parametrize("kind", ["parquet", "orc", "avro", "csv"])
def test_a_column_that_does_not_exist_is_named_with_those_that_do(kind):
    raised = refusal(kind, written(kind, ROWS), text=["body"], metadata=["no_such"])
    assert raised.fault.cause == Cause.MALFORMED
    assert "'no_such'" in raised.fault.message
    assert "body, key" in raised.fault.message


def test_json_lines_without_any_column_of_the_text_are_refused_but_others_may_lack():
    data = b'{"a": {"t": null}, "b": 1}\n{"b": 2}\n'
    raised = refusal("jsonl", data, text=["body", "note"])
    assert "no column 'body'; it has a, b" in raised.fault.message
    assert read("jsonl", data, text=["body", "a.t"]) == [None, None]
    parts = read("jsonl", data, text=["b"], title="title", metadata=["m.n"])
    assert [part and part.extracted.text for part in parts] == ["1", "2"]


@pytest.mark.parametrize("kind", ["parquet", "orc", "avro", "csv", "jsonl"])
def test_rows_of_one_identity_are_refused(kind):
    raised = refusal(kind, written(kind, [*ROWS, ROWS[0]]), id="key", text=["body"])
    assert raised.fault.cause == Cause.MALFORMED
    assert "rows 0 and 3" in raised.fault.message


def test_a_row_without_identity_is_refused():
    raised = refusal("jsonl", b'{"k": "x", "t": "a"}\n{"k": null, "t": "b"}', id="k", text=["t"])
    assert "row 1 has no 'k'" in raised.fault.message


@pytest.mark.parametrize("kind", ["parquet", "orc", "avro"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_broken_binary_table_is_an_error(kind, share):
    whole = written(kind, ROWS * 50)
    cut = whole[: int(len(whole) * share)]
    with pytest.raises(Exception) as raised:  # noqa: PT011 — the worker makes any of them a fault
        read(kind, cut)
    assert not isinstance(raised.value, MemoryError)


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2"])
def test_codecs_of_avro(codec):
    assert len(read("avro", written("avro", ROWS * 40, codec), text=["title"])) == 120


def test_several_text_columns_and_templates():
    data = written("jsonl", ROWS)
    first = read("jsonl", data, text=["title", "body", "note"])[0]
    assert first is not None
    assert first.extracted.text == "First\n\nGrüße"
    third = read("jsonl", data, template="{title} {{of}} {note}\n{body}")[2]
    assert third is not None
    assert third.extracted.text == "Third {of} last\nthird"
    assert read("jsonl", b'{"a": "", "b": null}\n{"a": "x"}', template="A: {a}")[0] is None


def test_typed_values_become_metadata_of_their_types():
    table = pa.table(
        {
            "s": ["x\0" + "y" * 2000],
            "i": pa.array([7], pa.int64()),
            "u": pa.array([2**63], pa.uint64()),
            "f": [0.5],
            "nan": [float("nan")],
            "b": [True],
            "l": [["p", None, "q"]],
            "d": [date(2026, 1, 2)],
            "ns": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns")),
            "tz": pa.array(
                [datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
                pa.timestamp("us", "Europe/Berlin"),
            ),
            "dec": [Decimal("1.50")],
            "raw": [b"bytes"],
            "bin": [b"\xff\0"],
            "nested": [{"k": [1]}],
            "t": ["text"],
        }
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    columns = [name for name in table.column_names if name != "t"]
    (part,) = read("parquet", buffer.getvalue(), text=["t"], metadata=columns)
    assert part is not None
    assert part.extracted.metadata == {
        "s": "x\ufffd" + "y" * 998,
        "i": 7,
        "u": str(2**63),
        "f": 0.5,
        "b": True,
        "l": ["p", "q"],
        "d": "2026-01-02",
        "ns": "2023-11-14T22:13:20Z",
        "tz": "2026-01-01T00:00:00Z",
        "dec": "1.50",
        "raw": "bytes",
        "nested": '{"k": [1]}',
    }


def test_times_of_avro_are_rfc_3339():
    schema = {
        "type": "record",
        "name": "row",
        "fields": [
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "t", "type": "string"},
        ],
    }
    buffer = io.BytesIO()
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    fastavro.writer(buffer, schema, [{"at": at, "t": "text"}])
    (part,) = read("avro", buffer.getvalue(), text=["t"], metadata=["at"])
    assert part is not None
    assert part.extracted.metadata == {"at": "2026-03-04T05:06:07Z"}


def test_names_with_dots_reach_into_records_and_come_first_as_they_are():
    data = b'{"m": {"text": "inner", "id": 5}, "m.id": 6}'
    (part,) = read("jsonl", data, id="m.id", text=["m.text"])
    assert part is not None
    assert (part.fragment, part.extracted.text) == ("id=6", "inner")
    table = pa.table({"m": [{"text": "inner", "other": "x"}]})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    (part,) = read("parquet", buffer.getvalue(), text=["m.text"])
    assert part is not None
    assert part.extracted.text == "inner"


def test_only_the_columns_of_the_rule_are_read():
    rows = [{"t": "x" * 10, "large": f"{number:09d}" * 10_000} for number in range(64)]
    data = written("parquet", rows)

    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.taken += len(content)
            return content

    file = Counting(data)
    rule = TableRule(match="*", format="parquet", text=("t",))
    reading = Reading("parquet", "file", rule=fields(rule))
    parts = list(tables.parts(reading, file, ExtractionSettings().limits()))
    assert len(parts) == 64
    assert file.taken < len(data) / 2


def test_cells_of_csv_may_hold_lines_delimiters_and_quotes():
    data = b'id;t\n1;"two\r\nlines; and ""quotes"""\n\n2;plain;more\n'
    first, second = read("csv", data, id="id", text=["t"])
    assert first is not None
    assert first.extracted.text == 'two\nlines; and "quotes"'
    assert second is not None
    assert second.fragment == "id=2"
    named = read("csv", data)[1]
    assert named is not None
    assert named.extracted.text == "id: 2\nt: plain\ncolumn 3: more"


def test_a_quote_that_is_never_closed_is_refused_in_bounded_memory():
    data = b'a\n"' + b"line\n" * 1000
    with pytest.raises(Refusal) as raised:
        read("csv", data, ExtractionSettings(max_characters=1000))
    assert raised.value.fault.cause == Cause.TOO_LARGE


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"", "utf-8"),
    ],
)
def test_encodings_of_text_tables(mark, encoding):
    for kind in ("csv", "jsonl"):
        data = mark + written(kind, ROWS).decode().encode(encoding)
        first = read(kind, data, id="key", text=["body"])[0]
        assert first is not None
        assert (first.fragment, first.extracted.text) == ("id=a%20b", "Grüße")


def test_the_fallback_encoding_reads_lines_that_are_not_utf_8():
    data = "id,t\n1,Grüße\n".encode("cp1252")
    (part,) = read("csv", data, ExtractionSettings(fallback_encoding="cp1252"), text=["t"])
    assert part is not None
    assert part.extracted.text == "Grüße"


def test_lines_that_are_not_json_are_passed_over_but_still_counted():
    parts = read("jsonl", b'{"t": "a"}\nbroken\n\n[1, 2]\n"\\ud800x"\n' + b"[" * 10_000)
    assert [part and (part.fragment, part.extracted.text) for part in parts] == [
        ("row=0", "t: a"),
        None,
        ("row=2", "value: 1, 2"),
        ("row=3", "value: \ufffdx"),
        None,
    ]
    assert refusal("jsonl", b"no\njson\n").fault.cause == Cause.MALFORMED


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_is_no_text_is_no_table(kind):
    assert refusal(kind, b"\x7fELF\0\0\1").fault.cause == Cause.NOT_TEXT


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_row_beyond_the_bound_is_refused(kind):
    settings = ExtractionSettings(max_characters=100)
    rows = [{"t": "x" * 60, "u": "y" * 60}]
    with pytest.raises(Refusal) as raised:
        read(kind, written(kind, rows), settings)
    assert raised.value.fault.cause == Cause.TOO_LARGE


def test_an_identity_too_long_for_a_uri_is_refused():
    data = json.dumps({"k": "é" * 1000, "t": "x"}).encode()
    raised = refusal("jsonl", data, id="k", text=["t"])
    assert "longer than" in raised.fault.message


def test_identities_are_told_apart_however_many(monkeypatch):
    identities = Identities()
    assert all(identities.add(f"id {number}", number) is None for number in range(20_000))
    assert all(identities.add(f"id {number}", 1) == number for number in range(0, 20_000, 7))
    monkeypatch.setattr("ingestor.extraction.identities._MAX_SLOTS", 2**15)
    with pytest.raises(Refusal) as raised:
        list(map(identities.add, map(str, range(10_000)), range(10_000)))
    assert raised.value.fault.cause == Cause.TOO_LARGE


def test_what_is_nested_beyond_reason_is_passed_over_wherever_it_stands():
    deep = "[" * 600 + "1" + "]" * 600
    lines = f'{{"t": "x", "c": {deep}}}\n{{"t": "y", "c": 1}}\n'.encode()
    for rule in ({"metadata": ["c"]}, {"title": "c"}, {"id": "c"}):
        first, second = read("jsonl", lines, text=["t"], **rule)
        assert first is None
        assert second is not None


def test_the_names_of_columns_are_shown_in_part():
    header = ",".join("x" * 5000 + str(number) for number in range(60)).encode()
    message = refusal("csv", header + b"\n1\n", text=["body"]).fault.message
    assert "no column 'body'; it has xxx" in message
    assert len(message) < 6000


NS = 1_700_000_000_123_456_789
TIME = "2023-11-14T22:13:20.123456Z"
FAR = 2**62


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.large_list(pa.timestamp("ns")), [NS], f"c: {TIME}"),
        (pa.list_(pa.timestamp("ns"), 1), [NS], f"c: {TIME}"),
        (pa.map_(pa.string(), pa.timestamp("ns")), [("k", NS)], f"c.k: {TIME}"),
        (
            pa.list_(pa.struct([("t", pa.timestamp("ns", "Asia/Tokyo"))])),
            [{"t": NS}],
            f"c.t: {TIME}",
        ),
        (pa.timestamp("ms"), NS // 10**6, "c: 2023-11-14T22:13:20.123000Z"),
        (pa.duration("s"), FAR, f"c: {FAR}"),
        (pa.timestamp("us"), FAR, f"c: <value out of range: {FAR}>"),
        (pa.list_(pa.timestamp("us")), [FAR], f"c: <value out of range: {FAR}>"),
        (pa.struct([("t", pa.timestamp("us"))]), {"t": FAR}, f"c.t: <value out of range: {FAR}>"),
        (
            pa.map_(pa.string(), pa.timestamp("us")),
            [("k", FAR)],
            f"c.k: <value out of range: {FAR}>",
        ),
    ],
)
def test_times_in_whatever_they_are_nested_in(kind, value, text):
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"c": pa.array([value, None], kind)}), buffer)
    first, second = read("parquet", buffer.getvalue())
    assert first is not None
    assert first.extracted.text == text
    assert second is None


def test_a_time_of_avro_that_python_does_not_reach_is_its_number():
    kinds = {"int-date": 2**30, "long-timestamp-millis": 2**60, "long-timestamp-micros": 2**62}
    for kind, number in kinds.items():
        base, _, logical = kind.partition("-")
        column = {"name": "c", "type": {"type": base, "logicalType": logical}}
        buffer = io.BytesIO()
        fastavro.writer(
            buffer, {"type": "record", "name": "r", "fields": [column]}, [{"c": number}, {"c": 0}]
        )
        for _ in range(2):
            first, second = read("avro", buffer.getvalue())
            assert first is not None
            assert first.extracted.text == f"c: {number}"
            assert second is not None
            assert second.extracted.text.startswith("c: 1970-01-01")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_bomb_of_blank_rows_is_refused_early(kind, monkeypatch):
    monkeypatch.setattr("ingestor.extraction.expansion._FREE_BYTES", 2**20)
    blank = b"1,\n" if kind == "csv" else b'{"body":""}\n'
    data = gzip.compress(b"id,body\n" + blank * 2**19)
    reading = Reading(
        kind, "file", codec="gzip", rule=fields(TableRule(match="*", format=kind, text=("body",)))
    )
    parts = tables.parts(reading, io.BytesIO(data), ExtractionSettings().limits())
    with pytest.raises(Refusal) as raised:
        list(parts)
    assert raised.value.fault.cause == Cause.TOO_LARGE
