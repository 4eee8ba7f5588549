"""What a caller in Python may rely on: terms, spans, scores, threads."""

from __future__ import annotations

import itertools
import string
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rerank_zig import ANALYSIS, FusionOptions, Normalisation, WordStatistics
from tests.unit.rerank_zig import reference

if TYPE_CHECKING:
    from rerank_zig import RerankLibrary


def test_analyze(library: RerankLibrary) -> None:
    text = "How do the NameNodes balance blocks? Balancing a block; Straße x²"
    assert library.analyze(text) == [
        "namenod", "name", "node", "balanc", "block", "straße", "x²",
    ]  # fmt: skip
    assert library.analyze("") == library.analyze("to be or not to be") == []


def test_analyze_of_words_that_grow_in_lower_case(library: RerankLibrary) -> None:
    words = [chr(0x23A) * count for count in range(1, 22)]
    assert library.analyze(" ".join(words)) == [word.lower() for word in words]


def test_highlight_gives_character_spans(library: RerankLibrary) -> None:
    text = "Äther: compacted 語 \U0001f600 regions — compaction of a Région"
    [spans] = library.highlight("Compacting the region", [text])
    assert [text[start:end] for start, end in spans] == ["compacted", "regions", "compaction"]


def test_highlight_of_more_words_than_the_first_buffer_holds(library: RerankLibrary) -> None:
    expected = [(i * 4, i * 4 + 3) for i in range(1000)]
    assert library.highlight("fox", ["a fox", "fox " * 1000, "fox"]) == [
        [(2, 5)], expected, [(0, 3)],
    ]  # fmt: skip


def test_highlight_keeps_texts_apart(library: RerankLibrary) -> None:
    texts = ["", "the dfs.", "data.dir", "\u00e9 dfs.data.dir", "dir" * 30, "dfs", ""]
    assert library.highlight("dfs.data.dir", texts) == [
        [], [(4, 7)], [(0, 4), (5, 8)], [(2, 14)], [], [(0, 3)], [],
    ]  # fmt: skip
    assert library.highlight("fox", []) == []


@pytest.mark.parametrize("count", [1, 40])
def test_highlight_of_many_bytes_is_as_of_few(library: RerankLibrary, count: int) -> None:
    """Below a bound of bytes the call keeps the interpreter, above it lets go of it."""
    texts = ["the r\u00e9gion, regions " * 50 + "fox"] * count
    [spans] = library.highlight("regions fox", texts[:1])
    assert len(spans) == 51
    assert library.highlight("regions fox", texts) == [spans] * count


def test_lone_surrogates_separate_words(library: RerankLibrary) -> None:
    text = "red\ud800fox \udfff foxes"
    assert library.analyze(text) == ["red", "fox"]
    assert library.highlight("fox\ud800", [text]) == [[(4, 7), (10, 15)]]
    scores = library.score("fox\ud800", [text, "dog"], np.zeros(2, np.float32))
    assert scores.lexical.tolist() == [1, 0]


def test_bytes_and_text_score_alike(library: RerankLibrary) -> None:
    similarities = np.array([0.1, 0.2], np.float32)
    texts = ["Die Straße", "der Fluß"]
    as_text = library.score("straße", texts, similarities)
    as_bytes = library.score("straße", [text.encode() for text in texts], similarities)
    np.testing.assert_array_equal(as_text.fused, as_bytes.fused)
    assert as_text.lexical.tolist() == [1, 0]


def test_no_candidates(library: RerankLibrary) -> None:
    scores = library.score("fox", [], np.empty(0, np.float32))
    assert scores.fused.shape == scores.lexical_raw.shape == (0,)


def test_a_query_of_stop_words_ranks_by_meaning_alone(library: RerankLibrary) -> None:
    similarities = np.array([0.1, 0.9, 0.5], np.float32)
    scores = library.score("to be or not to be", ["to be"] * 3, similarities)
    assert scores.lexical_raw.tolist() == [0, 0, 0]
    assert np.argsort(-scores.fused).tolist() == [1, 2, 0]


def test_equal_similarities_up_to_rounding_say_nothing(library: RerankLibrary) -> None:
    similarities = np.array([0.7, np.nextafter(np.float32(0.7), np.float32(1))], np.float32)
    assert library.score("fox", ["a", "b"], similarities).dense.tolist() == [0, 0]


