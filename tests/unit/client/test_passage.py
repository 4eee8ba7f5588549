"""What of a text reaches a terminal: printable, short, around the query's words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from client.answers import Span
from client.passage import excerpt, printable, readable_source, shortened

FILLER = "lorem ipsum dolor sit amet " * 40


def spans_of(text, *words):
    return sorted(
        (Span(at, at + len(word)) for word in words for at in _all(text, word)),
        key=lambda span: span.start,
    )


def _all(text, word):
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def highlighted(shown):
    return [shown.plain[span.start : span.end] for span in shown.spans]


def test_a_short_text_is_shown_whole_with_its_highlights():
    text = "Renew the ticket\n\n  before it  expires."
    shown = excerpt(text, spans_of(text, "ticket", "expires"), width=60, lines=3)
    assert shown.plain == "Renew the ticket before it expires."
    assert highlighted(shown) == ["ticket", "expires"]


def test_a_long_text_is_cut_where_most_of_the_words_stand():
    text = f"{FILLER}ticket {FILLER}renew the ticket before it expires {FILLER}"
    shown = excerpt(text, spans_of(text, "ticket", "renew", "expires"), width=40, lines=2)
    assert "renew the ticket before it expires" in shown.plain
    assert shown.plain.startswith("…")
    assert shown.plain.endswith("…")
    assert highlighted(shown) == ["renew", "ticket", "expires"]


def test_a_cut_falls_between_words():
    text = f"{FILLER}ticket {FILLER}"
    shown = excerpt(text, spans_of(text, "ticket"), width=40, lines=2)
    assert set(shown.plain.strip("…").split()) <= set(text.split())


def test_a_long_text_without_highlights_begins_at_its_beginning():
    assert excerpt(FILLER, (), width=40, lines=2).plain.startswith("lorem ipsum dolor")


def test_highlights_stay_on_their_words_when_characters_are_dropped():
    text = "\x1b[31m\u202eevil\n\n\n word"
    at = text.index("word")
    shown = excerpt(text, [Span(at, at + 4)], width=60, lines=3)
    assert highlighted(shown) == ["word"]


@given(
    text=st.text(max_size=400),
    cuts=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=8),
    width=st.integers(8, 100),
)
def test_any_text_becomes_a_bounded_printable_excerpt(text, cuts, width):
    highlights = [Span(min(cut), max(cut)) for cut in sorted(cuts)]
    shown = excerpt(text, highlights, width=width, lines=3)
    assert all(character.isprintable() or character in "\u200c\u200d" for character in shown.plain)
    assert cell_len(shown.plain) <= width * 3


@pytest.mark.parametrize(
    "character", ["\x00", "\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ufeff"]
)
def test_no_control_character_is_printable(character):
    assert printable(f"a{character}b") == "ab"


def test_breaks_become_one_space():
    assert printable("a\r\n\tb\u2028c") == "a b c"


def test_a_local_file_is_named_from_the_working_directory():
    base = Path("/lake")
    assert readable_source("file:///lake/docs/a%20b.md", base=base) == "docs/a b.md"
    assert readable_source("file:///else/a.md", base=base) == "/else/a.md"
    assert readable_source("hdfs://lake/a.md", base=base) == "hdfs://lake/a.md"


def test_a_file_name_cannot_steer_the_terminal():
    assert readable_source("file:///docs/%1b%5b2J.md", base=Path("/lake")) == "/docs/[2J.md"


def test_a_long_name_keeps_its_end():
    assert shortened("hdfs://lake/a/very/long/path/file.md", 12) == "…ath/file.md"
    assert shortened("short.md", 12) == "short.md"
