import codecs
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.extraction.plain_text import (
    Decoded,
    Rows,
    decode,
    decode_html,
    markdown_title,
    render_csv,
    render_json_lines,
)
from ingestor.faults import Cause, Fault

LIMIT = 10_000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"plain", Decoded("plain")),
        ("Grüße 😀".encode(), Decoded("Grüße 😀")),
        (codecs.BOM_UTF8 + "é".encode(), Decoded("é")),
        (codecs.BOM_UTF16_LE + "é1".encode("utf-16-le"), Decoded("é1")),
        (codecs.BOM_UTF16_BE + "é1".encode("utf-16-be"), Decoded("é1")),
        (codecs.BOM_UTF32_LE + "é1".encode("utf-32-le"), Decoded("é1")),
        (b"a\r\nb\rc\nd", Decoded("a\nb\nc\nd")),
        (
            b"thirty good characters, one bad \xff",
            Decoded("thirty good characters, one bad \ufffd", 1),
        ),
        (b"", Decoded("")),
        (b"\x1b[31mred\x1b[0m and colours stay", Decoded("\x1b[31mred\x1b[0m and colours stay")),
    ],
)
def test_decoding(data, expected):
    assert decode(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"text with a \0 byte",
        bytes(range(128, 256)),
        b"\x01\x02\x03\x04abc",
        "é".encode("utf-16-le") * 20 + b"\0",
        codecs.BOM_UTF16_LE + b"\x00\xd8" * 10,
    ],
)
def test_what_is_no_text_is_said_to_be_none(data):
    fault = decode(data)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.NOT_TEXT


def test_a_fallback_encoding_reads_what_is_not_utf8():
    data = "Gr\xfc\xdfe".encode("latin-1")
    assert decode(data, "cp1252") == Decoded("Grüße")
    assert decode("é".encode(), "cp1252") == Decoded("é")
    undefined = b"only \x81 is undefined in this"
    assert decode(undefined, "cp1252") == Decoded("only \ufffd is undefined in this", 1)


def good(result: object) -> Any:
    assert not isinstance(result, Fault)
    return result


def test_html_declares_its_encoding():
    page = '<meta charset="iso-8859-1"><p>Gr\xfc\xdfe'.encode("latin-1")
    assert decode_html(page) == Decoded('<meta charset="iso-8859-1"><p>Grüße')
    old = "<meta http-equiv=x content='text/html; charset=shift_jis'>\u65e5\u672c".encode(
        "shift_jis"
    )
    assert "日本" in good(decode_html(old)).text
    unknown = b'<meta charset="martian"><p>twenty characters at least \xfc'
    assert good(decode_html(unknown)).replaced == 1


@pytest.mark.parametrize("declared", ["undefined", "rot13", "hex", "no-such"])
def test_a_page_that_declares_no_encoding_of_text_is_read_all_the_same(declared):
    page = f'<meta charset="{declared}">caf'.encode() + b"\xe9 au lait, s'il vous plait"
    decoded = decode_html(page)
    assert isinstance(decoded, Decoded)
    assert (decoded.text[-23:], decoded.replaced) == ("\ufffd au lait, s'il vous plait"[-23:], 1)


def test_half_a_surrogate_pair_is_replaced():
    rows = render_json_lines('{"a": "cut \\ud83d"}\n"whole \\ud83d\\ude00"', max_characters=1000)
    assert rows == Rows("a: cut \ufffd\n\nwhole \U0001f600")
    decoded = decode_html(b'<meta charset="unicode_escape">\\ud83d caf\xe9 au lait')
    assert decoded == Decoded('<meta charset="unicode_escape">\ufffd caf\xe9 au lait', 1)


@given(st.binary(max_size=200))
def test_decoding_never_fails_and_keeps_no_nul(data):
    decoded = decode(data)
    if isinstance(decoded, Decoded):
        assert "\0" not in decoded.text
        decoded.text.encode()


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# A title #\ntext", "A title"),
        ("intro\n\n## Second\n# First", "Second"),
        ("---\ntitle: 'From front'\nx: 1\n---\n# Heading", "From front"),
        ("---\nx: 1\n---\n# Heading", "Heading"),
        ("Underlined\n=====\n", "Underlined"),
        ("```\n# a comment\n```\n# Real", "Real"),
        ("#hashtag\nno heading", ""),
        ("", ""),
    ],
)
def test_markdown_titles(text, title):
    assert markdown_title(text) == title


def test_a_heading_of_blanks_takes_no_time():
    started = time.perf_counter()
    assert markdown_title("# a" + " " * 100_000 + "b") == "a" + " " * 100_000 + "b"
    assert time.perf_counter() - started < 1


def test_rows_of_csv_stand_by_their_columns():
    text = 'host,port,note\nnn1,8020,"line one\nline two"\nnn2,,\n\nnn3,1,x,extra\n'
    assert render_csv(text, max_characters=LIMIT) == Rows(
        "host: nn1\nport: 8020\nnote: line one\nline two\n\n"
        "host: nn2\n\n"
        "host: nn3\nport: 1\nnote: x\ncolumn 4: extra"
    )
    assert render_csv("a;b\n1;2\n", max_characters=LIMIT) == Rows("a: 1\nb: 2")
    assert render_csv("a\tb\n1\t2,3\n", max_characters=LIMIT, delimiter="\t") == Rows(
        "a: 1\nb: 2,3"
    )
    assert render_csv("a,b\n", max_characters=LIMIT) == Rows("a, b")
    assert render_csv("", max_characters=LIMIT) == Rows("")


def test_csv_that_cannot_be_read_says_where():
    fault = render_csv("a,b\n1," + "x" * 140_000, max_characters=LIMIT)
    assert isinstance(fault, Fault)
    assert (fault.cause, fault.message[:7]) == (Cause.MALFORMED, "line 2:")
    assert "xxx" not in fault.message


def test_json_lines():
    lines = [
        {"id": 7, "ok": True, "none": None, "empty": "", "tags": ["a", 1], "où": "là"},
        {"a": {"b": {"c": 1.5}}, "list": [{"x": 1}, {"x": 2}]},
        "just text",
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    assert render_json_lines(text, max_characters=LIMIT) == Rows(
        "id: 7\nok: true\ntags: a, 1\noù: là\n\na.b.c: 1.5\nlist.x: 1\nlist.x: 2\n\njust text"
    )


def test_a_broken_line_of_json_is_kept_and_counted():
    rows = render_json_lines('{"a": 1}\n{"a": 2\n\n{"a": 3}\n', max_characters=LIMIT)
    assert rows == Rows('a: 1\n\n{"a": 2\n\na: 3', broken=1)
    fault = render_json_lines("nothing\nof it", max_characters=LIMIT)
    assert isinstance(fault, Fault)
    assert fault.cause == Cause.MALFORMED
    deep = "[" * 100_000
    assert good(render_json_lines(f'{deep}\n{{"a": 1}}', max_characters=10**6)).broken == 1


def test_what_rows_become_is_bounded():
    wide = ",".join(f"{'n' * 100}{number}" for number in range(20))
    rows = wide + "\n" + ("1," * 19 + "1\n") * 100
    for fault in (
        render_csv(rows, max_characters=1000),
        render_json_lines('{"a": 1}\n' * 1000, max_characters=1000),
    ):
        assert isinstance(fault, Fault)
        assert fault.cause == Cause.TOO_LARGE