def test_corpus_statistics_decide_which_word_is_rare(library: RerankLibrary) -> None:
    texts, similarities = ["hdfs cluster", "namenode cluster"], np.zeros(2, np.float32)
    options = FusionOptions(alpha=0, normalisation=Normalisation.THEORETICAL)
    frequencies = sorted({reference.hash_of("hdfs"): 900, reference.hash_of("namenod"): 3}.items())
    hashes, counts = np.array(frequencies, np.uint32).T.copy()
    statistics = WordStatistics(1000, 2000, 0, hashes, counts)
    scores = library.score("hdfs namenode", texts, similarities, options, statistics)
    assert scores.fused[1] == 1
    assert scores.fused[0] < 0.1
    assert scores.chunks == 1000
    alone = library.score("hdfs namenode", texts, similarities, options)
    assert alone.fused.tolist() == [1, 1]
    assert alone.chunks == 2


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_fused_mixes_the_two_columns(library: RerankLibrary, alpha: float) -> None:
    similarities = np.array([0.9, 0.1, 0.4], np.float32)
    scores = library.score(
        "fox", ["dog", "fox fox", "a fox ran"], similarities, FusionOptions(alpha)
    )
    mixed = alpha * scores.dense + (1 - alpha) * scores.lexical
    np.testing.assert_allclose(scores.fused, mixed, atol=1e-6)


def test_threads_share_one_library(library: RerankLibrary) -> None:
    texts = [f"fox {'dog ' * count}" for count in range(100)]
    similarities = np.linspace(0, 1, 100, dtype=np.float32)
    expected = library.score("foxes", texts, similarities).fused

    def repeat(_: int) -> bool:
        scores = (library.score("foxes", texts, similarities) for _ in range(50))
        return all((each.fused == expected).all() for each in scores)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(repeat, range(4)))


def test_identifiers_match_as_one(library: RerankLibrary) -> None:
    text = "the NN-HA-42 of java.io.IOException"
    assert library.analyze(text) == [
        "nn", "nn-ha-42", "ha", "42", "java", "java.io.ioexception", "io", "ioexcept", "except",
    ]  # fmt: skip
    texts = ["nn 42 ha", "see NN-HA-42: ha", "nn-ha 42"]
    scores = library.score("nn-ha-42", texts, np.zeros(3, np.float32), FusionOptions(proximity=0))
    assert np.argmax(scores.lexical_raw) == 1


def test_highlight_marks_whole_words_for_parts_and_whole_runs_for_compounds(
    library: RerankLibrary,
) -> None:
    text = "The DataNode réseau dfs.data.dir and data-dir"
    [spans] = library.highlight("dfs.data.dir of nodes", [text])
    assert [text[start:end] for start, end in spans] == [
        "DataNode", "dfs.data.dir", "data", "dir",
    ]  # fmt: skip


def test_count_words(library: RerankLibrary) -> None:
    counts = library.count_words([b"The Fox", b"", b""], [b"a fox, foxes", b"", b"dfs.Dir \xff"])
    terms = ["dfs", "dir", "\x01dfs.dir"]
    assert counts.hashes.tolist() == [
        reference.hash_of("fox"), *sorted(map(reference.hash_of, terms)),
    ]  # fmt: skip
    assert counts.offsets.tolist() == [0, 1, 1, 4]
    assert counts.text_words.tolist() == [3, 0, 2]
    assert counts.title_words.tolist() == [2, 0, 0]
    assert library.count_words([], []).offsets.tolist() == [0]


def test_count_words_of_more_terms_than_the_first_buffer_holds(library: RerankLibrary) -> None:
    letters = string.ascii_lowercase + string.digits
    text = " ".join(map("".join, itertools.product(letters, letters)))
    counts = library.count_words([b""], [text.encode()])
    assert len(text) // 4 + 64 < len(counts.hashes) == counts.offsets[1]
    assert len(counts.hashes) == len(library.analyze(text)) > 1200


def test_hashes_never_change(library: RerankLibrary) -> None:
    """They are kept in published statistics, beside the version of the analysis."""
    texts = ["Foxes", "cafécorpora2", "x" * 64]
    hashes = [library.count_words([b""], [text.encode()]).hashes.tolist() for text in texts]
    assert hashes == [[0x772B4E8A], [0x3736A95A], [0xB629A9E2]]
    assert ANALYSIS == 1
