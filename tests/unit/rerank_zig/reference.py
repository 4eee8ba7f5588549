"""The reranker's formula in plain Python, to hold the native library against.

It follows include/sluice_rerank.h, not the Zig code, with Python's own Unicode data and the
snowballstemmer package. It must never call the native library.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import snowballstemmer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_TERM_BYTES = 64
CONSTANT_SPREAD = 1e-6

_STOP_WORD_LIST = """
a an and are as at be been being but by can could did do does for from had has have he her here his
how i if in into is it its me my no not of on or our she should so such than that the their them
then there these they this those to was we were what when where which who whom why will with would
you your
"""
STOP_WORDS = frozenset(_STOP_WORD_LIST.split())

_STEMMER = snowballstemmer.stemmer("english")


class Token(NamedTuple):
    term: str
    start: int
    end: int


@dataclass(frozen=True)
class Columns:
    fused: list[float]
    dense: list[float]
    lexical_raw: list[float]
    lexical: list[float]


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


def term_of(word: str) -> str:
    lowered = "".join(map(simple_lower, word))
    size = 0
    for index, character in enumerate(lowered):
        size += len(character.encode())
        if size > MAX_TERM_BYTES:
            return lowered[:index]
    if lowered.isascii() and lowered.isalpha():
        return str(_STEMMER.stemWord(lowered)) if lowered not in STOP_WORDS else ""
    return lowered


def tokens(text: str | bytes) -> list[Token]:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    found = (Token(term_of(text[start:end]), start, end) for start, end in words(text))
    return [token for token in found if token.term]


def analyze(text: str | bytes) -> list[str]:
    return list(dict.fromkeys(token.term for token in tokens(text)))


def normalise(column: Sequence[float], *, theoretical: bool, minimum: float) -> list[float]:
    if not column:
        return []
    low, high = min(column), max(column)
    if theoretical:
        low, constant = minimum, high <= minimum
    else:
        constant = high - low <= CONSTANT_SPREAD * max(abs(low), abs(high))
    if constant:
        return [0.0] * len(column)
    return [max(0.0, (value - low) / (high - low)) for value in column]


def score(
    query: str,
    texts: Sequence[str | bytes],
    similarities: Sequence[float],
    *,
    alpha: float,
    k1: float,
    b: float,
    theoretical: bool,
    statistics: tuple[int, float, Mapping[str, int]] | None,
) -> Columns:
    terms = analyze(query)
    bags = [Counter(token.term for token in tokens(text)) for text in texts]
    lengths = [bag.total() for bag in bags]
    if statistics is None:
        count = len(texts)
        average = sum(lengths) / max(1, count)
        frequencies: Mapping[str, int] = {term: sum(term in bag for bag in bags) for term in terms}
    else:
        count, average, frequencies = statistics

    raw: list[float] = []
    for bag, length in zip(bags, lengths, strict=True):
        total = 0.0
        for term in terms:
            if bag[term]:
                df = frequencies.get(term, 0)
                idf = math.log(1 + (count - df + 0.5) / (df + 0.5))
                norm = k1 * (1 - b + b * length / average)
                total += idf * bag[term] * (k1 + 1) / (bag[term] + norm)
        raw.append(total)
    dense = normalise(similarities, theoretical=theoretical, minimum=-1.0)
    lexical = normalise(raw, theoretical=theoretical, minimum=0.0)
    fused = [alpha * d + (1 - alpha) * w for d, w in zip(dense, lexical, strict=True)]
    return Columns(fused, dense, raw, lexical)
