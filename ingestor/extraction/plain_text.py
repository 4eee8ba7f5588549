r"""Text from formats that are text already: plain, logs, Markdown, CSV and JSON Lines.

Encodings: a byte order mark decides (UTF-8, UTF-16, UTF-32); else UTF-8; else the fallback encoding
if one is configured; else stray bytes become U+FFFD and are counted. What holds NULs, or is mostly
undecodable or control characters, is no text and is never guessed at.

Rows of CSV and JSON Lines become blocks of ``column: value`` lines, so that each value stands by
its name. A line of JSON Lines that is not JSON is kept as it stands, and counted: losing it would
be silent. Line ends become ``\\n``.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestor.faults import Cause, Fault, FaultStage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
# Half of a pair: JSON's escapes and some codecs can name one, UTF-8 cannot.
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_STRAY_SHARE = 0.1
_HTML_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}charset\s*=\s*["']?([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE
)
_HTML_HEAD_BYTES = 4096
_FRONT_MATTER = re.compile(r"---\n(.{0,4000}?)\n---\n", re.DOTALL)
_FRONT_MATTER_TITLE = re.compile(r"""^title:[ \t]*["']?(.+?)["']?[ \t]*$""", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$|^(.+)\n=+[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and how many stray bytes were replaced."""

    text: str
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """Rendered rows, and how many lines could not be parsed."""

    text: str
    broken: int = 0


def decode(data: bytes, fallback_encoding: str | None = None) -> Decoded | Fault:
    """The text of the bytes, or ``Cause.NOT_TEXT``."""
    mark, encoding = mark_of(data)
    if mark:
        text = data[len(mark) :].decode(encoding, "replace")
    elif b"\0" in data:
        return Fault(FaultStage.EXTRACT, Cause.NOT_TEXT, "it holds NUL bytes")
    else:
        text = decode_unmarked(data, fallback_encoding)
    text = clean(text)
    return not_text(text) or Decoded(text, text.count("\ufffd"))


def mark_of(data: bytes) -> tuple[bytes, str]:
    """The byte order mark that the bytes begin with, and the encoding it tells; empty if none."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return mark, encoding
    return b"", ""


def decode_unmarked(data: bytes, fallback_encoding: str | None) -> str:
    """Text in UTF-8, else in the fallback encoding, else with U+FFFD for stray bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    if fallback_encoding is not None:
        try:
            return data.decode(fallback_encoding)
        except (UnicodeError, LookupError):  # a page may declare a codec that is not one of text
            pass
    return data.decode("utf-8", "replace")


def clean(text: str) -> str:
    r"""The text with ``\n`` as the only line end, and U+FFFD for what no store can hold."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", text)
    # A NUL cannot travel in every store's text; other control characters are harmless.
    return text.replace("\0", "\ufffd")


def not_text(text: str) -> Fault | None:
    """The fault of a clean text that is mostly strays and control characters."""
    stray = text.count("\ufffd") + len(_CONTROL.findall(text))
    if stray > _MAX_STRAY_SHARE * len(text):
        return Fault(FaultStage.EXTRACT, Cause.NOT_TEXT, "most of it is no text in UTF-8")
    return None


def decode_html(data: bytes, fallback_encoding: str | None = None) -> Decoded | Fault:
    """As ``decode``, heeding the encoding that the page declares where it is not UTF-8."""
    declared = _HTML_CHARSET.search(data[:_HTML_HEAD_BYTES])
    if declared is not None:
        with suppress(LookupError):  # an unknown name declares nothing
            fallback_encoding = codecs.lookup(declared[1].decode()).name
    return decode(data, fallback_encoding)


def markdown_title(text: str) -> str:
    """The title in the front matter, else the first heading outside code, else nothing."""
    if front := _FRONT_MATTER.match(text):
        if named := _FRONT_MATTER_TITLE.search(front[1]):
            return named[1]
        text = text[front.end() :]
    heading = _HEADING.search(_FENCE.sub("", text))
    if not heading:
        return ""
    title = (heading[1] or heading[2]).strip()
    bare = title.rstrip("#")  # closing marks stand after a blank; not by regex: that is quadratic
    return bare.rstrip() if heading[1] and bare[-1:] in {" ", "\t"} else title


def render_csv(text: str, *, max_characters: int, delimiter: str | None = None) -> Rows | Fault:
    """Each row as a block of ``column: value`` lines; the first row names the columns.

    Cells beyond the named columns are ``column <n>``. Empty cells are left out. Names are repeated
    with every row, so the result is bounded by ``max_characters``.
    """
    if delimiter is None:
        delimiter = likely_delimiter(text.lstrip("\n").partition("\n")[0])
    blocks = _Blocks(max_characters)
    csv.field_size_limit(max_characters)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = next((row for row in rows if any(row)), [])
        for row in rows:
            named = (
                (columns[place].strip() if place < len(columns) else "", place, cell)
                for place, cell in enumerate(row)
            )
            block = [
                f"{name or f'column {place + 1}'}: {cell.strip()}"
                for name, place, cell in named
                if cell.strip()
            ]
            if not blocks.add("\n".join(block)):
                return _too_large(max_characters)
    except csv.Error as error:
        return Fault(FaultStage.EXTRACT, Cause.MALFORMED, f"line {rows.line_num}: {error}")
    # A table without rows still says which columns it has.
    return Rows(blocks.text() or ", ".join(columns))


def render_json_lines(text: str, *, max_characters: int) -> Rows | Fault:
    """Each line's object as a block of ``key: value`` lines, nested keys joined by dots."""
    blocks = _Blocks(max_characters)
    lines = broken = 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        lines += 1
        try:
            block = "\n".join(flatten("", json.loads(line)))
        except (ValueError, RecursionError):
            broken += 1
            block = line.strip()
        if not blocks.add(block):
            return _too_large(max_characters)
    if broken and broken == lines:
        return Fault(FaultStage.EXTRACT, Cause.MALFORMED, "no line of it is JSON")
    return Rows(_SURROGATE.sub("\ufffd", blocks.text()), broken)


def likely_delimiter(header: str) -> str:
    """The delimiter that a table's first line has most of."""
    return max(_DELIMITERS, key=header.count)


class _Blocks:
    """Blocks of lines with an empty line between them, up to a bound."""

    def __init__(self, max_characters: int) -> None:
        self._blocks: list[str] = []
        self._left = max_characters

    def add(self, block: str) -> bool:
        """Append a block unless it is empty; False once the bound is passed."""
        if block:
            self._blocks.append(block)
            self._left -= len(block) + 2
        return self._left >= 0

    def text(self) -> str:
        return "\n\n".join(self._blocks)


def _too_large(max_characters: int) -> Fault:
    message = f"its rows become over {max_characters} characters: split the file"
    return Fault(FaultStage.EXTRACT, Cause.TOO_LARGE, message)


def flatten(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401 — whatever JSON holds
    """Lines ``key: value`` of a JSON value, nested keys joined by dots, none of empty values."""
    match value:
        case dict():
            yield from _members(name, value)
        case list() if all(not isinstance(item, dict | list) for item in value):
            if value:
                yield _line(name, ", ".join(_scalar(item) for item in value))
        case list():
            for item in value:
                yield from flatten(name, item)
        case None | "":
            pass
        case _:
            yield _line(name, _scalar(value))


def _members(name: str, value: Mapping[str, Any]) -> Iterator[str]:
    for key, member in value.items():
        yield from flatten(f"{name}.{key}" if name else key, member)


def _line(name: str, value: str) -> str:
    return f"{name}: {value}" if name else value


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
