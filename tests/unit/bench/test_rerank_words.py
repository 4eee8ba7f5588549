"""The rankings in NumPy and plain Python that the library is timed beside give its scores."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from bench.passages import Passage
from bench.rerank_arms import encoded, whole, word_statistics
from bench.rerank_words import ALPHA, K1, Analysis, B, NumpyIndex, Terms, fused, python_bm25
from rerank_zig import FusionOptions, Normalisation, RerankLibrary

WORDS = ("replicas", "lease", "block", "the", "rack", "NN-HA-42", "blockReport", "of", "quota2")
POOL = 60


@pytest.fixture(scope="module")
def library():
    return RerankLibrary.load()


@pytest.fixture(scope="module")
def pool():
    choice = random.Random(1)
    return [
        Passage("", " ".join(choice.choices(WORDS, k=choice.randint(5, 60)))) for _ in range(POOL)
    ]


def places(seed):
    chosen = np.random.default_rng(seed)
    return chosen.choice(POOL, 20, replace=False), chosen.random(20, np.float32)


@pytest.mark.parametrize("query", ["block replicas", "NN-HA-42 lease lease", "the rack", "absent"])
def test_numpy_gives_the_scores_of_the_library(library, pool, query):
    analysis = Analysis(library)
    index = NumpyIndex([analysis.terms(whole(passage)) for passage in pool])
    titles, texts = encoded(pool)
    chosen, similarities = places(2)
    options = FusionOptions(
        alpha=ALPHA, k1=K1, b=B, title=0, proximity=0, normalisation=Normalisation.MIN_MAX
    )
    scores = library.score(
        query,
        [texts[place] for place in chosen],
        similarities,
        options,
        word_statistics(library, titles, texts),
    )
    lexical = index.bm25(index.numbers(analysis.terms(query).terms), chosen)
    np.testing.assert_allclose(lexical, scores.lexical_raw, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fused(similarities, lexical), scores.fused, rtol=1e-4, atol=1e-5)
    assert lexical.any() == (query != "absent")


def test_plain_python_gives_the_scores_of_numpy():
    choice = random.Random(3)
    texts = [Terms(words := choice.choices(WORDS, k=9), len(words)) for _ in range(POOL)]
    index, (chosen, _) = NumpyIndex(texts), places(4)
    query = ["lease", "rack", "absent"]
    expected = python_bm25(
        query,
        [texts[place] for place in chosen],
        Counter(term for text in texts for term in set(text.terms)),
        POOL,
        mean=9,
    )
    assert any(expected)
    np.testing.assert_allclose(index.bm25(index.numbers(query), chosen), expected, rtol=1e-5)


def test_a_query_leaves_nothing_behind_for_the_next():
    index = NumpyIndex([Terms(["a", "b"], 2), Terms(["b"], 1)])
    both = np.array([0, 1])
    first = index.bm25(index.numbers(["a"]), both)
    index.bm25(index.numbers(["b"]), both)
    np.testing.assert_array_equal(index.bm25(index.numbers(["a"]), both), first)
    assert first[0] > 0
    assert first[1] == 0
