"""A passage as a terminal may show it: printable, short, and around what was asked for.

Texts and names come from documents nobody vouches for, so no control character may pass: neither
escape sequences nor marks that turn the direction of text. This module prints nothing itself.
"""

from __future__ import annotations

import bisect
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.answers import Span

HIGHLIGHT = "bold yellow"
ELLIPSIS = "…"
# Joiners shape letters in Persian, Indic scripts and emoji; all other format marks go.
_JOINERS = frozenset("\u200c\u200d")


def printable(text: str) -> str:
    """The text on one line, without a character that a terminal would obey."""
    return " ".join("".join(map(_shown, text)).split())


def _shown(character: str) -> str:
    """The character, a space for a break, nothing for what must not reach a terminal."""
    if character.isspace():
        return " "
    if unicodedata.category(character)[0] == "C" and character not in _JOINERS:
        return ""
    return character


@dataclass(frozen=True, slots=True)
class _Line:
    """A text on one line, and its highlights as spans of that line."""

    text: str
    highlights: tuple[tuple[int, int], ...]


def _one_line(text: str, highlights: Sequence[Span]) -> _Line:
    """Collapse breaks and drop control characters; highlights move along."""
    kept: list[str] = []
    moved = [0] * (len(text) + 1)
    for index, character in enumerate(text):
        moved[index] = len(kept)
        shown = _shown(character)
        if shown and not (shown == " " and (not kept or kept[-1] == " ")):
            kept.append(shown)
    moved[len(text)] = len(kept)
    line = "".join(kept).rstrip()
    spans = (
        (moved[min(span.start, len(text))], min(moved[min(span.end, len(text))], len(line)))
        for span in highlights
    )
    return _Line(line, tuple((start, end) for start, end in spans if start < end))


def excerpt(text: str, highlights: Sequence[Span], *, width: int, lines: int) -> Text:
    """The part of a text with the most of the query's words, highlighted.

    Args:
        text: of a hit.
        highlights: spans of the text, ascending.
        width: cells of a line of the terminal.
        lines: how many of them to fill at most.
    """
    line = _one_line(text, highlights)
    # Lines break at words, so some cells stay empty; a tenth is about what English leaves.
    room = max(1, width * lines * 9 // 10)
    if line.text:
        # Wide characters fill two cells.
        room = max(1, room * len(line.text) // max(1, cell_len(line.text)))
    start, end = _densest(line, room)
    shown = Text(line.text[start:end], overflow="fold")
    for first, last in line.highlights:
        if first >= start and last <= end:
            shown.stylize(HIGHLIGHT, first - start, last - start)
    if start > 0:
        shown = Text(ELLIPSIS).append_text(shown)
    if end < len(line.text):
        shown.append(ELLIPSIS)
    shown.truncate(width * lines, overflow="ellipsis")
    return shown


def _densest(line: _Line, room: int) -> tuple[int, int]:
    """The window of ``room`` characters, at words, with most different words, then most words."""
    if len(line.text) <= room:
        return 0, len(line.text)
    starts = [start for start, _ in line.highlights]
    best, best_key = (0, 0), (0, 0)
    for index, (start, _) in enumerate(line.highlights):
        last = bisect.bisect_right(starts, start + room)
        inside = [span for span in line.highlights[index:last] if span[1] <= start + room]
        words = {line.text[first:end].casefold() for first, end in inside}
        if (len(words), len(inside)) > best_key:
            best_key, best = (len(words), len(inside)), (start, inside[-1][1])
    return _at_words(line.text, best, room)


def _at_words(text: str, core: tuple[int, int], room: int) -> tuple[int, int]:
    """Widen the core to the room, a third of it before, and let it begin and end at words."""
    spare = max(0, room - (core[1] - core[0]))
    start = max(0, core[0] - spare // 3)
    end = min(len(text), start + room)
    start = max(0, end - room)
    if start > 0:
        space = text.find(" ", start - 1, core[0])
        start = space + 1 if space >= 0 else start
    if end < len(text):
        space = text.rfind(" ", max(core[1], start + 1), end + 1)
        end = space if space > start else end
    return start, end


def readable_source(uri: str, *, base: Path) -> str:
    """A source as people name it: a local file by its path, from ``base`` on if it lies there."""
    place = uri.removeprefix("file://")
    if place == uri or not place.startswith("/"):
        return printable(uri)
    path = Path(unquote(place))
    return printable(str(path.relative_to(base) if path.is_relative_to(base) else path))


def shortened(name: str, width: int) -> str:
    """A name that fits ``width`` cells; what goes is the beginning, the file's name stays."""
    if cell_len(name) <= width:
        return name
    while name and cell_len(name) > width - 1:
        name = name[1:]
    return ELLIPSIS + name
