"""BM25 and fusion as they are written without a native library: with NumPy, and in plain Python.

One field, no positions: what `rerank_zig` gives with the weights of title and proximity at 0. Words
are cut into terms by the library's own analysis, a run without white space at a time, and kept, so
that all arms find the same terms. It must never ask the library for a score.

Formula: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
with Lucene's idf, which is never negative; fusion of min-max-normalised scores as in Bruch, Gai and
Ingber (2023).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rerank_zig import RerankLibrary

K1, B, ALPHA = 1.2, 0.75, 0.5
_RUN = re.compile(r"[\w./:@#\\-]+")
_WORD = re.compile(r"[^\W_]+")


class Terms(NamedTuple):
    """The terms of one text, each as often as it stands there, and the count of its words."""

    terms: list[str]
    words: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """Texts to terms; what was analysed once is remembered."""

    library: RerankLibrary
    known: dict[str, list[str]] = field(default_factory=dict)

    def terms(self, text: str) -> Terms:
        """The terms of a text."""
        known, found = self.known, []
        for run in _RUN.findall(text):
            terms = known.get(run)
            if terms is None:
                terms = known[run] = self.library.analyze(run)
            found += terms
        return Terms(found, len(_WORD.findall(text)))


class NumpyIndex:
    """Terms and frequencies of a pool of texts as arrays, and the scores of some of them.

    A row holds a text's different terms by their number in the vocabulary, filled up with 0, which
    is no term's number. Only what a request cannot change is computed beforehand: k1, b and the
    statistics may be others with every query.

    Args:
        texts: of the pool.
    """

    def __init__(self, texts: Sequence[Terms]) -> None:
        bags = [Counter(text.terms) for text in texts]
        known = dict.fromkeys(term for bag in bags for term in bag)
        self._vocabulary = {term: number for number, term in enumerate(known, start=1)}
        widest = max(map(len, bags), default=0)
        self._rows = np.zeros((len(bags), widest), np.int32)
        self._frequencies = np.zeros((len(bags), widest), np.float32)
        for row, frequencies, bag in zip(self._rows, self._frequencies, bags, strict=True):
            row[: len(bag)] = [self._vocabulary[term] for term in bag]
            frequencies[: len(bag)] = list(bag.values())
        held = np.bincount(self._rows.ravel(), minlength=len(known) + 1)
        self._idf = np.log1p((len(bags) - held + 0.5) / (held + 0.5)).astype(np.float32)
        words = np.array([text.words for text in texts], np.float32)
        self._norms = (K1 * (1 - B + B * words / words.mean())).astype(np.float32)
        # Place of each term in the query, 0 for all others; cleared after every query.
        self._places = np.zeros(len(known) + 1, np.int32)

    def numbers(self, terms: Sequence[str]) -> NDArray[np.int32]:
        """A query's different terms by their numbers; those of no text are left out."""
        unique = dict.fromkeys(terms)
        return np.array([self._vocabulary[t] for t in unique if t in self._vocabulary], np.int32)

    def bm25(self, query: NDArray[np.int32], candidates: NDArray[np.intp]) -> NDArray[np.float32]:
        """BM25 of each candidate, by its place in the pool: shape (n,)."""
        self._places[query] = np.arange(1, len(query) + 1)
        places = self._places.take(self._rows.take(candidates, axis=0).ravel())
        self._places[query] = 0
        hits = np.flatnonzero(places)
        row, column = np.divmod(hits, self._rows.shape[1])
        held = candidates.take(row)
        frequency = self._frequencies[held, column]
        idf = self._idf[query].take(places.take(hits) - 1)
        weights = idf * frequency * (K1 + 1) / (frequency + self._norms.take(held))
        return np.bincount(row, weights, minlength=len(candidates)).astype(np.float32)


def fused(
    similarities: NDArray[np.float32], lexical: NDArray[np.float32], alpha: float = ALPHA
) -> NDArray[np.float32]:
    """The mix of both columns, each brought to [0, 1] by its least and greatest score."""
    mixed: NDArray[np.float32] = alpha * _min_max(similarities) + (1 - alpha) * _min_max(lexical)
    return mixed


def python_bm25(
    query: Sequence[str],
    texts: Sequence[Terms],
    frequencies: Counter[str],
    chunks: int,
    mean: float,
) -> list[float]:
    """BM25 of each text, term by term.

    Args:
        query: its terms.
        texts: the candidates'.
        frequencies: how many texts of the pool hold a term.
        chunks: texts of the pool.
        mean: words of one.
    """
    idf = {
        term: math.log1p((chunks - frequencies[term] + 0.5) / (frequencies[term] + 0.5))
        for term in query
    }
    scores = []
    for text in texts:
        bag, norm = Counter(text.terms), K1 * (1 - B + B * text.words / mean)
        weights = ((weight, bag[term]) for term, weight in idf.items() if term in bag)
        scores.append(sum(idf_ * count * (K1 + 1) / (count + norm) for idf_, count in weights))
    return scores


def _min_max(column: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = column.min(), column.max()
    return (column - low) / (high - low) if high > low else np.zeros_like(column)
