import codecs
import gzip
import io
from typing import Any

import pytest

from ingestor.extraction import line_cutting
from ingestor.extraction.extracted import Part, Refusal
from ingestor.extraction.format_rules import LinesRule, LogRule, fields
from ingestor.extraction.line_stream import lines
from ingestor.extraction.worker_protocol import Reading
from ingestor.faults import Cause
from ingestor.settings import ExtractionSettings


def cut(
    rule: LinesRule | LogRule, data: bytes, codec: str = "", **settings: Any
) -> list[Part | None]:
    reading = Reading(rule.format, "a.log", codec=codec, rule=fields(rule))
    limits = ExtractionSettings(**settings).limits()
    return list(line_cutting.parts(reading, io.BytesIO(data), limits))


def found(parts: list[Part | None]) -> list[tuple[str, str] | None]:
    return [(part.fragment, part.extracted.text) if part else None for part in parts]


def test_every_so_many_lines_are_a_document():
    rule = LinesRule(match="*", format="lines", lines=2)
    parts = cut(rule, b"a\nb\n\n \nc\r\nd\ne")
    assert found(parts) == [("line=0", "a\nb"), None, ("line=4", "c\nd"), ("line=6", "e")]
    assert parts[2] is not None
    assert parts[2].extracted.metadata == {"first_line": 4, "last_line": 5}
    assert parts[2].extracted.title == "a.log lines 4 to 5"


@pytest.mark.parametrize("codec", ["", "gzip"])
def test_many_blocks_of_lines_lose_none(codec):
    text = "".join(f"line {number} {'ü' * (number % 97)}\n" for number in range(60_000))
    data = gzip.compress(text.encode()) if codec else text.encode()
    parts = cut(LinesRule(match="*", format="lines", lines=777), data, codec)
    joined = "\n".join(part.extracted.text for part in parts if part) + "\n"
    assert joined == text
    assert len(parts) == -(-60_000 // 777)


def test_pieces_beyond_the_bound_are_refused():
    with pytest.raises(Refusal) as raised:
        cut(
            LinesRule(match="*", format="lines", lines=100),
            b"ten letters\n" * 50,
            max_characters=100,
        )
    assert raised.value.fault.cause == Cause.TOO_LARGE
    with pytest.raises(Refusal) as raised:
        cut(LinesRule(match="*", format="lines"), b"x" * 3 * 2**20, max_characters=1000)
    assert raised.value.fault.cause == Cause.TOO_LARGE


LOG = b"""a banner
2026-01-01 00:00:05,100 INFO one
  at a.trace(line 5)
2026-01-01 00:59:59,900 INFO two
2026-01-01 01:00:00,000 INFO three
2026-01-01 00:59:59,950 WARN late
2026-01-01 05:30:00,000 INFO four
"""


@pytest.mark.parametrize("codec", ["", "gzip"])
def test_windows_of_time_keep_lines_without_a_time_and_late_ones(codec):
    parts = cut(LogRule(match="*", format="log"), gzip.compress(LOG) if codec else LOG, codec)
    text = LOG.decode().splitlines()
    assert found(parts) == [
        ("time=2026-01-01T00:00:00Z", "\n".join(text[:4])),
        ("time=2026-01-01T01:00:00Z", "\n".join(text[4:6])),
        ("time=2026-01-01T05:00:00Z", text[6]),
    ]
    assert parts[1] is not None
    assert parts[1].extracted.metadata == {
        "first_line": 4,
        "last_line": 5,
        "first_time": "2026-01-01T00:59:59Z",
        "last_time": "2026-01-01T01:00:00Z",
    }


def test_no_window_comes_twice_whatever_the_order():
    hours = [3, 1, 3, 5, 4, 3, 5, 9, 0, 9]
    data = "".join(f"2026-01-01 {hour:02d}:30:00 x\n" for hour in hours).encode()
    fragments = [part.fragment for part in cut(LogRule(match="*", format="log"), data) if part]
    assert fragments == [f"time=2026-01-01T0{hour}:00:00Z" for hour in (3, 5, 9)]


def test_a_large_window_becomes_several_documents():
    line = b"2026-01-01 00:00:01 " + b"x" * 1000 + b"\n"
    parts = cut(LogRule(match="*", format="log"), line * 2500 + b"2026-01-01 02:00:00 end")
    assert [part and part.fragment for part in parts] == [
        "time=2026-01-01T00:00:00Z",
        "time=2026-01-01T00:00:00Z,1",
        "time=2026-01-01T00:00:00Z,2",
        "time=2026-01-01T02:00:00Z",
    ]
    kept = [part for part in parts if part]
    assert sum(part.extracted.text.count("\n") + 1 for part in kept) == 2501
    assert all(len(part.extracted.text) <= 2**20 for part in kept)
    last = [part.extracted.metadata["last_line"] for part in kept]
    first = [part.extracted.metadata["first_line"] for part in kept]
    assert first == [0, *(int(line) + 1 for line in last[:-1] if isinstance(line, int))]
    assert all("first_time" in part.extracted.metadata for part in kept)


def test_a_text_that_tells_no_time_is_no_log():
    for data in (b"no time\n" * 20_000, b"", b"x" * 3 * 2**20):
        with pytest.raises(Refusal) as raised:
            cut(LogRule(match="*", format="log"), data)
        assert raised.value.fault.cause == Cause.MALFORMED


def listed(data: bytes, fallback: str | None = None, bound: int = 1000) -> list[str]:
    return list(lines(io.BytesIO(data), fallback_encoding=fallback, max_characters=bound))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\rb\r\nc\n\nd", ["a", "b", "c", "", "d"]),
        (codecs.BOM_UTF8 + "é\n".encode(), ["é"]),
        (codecs.BOM_UTF16_LE + "é\nü".encode("utf-16-le"), ["é", "ü"]),
        (codecs.BOM_UTF32_BE + "é\r\nü".encode("utf-32-be"), ["é", "ü"]),
        (b"some good text \xff\nplain", ["some good text \ufffd", "plain"]),
    ],
)
def test_lines_and_encodings(data, expected):
    assert listed(data) == expected


