"""Texts and logs cut into documents: every so many lines, or every window of time.

Lines are counted from 0, as in RFC 5147. A window of a log begins at a multiple of its length since
the epoch. One window is open at a time: a line without a time, or with one before the open window,
belongs to that window; a line after it closes it, so no window comes twice. Lines before the first
that tells a time go with it. A window of over 1 MiB of characters becomes several documents.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from common.media_types import PLAIN_TEXT
from ingestor.extraction import line_stream
from ingestor.extraction.extracted import Extracted, Part, Refusal, title_of
from ingestor.extraction.timestamps import Timestamps
from ingestor.faults import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.records import MetadataValue
    from ingestor.extraction.worker_protocol import Limits, Reading

_MAX_WINDOW_CHARACTERS = 2**20
_MAX_LINES_WITHOUT_TIME = 10_000
_FIRST_US = -62_135_596_800_000_000  # the year 1, which many programs write for no time at all


def parts(reading: Reading, file: BinaryIO, limits: Limits) -> Iterator[Part | None]:
    """The documents of a text; None for one that would be blank."""
    if reading.codec:
        from ingestor.extraction.compression import expanding  # noqa: PLC0415 — few files need it

        file = expanding(file, reading.codec, limits.max_expanded_bytes)
    lines = line_stream.lines(
        file, fallback_encoding=limits.fallback_encoding, max_characters=limits.max_characters
    )
    if reading.kind == "lines":
        return _pieces(reading, lines, limits.max_characters)
    return _windows(reading, lines)


def _pieces(reading: Reading, lines: Iterator[str], max_characters: int) -> Iterator[Part | None]:
    piece = _Piece()
    for number, line in enumerate(lines):
        if len(piece.lines) == reading.rule["lines"]:
            yield _line_part(reading.name, piece)
            piece = _Piece(number)
        piece.add(line)
        if piece.characters > max_characters:
            message = (
                f"the lines from {piece.first_line} on are over {max_characters} characters: "
                "take fewer of them for one document"
            )
            raise Refusal(Cause.TOO_LARGE, message)
    if piece.lines:
        yield _line_part(reading.name, piece)


def _line_part(name: str, piece: _Piece) -> Part | None:
    first, last = piece.first_line, piece.last_line
    return piece.part(f"line={first}", f"{name} lines {first} to {last}")


def _windows(reading: Reading, lines: Iterator[str]) -> Iterator[Part | None]:
    rule = reading.rule
    window_us = rule["window_s"] * 1_000_000
    timestamps = Timestamps(rule["timestamp"], rule["year"])
    piece = _Piece()
    window: int | None = None
    for number, line in enumerate(lines):
        time_us = timestamps.find(line)
        start = None if time_us is None else max(_FIRST_US, time_us - time_us % window_us)
        if window is None:
            window = start
            full = piece.characters >= _MAX_WINDOW_CHARACTERS
            if window is None and (full or number >= _MAX_LINES_WITHOUT_TIME):
                break
        elif start is not None and start > window:
            yield _window_part(reading.name, window, piece)
            window, piece = start, _Piece(number)
        if window is not None and piece.lines and piece.is_full_with(line):
            yield _window_part(reading.name, window, piece)
            piece = piece.next()
        piece.add(line)
        if time_us is not None:
            piece.meet(time_us)
    if window is None:
        message = f"none of its first lines tells a time like {rule['timestamp']!r}"
        raise Refusal(Cause.MALFORMED, message)
    yield _window_part(reading.name, window, piece)


def _window_part(name: str, window: int, piece: _Piece) -> Part | None:
    start = rfc3339(window)
    # A colon may stand in a fragment as it is; a comma leads RFC 5147's further figures too.
    fragment = f"time={start}" + (f",{piece.number}" if piece.number else "")
    return piece.part(fragment, f"{name} {start}")


def rfc3339(time_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 text in UTC."""
    seconds, fraction = divmod(time_us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=fraction)
    return moment.isoformat().replace("+00:00", "Z")


class _Piece:
    """Lines gathered for one document; ``number`` counts the documents of one window."""

    def __init__(self, first_line: int = 0, number: int = 0) -> None:
        self.first_line = first_line
        self.number = number
        self.lines: list[str] = []
        self.characters = 0
        self._times: tuple[int, int] | None = None

    @property
    def last_line(self) -> int:
        return self.first_line + len(self.lines) - 1

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.characters += len(line) + 1

    def is_full_with(self, line: str) -> bool:
        return self.characters + len(line) >= _MAX_WINDOW_CHARACTERS

    def meet(self, time_us: int) -> None:
        first, last = self._times or (time_us, time_us)
        self._times = (min(first, time_us), max(last, time_us))

    def next(self) -> _Piece:
        """The one that goes on after this in the same window."""
        return _Piece(self.first_line + len(self.lines), self.number + 1)

    def part(self, fragment: str, title: str) -> Part | None:
        text = "\n".join(self.lines)
        if not text.strip():
            return None
        metadata: dict[str, MetadataValue] = {
            "first_line": self.first_line,
            "last_line": self.last_line,
        }
        if self._times is not None:
            metadata["first_time"], metadata["last_time"] = map(rfc3339, self._times)
        if replaced := text.count("\ufffd"):
            metadata["replaced_characters"] = replaced
        return Part(fragment, Extracted(text, title_of(title), PLAIN_TEXT, metadata=metadata))
