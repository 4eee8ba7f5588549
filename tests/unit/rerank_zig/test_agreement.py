"""Native terms, hashes and scores are those of plain Python, scores to 1e-5, on random Unicode."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rerank_zig import FusionOptions, Normalisation, WordStatistics
from tests.unit.rerank_zig import reference, reference_scoring

if TYPE_CHECKING:
    from rerank_zig import RerankLibrary

# Assigned in Unicode 3.2 and therefore in every later version: any Python agrees on these.
ASSIGNED = [
    chr(code_point)
    for code_point in range(0x110000)
    if unicodedata.ucd_3_2_0.category(chr(code_point)) not in {"Cn", "Cs", "Co"}
]
SEPARATORS = [" ", " ", " ", " ", "-", "_", ".", "/", ":", "\n", "\u2019", "。", "\u00a0", "😀"]
PROSE = """
The running runs ran runner of generously organized organization index indexes indexing indices
node nodes replicated replication replicas block blocks cluster clustering policies policy failing
failed failure fails and to be or not quickly quick café naïve x2 42
"""
ENGLISH = PROSE.split()
NAMES = """
DataNode NN-HA-42 dfs.datanode.data.dir java.io.IOException log4j2 HTTPServer to_be state-of-the-art
blk_1073741825 10.0.0.7:8020 C:\\Data\\Blocks user@HOST isBlockReportDue ABc aB1c2D É_7 naïve.Bayes
"""
IDENTIFIERS = NAMES.split()


def random_word(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(IDENTIFIERS)
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
    titles: list[str | bytes] | None
    texts: list[str | bytes]
    similarities: np.ndarray
    options: FusionOptions
    known: reference_scoring.Statistics | None
    statistics: WordStatistics | None


def random_statistics(
    rng: random.Random, query: str
) -> tuple[reference_scoring.Statistics, WordStatistics]:
    """The same twice: by term, and by hash among others."""
    chunks = rng.randint(1, 10**6)
    frequencies = {
        term: rng.randint(0, chunks)
        for term in reference.query_of(query).terms
        if rng.random() < 0.8
    }
    text_words, title_words = rng.randint(0, 500 * chunks), rng.randint(0, 9 * chunks)
    by_hash = {rng.getrandbits(32) or 1: rng.randint(0, chunks) for _ in range(50)}
    by_hash |= {reference.hash_of(term): count for term, count in frequencies.items()}
    return reference_scoring.Statistics(
        chunks, text_words, title_words, frequencies
    ), WordStatistics(
        chunks,
        text_words,
        title_words,
        np.array(sorted(by_hash), np.uint32),
        np.array([by_hash[value] for value in sorted(by_hash)], np.uint32),
    )


def random_case(seed: int) -> Case:
    rng = random.Random(seed)
    query = rng.choice([" ", " ", "-"]).join(random_word(rng) for _ in range(rng.randint(0, 8)))
    count = rng.choice([0, 1, 2, 7, 30])
    texts = [random_text(rng, rng.choice([0, 1, 5, 40])) for _ in range(count)]
    titles = [random_text(rng, rng.choice([0, 1, 5])) for _ in range(count)]
    known, statistics = random_statistics(rng, query) if rng.random() < 0.5 else (None, None)
    return Case(
        query=query,
        titles=titles if rng.random() < 0.7 else None,
        texts=texts,
        similarities=np.array([rng.uniform(-1, 1) for _ in range(count)], np.float32),
        options=FusionOptions(
            alpha=rng.choice([None, None, 0.0, 0.5, 1.0, rng.random()]),
            k1=rng.choice([0.0, 1.2, rng.uniform(0, 4)]),
            b=rng.choice([0.0, 0.75, 1.0, rng.random()]),
            title=rng.choice([0.0, 3.0, rng.uniform(0, 10)]),
            proximity=rng.choice([0.0, 0.5, rng.uniform(0, 4)]),
            normalisation=rng.choice(list(Normalisation)),
        ),
        known=known,
        statistics=statistics,
    )


def expected_scores(case: Case) -> reference_scoring.Columns:
    query = reference.query_of(case.query)
    titles = case.titles or [""] * len(case.texts)
    options = case.options
    return reference_scoring.score(
        query,
        [
            (reference.field_of(query, title), reference.field_of(query, text))
            for title, text in zip(titles, case.texts, strict=True)
        ],
        case.similarities.tolist(),
        reference_scoring.Weights(
            alpha=options.alpha,
            k1=options.k1,
            b=options.b,
            title=options.title,
            proximity=options.proximity,
            theoretical=options.normalisation is Normalisation.THEORETICAL,
        ),
        case.known,
    )


@pytest.mark.parametrize("first_seed", range(0, 600, 50))
def test_scores_agree_with_the_reference(library: RerankLibrary, first_seed: int) -> None:
    matched = near = 0
    for seed in range(first_seed, first_seed + 50):
        case = random_case(seed)
        scores = library.score(
            case.query, case.texts, case.similarities, case.options, case.statistics, case.titles
        )
        expected = expected_scores(case)
        for name in ("fused", "dense", "lexical_raw", "lexical", "title", "proximity", "alpha"):
            unbounded = name in {"lexical_raw", "title", "proximity"}
            np.testing.assert_allclose(
                getattr(scores, name),
                getattr(expected, name),
                atol=1e-5,
                rtol=1e-6 if unbounded else 0,
                err_msg=f"{name}, seed {seed}",
            )
        assert scores.chunks == expected.chunks
        matched += bool((scores.lexical_raw > 0).any())
        near += bool((scores.proximity > 0).any())
    assert matched >= 10, "the cases must exercise what words say"
    assert near >= 2, "and what they say together"


@pytest.mark.parametrize("seed", range(30))
def test_counts_of_words_agree(library: RerankLibrary, seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(0, 12)
    titles, texts = (
        [
            text if isinstance(text, bytes) else text.encode()
            for text in (random_text(rng, rng.choice(sizes)) for _ in range(count))
        ]
        for sizes in ((0, 1, 5), (0, 1, 5, 60))
    )
    counts = library.count_words(titles, texts)
    expected = reference.count_words(titles, texts)
    assert [
        counts.hashes[start:end].tolist() for start, end in pairwise(counts.offsets.tolist())
    ] == expected.hashes
    assert counts.text_words.tolist() == expected.text_words
    assert counts.title_words.tolist() == expected.title_words


def test_terms_agree_on_every_assigned_code_point(library: RerankLibrary) -> None:
    for start in range(0, len(ASSIGNED), 500):
        # Between letters, so that letters, digits, marks and separators all show themselves.
        text = " ".join(f"x{character}x" for character in ASSIGNED[start : start + 500])
        assert library.analyze(text) == reference.analyze(text)


@pytest.mark.parametrize("seed", range(20))
def test_terms_and_spans_agree_on_random_text(library: RerankLibrary, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(random_word(rng) + rng.choice(SEPARATORS) for _ in range(200))
    query = "".join(random_word(rng) + rng.choice(SEPARATORS) for _ in range(8))
    assert library.analyze(text) == reference.analyze(text)
    texts = [text, *(text[start : start + 70] for start in range(0, len(text), 70))]
    spans = library.highlight(query, texts)
    assert spans[0]
    assert spans == [reference.highlight(query, each) for each in texts]
