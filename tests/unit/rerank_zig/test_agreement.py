"""The native scores are those of the plain Python formula, to 1e-5, on random Unicode."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rerank_zig import CorpusStatistics, FusionOptions, Normalisation
from tests.unit.rerank_zig import reference

if TYPE_CHECKING:
    from rerank_zig import RerankLibrary

# Assigned in Unicode 3.2 and therefore in every later version: any Python agrees on these.
ASSIGNED = [
    chr(code_point)
    for code_point in range(0x110000)
    if unicodedata.ucd_3_2_0.category(chr(code_point)) not in {"Cn", "Cs", "Co"}
]
SEPARATORS = [" ", " ", " ", "-", "_", "\n", "\u2019", "。", "\u00a0", "😀"]
PROSE = """
The running runs ran runner of generously organized organization index indexes indexing indices
node nodes replicated replication replicas block blocks cluster clustering policies policy failing
failed failure fails and to be or not quickly quick café naïve x2 42
"""
ENGLISH = PROSE.split()


def random_word(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        word = rng.choice(ENGLISH)
        return rng.choice([word, word.upper(), word.title()])
    if kind < 0.9:
        return "".join(rng.choices(ASSIGNED, k=rng.randint(1, 6)))
    return "".join(rng.choices("abcdeéİßẞΣςⅣⅷǅ²٣\u0301\u0345ȺK", k=rng.randint(1, 40)))


def random_text(rng: random.Random, word_count: int) -> str | bytes:
    text = "".join(random_word(rng) + rng.choice(SEPARATORS) for _ in range(word_count))
    if rng.random() < 0.7:
        return text
    encoded = bytearray(text.encode())
    for _ in range(len(encoded) // 20):
        encoded[rng.randrange(len(encoded))] = rng.randrange(256)
    return bytes(encoded)


@dataclass(frozen=True)
class Case:
    query: str
    texts: list[str | bytes]
    similarities: np.ndarray
    options: FusionOptions
    statistics: CorpusStatistics | None


def random_case(seed: int) -> Case:
    rng = random.Random(seed)
    query = " ".join(random_word(rng) for _ in range(rng.randint(0, 8)))
    count = rng.choice([0, 1, 2, 7, 30])
    texts = [random_text(rng, rng.choice([0, 1, 5, 40])) for _ in range(count)]
    statistics = None
    if rng.random() < 0.5:
        documents = rng.randint(1, 10**6)
        frequencies = {
            term: rng.randint(0, documents)
            for term in reference.analyze(query)
            if rng.random() < 0.8
        }
        statistics = CorpusStatistics(documents, rng.uniform(0.1, 500), frequencies)
    return Case(
        query=query,
        texts=texts,
        similarities=np.array([rng.uniform(-1, 1) for _ in range(count)], np.float32),
        options=FusionOptions(
            alpha=rng.choice([0.0, 0.5, 1.0, rng.random()]),
            k1=rng.choice([0.0, 1.2, rng.uniform(0, 4)]),
            b=rng.choice([0.0, 0.75, 1.0, rng.random()]),
            normalisation=rng.choice(list(Normalisation)),
        ),
        statistics=statistics,
    )


@pytest.mark.parametrize("first_seed", range(0, 600, 50))
def test_scores_agree_with_the_reference(library: RerankLibrary, first_seed: int) -> None:
    matched = 0
    for seed in range(first_seed, first_seed + 50):
        case = random_case(seed)
        scores = library.score(
            case.query, case.texts, case.similarities, case.options, case.statistics
        )
        given = case.statistics
        expected = reference.score(
            case.query,
            case.texts,
            case.similarities.tolist(),
            alpha=case.options.alpha,
            k1=case.options.k1,
            b=case.options.b,
            theoretical=case.options.normalisation is Normalisation.THEORETICAL,
            statistics=None
            if given is None
            else (given.document_count, given.average_length, given.document_frequencies),
        )
        for name in ("fused", "dense", "lexical_raw", "lexical"):
            np.testing.assert_allclose(
                getattr(scores, name),
                getattr(expected, name),
                atol=1e-5,
                rtol=1e-6 if name == "lexical_raw" else 0,  # BM25 has no upper bound
                err_msg=f"{name}, seed {seed}",
            )
        matched += bool((scores.lexical_raw > 0).any())
    assert matched >= 10, "the cases must exercise BM25"


def test_terms_agree_on_every_assigned_code_point(library: RerankLibrary) -> None:
    for start in range(0, len(ASSIGNED), 500):
        # Between letters, so that letters, digits, marks and separators all show themselves.
        text = " ".join(f"x{character}x" for character in ASSIGNED[start : start + 500])
        assert library.analyze(text) == reference.analyze(text)


@pytest.mark.parametrize("seed", range(20))
def test_terms_and_spans_agree_on_random_text(library: RerankLibrary, seed: int) -> None:
    rng = random.Random(seed)
    text = " ".join(random_word(rng) for _ in range(200))
    query = " ".join(random_word(rng) for _ in range(5))
    assert library.analyze(text) == reference.analyze(text)
    wanted = set(reference.analyze(query))
    assert library.highlight(query, text) == [
        (token.start, token.end) for token in reference.tokens(text) if token.term in wanted
    ]
