"""The contestants of the ranking benchmark: each scores the same candidates for the same question.

An arm prepares a question outside the time and gives what is to be timed. What is inside is said
in ``includes`` and must be true. Nothing here measures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import bm25s
import numpy as np
import rank_bm25

from bench.rerank_words import K1, Analysis, B, NumpyIndex, fused, python_bm25
from rerank_zig import FusionOptions, RerankLibrary, WordStatistics

if TYPE_CHECKING:
    from asyncio import Runner
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bench.passages import Passage
    from query.cross_encoder import CrossEncoder

    Prepare: TypeAlias = "Callable[[Question], Callable[[], NDArray[Any]]]"

# More than any machine takes: every candidate is scored.
NO_BUDGET_S = 3_600.0
STORE_BYTES = 2**30
# Calls in one turn: of a fast arm as many as there are questions, of one in Python fewer.
CALLS, FEW_CALLS = 64, 10


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked, and which passages of the pool are to be scored for it.

    Attributes:
        text: the question.
        candidates: shape (n,), places in the pool.
        similarities: shape (n,), descending.
    """

    text: str
    candidates: NDArray[np.intp]
    similarities: NDArray[np.float32]

    def first(self, count: int) -> Question:
        """The same for its first candidates only."""
        return Question(self.text, self.candidates[:count], self.similarities[:count])


class Arm(NamedTuple):
    """One way to score candidates.

    Attributes:
        includes: what is inside the time, for people.
        prepare: makes what is timed: it scores the question's candidates.
        calls: in one turn.
        every: takes part in every so-manieth round.
    """

    includes: str
    prepare: Prepare
    calls: int = 1
    every: int = 1


def fast_arms(pool: Sequence[Passage]) -> dict[str, Arm]:
    """Those that keep something of every passage of the pool, and the raw one."""
    library = RerankLibrary.load()
    titles, texts = encoded(pool)
    ids = [f"{number:032x}:{0:016x}:0" for number in range(len(pool))]
    statistics = word_statistics(library, titles, texts)
    options = FusionOptions()
    store = library.open_store(STORE_BYTES)
    store.put(ids, titles, texts)
    if missing := store.missing(ids):
        raise RuntimeError(f"the store did not keep {len(missing)} of {len(ids)} passages")
    analysis = Analysis(library)
    index = NumpyIndex([analysis.terms(whole(passage)) for passage in pool])
    tokens = bm25s.tokenize([whole(one) for one in pool], stopwords="en", show_progress=False)
    indexed = bm25s.BM25(k1=K1, b=B)
    indexed.index(tokens, show_progress=False)

    def cached(question: Question) -> Callable[[], NDArray[Any]]:
        chosen = [ids[place] for place in question.candidates]

        def call() -> NDArray[Any]:
            scores, _ = store.score(
                question.text, chosen, question.similarities, options, statistics
            )
            return scores.fused

        return call

    def raw(question: Question) -> Callable[[], NDArray[Any]]:
        some_titles = [titles[place] for place in question.candidates]
        some = [texts[place] for place in question.candidates]

        def call() -> NDArray[Any]:
            return library.score(
                question.text, some, question.similarities, options, statistics, some_titles
            ).fused

        return call

    def with_numpy(question: Question) -> Callable[[], NDArray[Any]]:
        terms = index.numbers(analysis.terms(question.text).terms)
        return lambda: fused(question.similarities, index.bm25(terms, question.candidates))

    def from_index(question: Question) -> Callable[[], NDArray[Any]]:
        def call() -> NDArray[Any]:
            scores = _bm25s_scores(indexed, question.text)
            return fused(question.similarities, scores.take(question.candidates))

        return call

    return {
        "zig_cached": Arm(
            "binding, the query's analysis, scoring by ids out of the native store, fusion",
            cached,
            CALLS,
        ),
        "zig_raw": Arm(
            "binding, packing of titles and texts, tokenising them, scoring, fusion", raw, CALLS
        ),
        "numpy": Arm(
            "BM25 of one field and fusion over arrays of terms counted before; neither the query's "
            "nor the candidates' tokenising",
            with_numpy,
            CALLS,
        ),
        "bm25s_indexed": Arm(
            "the query's tokenising, scores of the whole pool from an index built before, fusion; "
            "no stemmer",
            from_index,
            CALLS,
        ),
    }


