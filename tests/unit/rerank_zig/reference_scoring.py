"""The scoring formula in plain Python, to hold the native library against.

It follows include/sluice_rerank.h, not the Zig code, and begins where matches are known: where the
query's terms stand in each candidate. It must never call the native library.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONSTANT_SPREAD = 1e-6
MAX_GAP = 3
MAX_PAIRS = 64
WORD_UNIT = 1.1
LEAST_COLLECTION = 10


class Match(NamedTuple):
    position: int
    term: str


@dataclass(frozen=True)
class Field:
    length: int
    matches: Sequence[Match]


@dataclass(frozen=True)
class Query:
    """Unique terms, and the query's words that are no stop words with their positions."""

    terms: Sequence[str]
    words: Sequence[Match]


@dataclass(frozen=True)
class Weights:
    alpha: float | None
    k1: float
    b: float
    title: float
    proximity: float
    theoretical: bool


@dataclass(frozen=True)
class Statistics:
    chunks: int
    text_words: int
    title_words: int
    frequencies: Mapping[str, int]


@dataclass(frozen=True)
class Columns:
    fused: list[float]
    dense: list[float]
    lexical_raw: list[float]
    lexical: list[float]
    title: list[float]
    proximity: list[float]
    alpha: float
    chunks: int


def counted(query: Query, candidates: Sequence[tuple[Field, Field]]) -> Statistics:
    """Statistics of the candidates themselves."""
    held = Counter[str]()
    for title, text in candidates:
        held.update({match.term for match in (*title.matches, *text.matches)} & set(query.terms))
    return Statistics(
        chunks=len(candidates),
        text_words=sum(text.length for _, text in candidates),
        title_words=sum(title.length for title, _ in candidates),
        frequencies=held,
    )


class Scorer:
    def __init__(self, query: Query, known: Statistics, weights: Weights) -> None:
        self.weights = weights
        count = known.chunks
        self.idf = {
            term: math.log(1 + (count - df + 0.5) / (df + 0.5))
            for term in query.terms
            for df in [known.frequencies.get(term, 0)]
        }
        self.averages = (
            max(1, known.title_words) / max(1, count),
            max(1, known.text_words) / max(1, count),
        )
        self.words = {match.term for match in query.words}
        pairs = (
            (left.term, right.term, right.position - left.position)
            for left, right in pairwise(query.words)
            if right.position - left.position <= MAX_GAP and left.term != right.term
        )
        self.neighbours = set(islice(pairs, MAX_PAIRS))

    def saturated(self, frequency: float) -> float:
        k1 = self.weights.k1
        return frequency * (k1 + 1) / (frequency + k1) if frequency else 0.0

    def norm(self, length: int, average: float) -> float:
        return 1 - self.weights.b + self.weights.b * length / average

    def parts(self, title: Field, text: Field) -> tuple[float, float, float]:
        """What terms, titles among them and proximity give."""
        title_norm = self.norm(title.length, self.averages[0])
        text_norm = self.norm(text.length, self.averages[1])
        in_title = Counter(match.term for match in title.matches)
        in_text = Counter(match.term for match in text.matches)
        terms = title_share = 0.0
        for term in in_title | in_text:
            alone = in_text[term] / text_norm if in_text[term] else 0.0
            both = alone
            if in_title[term]:
                both += self.weights.title * in_title[term] / title_norm
            terms += self.idf[term] * self.saturated(both)
            title_share += self.idf[term] * (self.saturated(both) - self.saturated(alone))
        return terms, title_share, self.proximity(text.matches, text_norm)

    def proximity(self, matches: Sequence[Match], norm: float) -> float:
        words = [match for match in matches if match.term in self.words]
        near: defaultdict[str, float] = defaultdict(float)
        for left, right in pairwise(words):
            distance = right.position - left.position
            if left.term != right.term and distance:
                near[left.term] += self.idf[right.term] / distance**2
                near[right.term] += self.idf[left.term] / distance**2
        found = Counter(
            (left.term, right.term, right.position - left.position)
            for left in words
            for right in words
            if 0 < right.position - left.position <= MAX_GAP
        )
        phrases = sum(
            min(self.idf[pair[0]], self.idf[pair[1]]) * self.saturated(found[pair] / norm)
            for pair in self.neighbours
            if found[pair]
        )
        closeness = sum(
            min(1.0, self.idf[term]) * self.saturated(value / norm) for term, value in near.items()
        )
        return self.weights.proximity * (phrases + closeness)


def normalise(
    column: Sequence[float], *, theoretical: bool, minimum: float
) -> tuple[list[float], float]:
    """The column in [0, 1], and how far apart 0 and 1 were."""
    if not column:
        return [], 0.0
    low, high = min(column), max(column)
    if theoretical:
        low, constant = minimum, high <= minimum
    else:
        constant = high - low <= CONSTANT_SPREAD * max(abs(low), abs(high))
    if constant:
        return [0.0] * len(column), 0.0
    return [max(0.0, (value - low) / (high - low)) for value in column], high - low


def adapted(dense_spread: float, lexical_spread: float, chunks: int) -> float:
    words = lexical_spread * WORD_UNIT / math.log(max(LEAST_COLLECTION, chunks)) ** 2
    return dense_spread / (dense_spread + words) if dense_spread + words > 0 else 0.5


def score(
    query: Query,
    candidates: Sequence[tuple[Field, Field]],
    similarities: Sequence[float],
    weights: Weights,
    statistics: Statistics | None = None,
) -> Columns:
    """Scores of candidates, each its title and its text."""
    known = counted(query, candidates) if statistics is None else statistics
    scorer = Scorer(query, known, weights)
    parts = [scorer.parts(title, text) for title, text in candidates]
    raw = [terms + proximity for terms, _, proximity in parts]
    dense, dense_spread = normalise(similarities, theoretical=weights.theoretical, minimum=-1.0)
    lexical, lexical_spread = normalise(raw, theoretical=weights.theoretical, minimum=0.0)
    alpha = weights.alpha
    if alpha is None:
        alpha = adapted(dense_spread, lexical_spread, known.chunks)
    return Columns(
        fused=[alpha * d + (1 - alpha) * w for d, w in zip(dense, lexical, strict=True)],
        dense=dense,
        lexical_raw=raw,
        lexical=lexical,
        title=[title for _, title, _ in parts],
        proximity=[proximity for _, _, proximity in parts],
        alpha=alpha,
        chunks=known.chunks,
    )
