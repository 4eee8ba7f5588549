"""How texts are cut into terms, in plain Python, to hold the native library against.

It follows include/sluice_rerank.h, not the Zig code, with Python's own Unicode data and the
snowballstemmer package; the formula is in reference_scoring. It must never call the native library.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import snowballstemmer

from tests.unit.rerank_zig.reference_hash import term_hash
from tests.unit.rerank_zig.reference_scoring import Field, Match, Query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_TERM_BYTES = 64
MAX_PARTS = 16
MAX_COMPOUND_WORDS = 16
MAX_COMPOUND_BYTES = 256
JOINTS = "-_./:@#\\"
PLAIN_JOINTS = "-/"
COMPOUND = "\x01"
"""Stands before a compound's term, which is another one than a word's of the same letters."""

_STOP_WORD_LIST = """
a an and are as at be been being but by can could did do does for from had has have he her here his
how i if in into is it its me my no not of on or our she should so such than that the their them
then there these they this those to was we were what when where which who whom why will with would
you your
"""
STOP_WORDS = frozenset(_STOP_WORD_LIST.split())

_STEMMER = snowballstemmer.stemmer("english")
_PART = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Token(NamedTuple):
    """A term; of a part the span of its whole word."""

    term: str
    position: int
    start: int
    end: int


def simple_lower(character: str) -> str:
    return "i" if character == "\u0130" else character.lower()


def words(text: str) -> Iterator[tuple[int, int]]:
    start = None
    for index, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        if start is None:
            if kind in "LN":
                start = index
        elif kind not in "LNM":
            yield start, index
            start = None
    if start is not None:
        yield start, len(text)


def lowered(text: str) -> str:
    return "".join(map(simple_lower, text))


def stemmed(word: str) -> str:
    """The term of a word or part in lower case; nothing for a stop word."""
    if word.isascii() and word.isalpha():
        return str(_STEMMER.stemWord(word)) if word not in STOP_WORDS else ""
    return word


def term_of(word: str) -> str:
    size = 0
    whole = lowered(word)
    for index, character in enumerate(whole):
        size += len(character.encode())
        if size > MAX_TERM_BYTES:
            return whole[:index]
    return stemmed(whole)


def parts_of(word: str) -> list[str]:
    pieces = _PART.findall(word[:MAX_TERM_BYTES]) if word.isascii() else []
    if len(pieces) < 2:
        return []
    terms = [stemmed(piece.lower()) for piece in pieces if len(piece) > 1]
    return [term for term in terms if term][:MAX_PARTS]


def runs(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The first and the last word of every run of joined words."""
    first = 0
    for index in range(1, len(spans) + 1):
        if index < len(spans):
            between = text[spans[index - 1][1] : spans[index][0]]
            if len(between) == 1 and between in JOINTS:
                continue
        yield first, index - 1
        first = index


def compound_of(text: str, spans: Sequence[tuple[int, int]]) -> str:
    if not 1 < len(spans) <= MAX_COMPOUND_WORDS:
        return ""
    run = text[spans[0][0] : spans[-1][1]]
    joints = {text[end] for _, end in spans[:-1]}
    digits = any(unicodedata.category(character)[0] == "N" for character in run)
    term = lowered(run)
    if not digits and joints <= set(PLAIN_JOINTS):
        return ""
    return COMPOUND + term if len(term.encode()) <= MAX_COMPOUND_BYTES else ""


def decoded(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def tokens(given: str | bytes) -> list[Token]:
    """At one position the word, its parts and then the compound."""
    text = decoded(given)
    spans = list(words(text))
    compounds = {
        first: Token(
            compound_of(text, spans[first : last + 1]), first, spans[first][0], spans[last][1]
        )
        for first, last in runs(text, spans)
    }
    found: list[Token] = []
    for position, (start, end) in enumerate(spans):
        word = text[start:end]
        term = term_of(word)
        terms = [term, *parts_of(word)] if term else []
        found.extend(Token(term, position, start, end) for term in terms)
        if position in compounds and compounds[position].term:
            found.append(compounds[position])
    return found


def length(text: str | bytes) -> int:
    return sum(1 for _ in words(decoded(text)))


def analyze(text: str | bytes) -> list[str]:
    return list(dict.fromkeys(token.term.removeprefix(COMPOUND) for token in tokens(text)))


def hash_of(term: str) -> int:
    return term_hash(term.removeprefix(COMPOUND), compound=term.startswith(COMPOUND))


def query_of(text: str) -> Query:
    found = tokens(text)
    words_in_order: list[Match] = []
    for token in found:
        # A word's own term comes first; a stop word has none, but a compound may begin with it.
        is_first = not words_in_order or words_in_order[-1].position < token.position
        if is_first and not token.term.startswith(COMPOUND):
            words_in_order.append(Match(token.position, token.term))
    return Query(terms=list(dict.fromkeys(token.term for token in found)), words=words_in_order)


def field_of(query: Query, text: str | bytes) -> Field:
    wanted = set(query.terms)
    return Field(
        length=length(text),
        matches=[
            Match(token.position, token.term) for token in tokens(text) if token.term in wanted
        ],
    )


def highlight(query: str, text: str) -> list[tuple[int, int]]:
    """The longest spans; those within others are of the same place."""
    wanted = {token.term for token in tokens(query)}
    spans = {(token.start, token.end) for token in tokens(text) if token.term in wanted}
    return sorted(
        (start, end)
        for start, end in spans
        if not any(
            other != (start, end) and other[0] <= start and end <= other[1] for other in spans
        )
    )


@dataclass(frozen=True)
class Counts:
    hashes: list[list[int]]
    text_words: list[int]
    title_words: list[int]


def count_words(titles: Sequence[bytes], texts: Sequence[bytes]) -> Counts:
    both = list(zip(titles, texts, strict=True))
    return Counts(
        hashes=[
            sorted({hash_of(token.term) for token in tokens(title) + tokens(text)})
            for title, text in both
        ],
        text_words=[length(text) for text in texts],
        title_words=[length(title) for title in titles],
    )