def python_arms(pool: Sequence[Passage]) -> dict[str, Arm]:
    """Those that tokenise the candidates in Python for every question."""
    analysis = Analysis(RerankLibrary.load())
    counted = [analysis.terms(whole(passage)) for passage in pool]
    frequencies = Counter(term for text in counted for term in set(text.terms))
    mean = sum(text.words for text in counted) / len(counted)

    def plain(question: Question) -> Callable[[], NDArray[Any]]:
        texts = [whole(pool[place]) for place in question.candidates]

        def call() -> NDArray[Any]:
            terms = list(dict.fromkeys(analysis.terms(question.text).terms))
            found = [analysis.terms(text) for text in texts]
            scores = python_bm25(terms, found, frequencies, len(pool), mean)
            return fused(question.similarities, np.array(scores, np.float32))

        return call

    def with_bm25s(question: Question) -> Callable[[], NDArray[Any]]:
        texts = [whole(pool[place]) for place in question.candidates]

        def call() -> NDArray[Any]:
            index = bm25s.BM25(k1=K1, b=B)
            index.index(
                bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False
            )
            return fused(question.similarities, _bm25s_scores(index, question.text))

        return call

    def with_rank_bm25(question: Question) -> Callable[[], NDArray[Any]]:
        texts = [whole(pool[place]) for place in question.candidates]

        def call() -> NDArray[Any]:
            index = rank_bm25.BM25Okapi([text.lower().split() for text in texts], k1=K1, b=B)
            scores = index.get_scores(question.text.lower().split())
            return fused(question.similarities, scores.astype(np.float32))

        return call

    return {
        "python_reference": Arm(
            "tokenising with every word's stem known before, BM25 of one field in plain Python "
            "with the pool's statistics, fusion",
            plain,
            FEW_CALLS,
        ),
        "bm25s": Arm(
            "tokenising, an index over the candidates, scores, fusion; no stemmer",
            with_bm25s,
            FEW_CALLS,
        ),
        "rank_bm25": Arm(
            "splitting at white space, an index over the candidates, scores, fusion",
            with_rank_bm25,
            FEW_CALLS,
        ),
    }


def cross_encoder_arm(
    pool: Sequence[Passage], encoder: CrossEncoder, runner: Runner, *, every: int
) -> Arm:
    """A model that reads question and text together."""

    def prepare(question: Question) -> Callable[[], NDArray[Any]]:
        texts = [whole(pool[place]) for place in question.candidates]

        def call() -> NDArray[Any]:
            scores = runner.run(encoder.score(question.text, texts, budget_s=NO_BUDGET_S))
            if len(scores) != len(texts):
                raise RuntimeError(f"it scored {len(scores)} of {len(texts)} candidates")
            return scores

        return call

    return Arm("tokenising pairs, the model on ONNX Runtime; no fusion", prepare, every=every)


def whole(passage: Passage) -> str:
    """Title and text, for what knows one field only."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def encoded(pool: Sequence[Passage]) -> tuple[list[bytes], list[bytes]]:
    """Titles and texts in UTF-8."""
    return [one.title.encode() for one in pool], [one.text.encode() for one in pool]


def word_statistics(
    library: RerankLibrary, titles: Sequence[bytes], texts: Sequence[bytes]
) -> WordStatistics:
    """What a query server would know of a collection of these chunks."""
    counts = library.count_words(titles, texts)
    hashes, frequencies = np.unique(counts.hashes, return_counts=True)
    return WordStatistics(
        chunks=len(texts),
        text_words=int(counts.text_words.sum()),
        title_words=int(counts.title_words.sum()),
        hashes=hashes,
        frequencies=frequencies.astype(np.uint32),
    )


def _bm25s_scores(index: bm25s.BM25, question: str) -> NDArray[np.float32]:
    [tokens] = bm25s.tokenize([question], stopwords="en", return_ids=False, show_progress=False)
    # It has no answer for a query without words.
    if not tokens:
        return np.zeros(index.scores["num_docs"], np.float32)
    scores: NDArray[np.float32] = index.get_scores(tokens)
    return scores