def test_only_lines_that_are_not_utf_8_are_read_in_the_fallback():
    data = "Grüße\n".encode() + "Grüße\n".encode("cp1252")
    assert listed(data, "cp1252") == ["Grüße", "Grüße"]


def test_ends_of_lines_across_blocks():
    half = b"x" * (2**20 - 1) + b"\r"
    assert listed(half + b"\nnext", bound=2**21) == ["x" * (2**20 - 1), "next"]
    wide = codecs.BOM_UTF16_LE + ("ü" * 2**20 + "\r\nnext").encode("utf-16-le")
    assert listed(wide, bound=2**21) == ["ü" * 2**20, "next"]


def test_a_line_beyond_the_bound_is_refused_before_it_is_read():
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b"x" * size

    endless = Endless()
    with pytest.raises(Refusal) as raised:
        list(lines(endless, fallback_encoding=None, max_characters=2**20))  # type: ignore[arg-type]
    assert raised.value.fault.cause == Cause.TOO_LARGE
    assert endless.taken < 8 * 2**20


def test_nuls_in_the_beginning_are_no_text_and_later_ones_are_replaced():
    with pytest.raises(Refusal) as raised:
        listed(b"a\0b\n")
    assert raised.value.fault.cause == Cause.NOT_TEXT
    later = listed(b"text\n" * 2**18 + b"a\0b\n")
    assert later[-1] == "a\ufffdb"


def test_a_window_that_would_begin_before_the_first_year_begins_with_it():
    log = b"0001-01-01 00:00:00 no time\n2026-01-01 00:00:00 a time\n"
    parts = cut(LogRule(match="*", format="log", window_s=604_800), log)
    fragments = [part.fragment for part in parts if part]
    assert fragments == ["time=0001-01-01T00:00:00Z", "time=2026-01-01T00:00:00Z"]
