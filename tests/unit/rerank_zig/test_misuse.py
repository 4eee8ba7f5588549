"""Every misuse of the C ABI has a status of its own, and the Python door names the parameter."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from common.errors import FailedPrecondition, InvalidArgument
from rerank_zig import FusionOptions, RerankLibrary, WordStatistics, layout
from rerank_zig.binding import DEFAULT_PATH
from rerank_zig.layout import Status
from tests.unit.rerank_zig import reference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Call:
    """A correct call of score on two candidates, for a test to spoil in one place."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(DEFAULT_PATH))
        layout.declare(self.library)
        self.offsets = np.array([0, 9, 17], np.uint32)
        self.similarities = np.array([0.5, 0.25], np.float32)
        self.title_offsets = np.array([0, 3, 3], np.uint32)
        self.hashes = np.sort(np.array([*map(reference.hash_of, ("red", "fox"))], np.uint32))
        self.frequencies = np.array([1, 2], np.uint32)
        self.columns = np.full((6, 2), -7, np.float32)
        self.query = layout.Text(b"red foxes", 9)
        self.texts = layout.Texts(b"red foxeslazy dog", 17, self.offsets.ctypes.data, 3)
        self.titles = layout.Texts(b"dog", 3, self.title_offsets.ctypes.data, 3)
        self.candidates = layout.Candidates(
            similarities=self.similarities.ctypes.data, similarity_count=2
        )
        self.options = layout.Options(0.5, 1.2, 0.75, 3.0, 0.5, 0, 0)
        self.statistics = layout.Statistics(
            10, 40, 10, self.hashes.ctypes.data, self.frequencies.ctypes.data, 2
        )
        self.scores = layout.Columns(*(column.ctypes.data for column in self.columns), 2, -7.0, 7)

    def status(self) -> int:
        self.candidates.texts, self.candidates.titles = self.texts, self.titles
        status = self.library.sluice_rerank_score(
            self.query, self.candidates, self.options, self.statistics, self.scores
        )
        if status != Status.OK:
            assert (self.columns == -7).all(), "a refused call writes nothing"
            assert (self.scores.alpha, self.scores.chunk_count) == (-7.0, 7)
        return int(status)


def spoil(path: str, value: Any) -> Callable[[Call], None]:
    owner, field = path.split(".")

    def apply(call: Call) -> None:
        setattr(getattr(call, owner), field, value)

    return apply


def write(array: str, index: int, value: float) -> Callable[[Call], None]:
    def apply(call: Call) -> None:
        getattr(call, array)[index] = value

    return apply


# What is wrong with texts wherever they are not candidates; two, of fewer than 16 bytes.
MISUSED_TEXTS = [
    (spoil("texts.bytes", None), Status.NULL_POINTER),
    (spoil("texts.byte_count", (1 << 31) + 1), Status.TEXT_TOO_LONG),
    (spoil("texts.byte_count", 16), Status.OFFSET_OUT_OF_RANGE),
    (spoil("texts.offsets", None), Status.NULL_POINTER),
    (spoil("texts.offset_count", 0), Status.LENGTH_MISMATCH),
    (spoil("texts.offset_count", 2**64 - 1), Status.TOO_MANY_CANDIDATES),
]

MISUSES = [
    (spoil("query.bytes", None), Status.NULL_POINTER),
    (spoil("query.byte_count", (1 << 20) + 1), Status.QUERY_TOO_LONG),
    (spoil("query.byte_count", 2**64 - 1), Status.QUERY_TOO_LONG),
    (spoil("texts.bytes", None), Status.NULL_POINTER),
    (spoil("texts.byte_count", (1 << 31) + 1), Status.TEXT_TOO_LONG),
    (spoil("texts.byte_count", 16), Status.OFFSET_OUT_OF_RANGE),
    (spoil("texts.offsets", None), Status.NULL_POINTER),
    (spoil("texts.offset_count", 0), Status.LENGTH_MISMATCH),
    (spoil("texts.offset_count", 2), Status.LENGTH_MISMATCH),
    (spoil("texts.offset_count", 2**64 - 1), Status.LENGTH_MISMATCH),
    (spoil("titles.bytes", None), Status.NULL_POINTER),
    (spoil("titles.byte_count", (1 << 31) + 1), Status.TEXT_TOO_LONG),
    (spoil("titles.byte_count", 2), Status.OFFSET_OUT_OF_RANGE),
    (spoil("titles.offsets", None), Status.NULL_POINTER),
    (spoil("titles.offset_count", 2), Status.TITLES_LENGTH_MISMATCH),
    (spoil("titles.offset_count", 4), Status.TITLES_LENGTH_MISMATCH),
    (spoil("titles.offset_count", 2**64 - 1), Status.TITLES_LENGTH_MISMATCH),
    (write("title_offsets", 1, 4), Status.OFFSETS_NOT_MONOTONE),
    (write("title_offsets", 2, 4), Status.OFFSET_OUT_OF_RANGE),
    (spoil("candidates.similarities", None), Status.NULL_POINTER),
    (spoil("candidates.similarity_count", 3), Status.LENGTH_MISMATCH),
    (spoil("candidates.similarity_count", (1 << 20) + 1), Status.TOO_MANY_CANDIDATES),
    (spoil("candidates.similarity_count", 2**64 - 1), Status.TOO_MANY_CANDIDATES),
    (write("offsets", 0, 10), Status.OFFSETS_NOT_MONOTONE),
    (write("offsets", 1, 18), Status.OFFSETS_NOT_MONOTONE),
    (write("offsets", 2, 18), Status.OFFSET_OUT_OF_RANGE),
    (write("offsets", 2, 2**32 - 1), Status.OFFSET_OUT_OF_RANGE),
    (write("similarities", 0, math.nan), Status.SIMILARITY_NOT_FINITE),
    (write("similarities", 1, math.inf), Status.SIMILARITY_NOT_FINITE),
    (write("similarities", 1, -math.inf), Status.SIMILARITY_NOT_FINITE),
    (spoil("options.alpha", -0.01), Status.ALPHA_OUT_OF_RANGE),
    (spoil("options.alpha", 1.01), Status.ALPHA_OUT_OF_RANGE),
    (spoil("options.alpha", math.nan), Status.ALPHA_OUT_OF_RANGE),
    (spoil("options.k1", -1.0), Status.K1_OUT_OF_RANGE),
    (spoil("options.k1", 1001.0), Status.K1_OUT_OF_RANGE),
    (spoil("options.k1", math.nan), Status.K1_OUT_OF_RANGE),
    (spoil("options.b", -0.5), Status.B_OUT_OF_RANGE),
    (spoil("options.b", 1.5), Status.B_OUT_OF_RANGE),
    (spoil("options.b", math.nan), Status.B_OUT_OF_RANGE),
    (spoil("options.title", -0.5), Status.TITLE_OUT_OF_RANGE),
    (spoil("options.title", math.nan), Status.TITLE_OUT_OF_RANGE),
    (spoil("options.proximity", 1001.0), Status.PROXIMITY_OUT_OF_RANGE),
    (spoil("options.proximity", math.inf), Status.PROXIMITY_OUT_OF_RANGE),
    (spoil("options.normalisation", 2), Status.UNKNOWN_NORMALISATION),
    (spoil("statistics.document_count", 0), Status.STATISTICS_OUT_OF_RANGE),
    (spoil("statistics.document_count", 1), Status.STATISTICS_OUT_OF_RANGE),
    (spoil("statistics.hashes", None), Status.NULL_POINTER),
    (spoil("statistics.frequencies", None), Status.NULL_POINTER),
    (spoil("statistics.count", 1 << 32), Status.STATISTICS_OUT_OF_RANGE),
    (spoil("statistics.count", 2**64 - 1), Status.STATISTICS_OUT_OF_RANGE),
    (write("frequencies", 1, 11), Status.STATISTICS_OUT_OF_RANGE),
    (spoil("scores.fused", None), Status.NULL_POINTER),
    (spoil("scores.dense", None), Status.NULL_POINTER),
    (spoil("scores.lexical_raw", None), Status.NULL_POINTER),
    (spoil("scores.lexical", None), Status.NULL_POINTER),
    (spoil("scores.title", None), Status.NULL_POINTER),
    (spoil("scores.proximity", None), Status.NULL_POINTER),
    (spoil("scores.capacity", 1), Status.BUFFER_TOO_SMALL),
]


def test_the_unspoilt_call_succeeds() -> None:
    call = Call()
    assert call.status() == Status.OK
    assert call.columns[[0, 1, 3], 0].tolist() == pytest.approx([1, 1, 1])
    assert call.columns[2, 0] > call.columns[5, 0] > 0
    assert call.columns[:, 1].tolist() == [0] * 6
    assert (call.scores.alpha, call.scores.chunk_count) == (0.5, 10)


@pytest.mark.parametrize(("misuse", "status"), MISUSES)
def test_each_misuse_has_its_status(misuse: Callable[[Call], None], status: Status) -> None:
    call = Call()
    misuse(call)
    assert call.status() == status


def test_null_structs() -> None:
    call = Call()
    arguments = [call.query, call.candidates, call.options, call.statistics, call.scores]
    call.candidates.texts = call.texts
    for index in (0, 1, 2, 4):
        spoilt: list[Any] = list(arguments)
        spoilt[index] = None
        assert call.library.sluice_rerank_score(*spoilt) == Status.NULL_POINTER
    library, terms = call.library, layout.PackedTerms()
    assert library.sluice_rerank_analyze(None, terms) == Status.NULL_POINTER
    assert library.sluice_rerank_analyze(call.query, None) == Status.NULL_POINTER
    marking = [call.query, call.texts, HighlightCall().spans]
    for index in range(3):
        spoilt = [None if place == index else given for place, given in enumerate(marking)]
        assert library.sluice_rerank_highlight(*spoilt) == Status.NULL_POINTER
    counts = layout.PackedWordCounts()
    assert library.sluice_rerank_count_words(None, None, counts) == Status.NULL_POINTER
    assert library.sluice_rerank_count_words(None, call.texts, None) == Status.NULL_POINTER


class CountCall:
    """A correct call of count_words on two texts, for a test to spoil in one place."""

    def __init__(self) -> None:
        call = Call()
        self.library, self.texts, self.titles, self.owner = (
            call.library,
            call.texts,
            call.titles,
            call,
        )
        self.room = np.full((4, 8), 99, np.uint32)
        self.counts = layout.PackedWordCounts(
            hashes=self.room[0].ctypes.data,
            hash_capacity=5,
            offsets=self.room[1].ctypes.data,
            text_words=self.room[2].ctypes.data,
            title_words=self.room[3].ctypes.data,
            text_capacity=2,
        )

    def status(self) -> int:
        return int(self.library.sluice_rerank_count_words(self.titles, self.texts, self.counts))


@pytest.mark.parametrize(
    ("misuse", "status"),
    [
        *MISUSED_TEXTS,
        (spoil("texts.offset_count", 2), Status.TITLES_LENGTH_MISMATCH),
        (spoil("titles.offset_count", 2), Status.TITLES_LENGTH_MISMATCH),
        (spoil("titles.byte_count", 2), Status.OFFSET_OUT_OF_RANGE),
        (spoil("counts.hashes", None), Status.NULL_POINTER),
        (spoil("counts.offsets", None), Status.NULL_POINTER),
        (spoil("counts.text_words", None), Status.NULL_POINTER),
        (spoil("counts.title_words", None), Status.NULL_POINTER),
        (spoil("counts.text_capacity", 1), Status.BUFFER_TOO_SMALL),
        (spoil("counts.hash_capacity", 4), Status.BUFFER_TOO_SMALL),
    ],
)
def test_each_misuse_of_count_words_has_its_status(
    misuse: Callable[[Any], None], status: Status
) -> None:
    call = CountCall()
    misuse(call)
    assert call.status() == status


def test_count_words_writes_no_further_than_its_capacities() -> None:
    call = CountCall()
    assert (call.status(), call.counts.hash_count) == (Status.OK, 5)
    assert call.room[1].tolist() == [0, 3, 5, 99, 99, 99, 99, 99]
    assert call.room[2:, :3].tolist() == [[2, 2, 99], [1, 0, 99]]
    assert (call.room[0, 5:] == 99).all()
    call = CountCall()
    call.counts.hash_capacity = 2
    assert (call.status(), call.counts.hash_count) == (Status.BUFFER_TOO_SMALL, 5)
    assert (call.room[0, 2:] == 99).all()


class HighlightCall:
    """A correct call of highlight on two texts, for a test to spoil in one place."""

    def __init__(self) -> None:
        call = Call()
        self.library, self.query, self.texts = call.library, call.query, call.texts
        self.offsets = call.offsets
        self.room = np.full((2, 8), 99, np.uint32)
        self.spans = layout.Spans(
            spans=self.room[0].ctypes.data,
            capacity=2,
            offsets=self.room[1].ctypes.data,
            text_capacity=2,
            count=7,
        )

    def status(self) -> int:
        return int(self.library.sluice_rerank_highlight(self.query, self.texts, self.spans))


@pytest.mark.parametrize(
    ("misuse", "status"),
    [
        (spoil("query.bytes", None), Status.NULL_POINTER),
        (spoil("query.byte_count", (1 << 20) + 1), Status.QUERY_TOO_LONG),
        *MISUSED_TEXTS,
        (write("offsets", 1, 18), Status.OFFSETS_NOT_MONOTONE),
        (spoil("spans.spans", None), Status.NULL_POINTER),
        (spoil("spans.offsets", None), Status.NULL_POINTER),
        (spoil("spans.text_capacity", 1), Status.BUFFER_TOO_SMALL),
    ],
)
def test_each_misuse_of_highlight_has_its_status(
    misuse: Callable[[Any], None], status: Status
) -> None:
    call = HighlightCall()
    misuse(call)
    assert call.status() == status
    assert (call.room == 99).all(), "a refused call writes nothing"
    assert call.spans.count == 7


def test_highlight_writes_no_further_than_its_capacities() -> None:
    call = HighlightCall()
    assert (call.status(), call.spans.count) == (Status.OK, 2)
    assert call.room[0].tolist() == [0, 3, 4, 9, *[99] * 4]
    assert call.room[1].tolist() == [0, 2, 2, *[99] * 5]
    for capacity in (0, 1):
        call = HighlightCall()
        call.spans.capacity = capacity
        assert (call.status(), call.spans.count) == (Status.BUFFER_TOO_SMALL, 2)
        written = [0, 3][: 2 * capacity]
        assert call.room[0].tolist() == [*written, *[99] * (8 - len(written))]


def test_nothing_with_null_pointers_is_fine() -> None:
    call = Call()
    nothing = layout.Candidates(
        layout.Texts(None, 0, call.offsets.ctypes.data, 1), similarity_count=0
    )
    arguments = (layout.Text(None, 0), nothing, call.options, None, layout.Columns())
    assert call.library.sluice_rerank_score(*arguments) == Status.OK


def test_small_buffers_are_told_what_they_need() -> None:
    call = Call()
    terms = layout.PackedTerms()
    assert call.library.sluice_rerank_analyze(call.query, terms) == Status.BUFFER_TOO_SMALL
    assert (terms.byte_count, terms.term_count) == (len("redfox"), 2)
    terms.byte_capacity, terms.offset_capacity = 6, 3
    assert call.library.sluice_rerank_analyze(call.query, terms) == Status.NULL_POINTER


def test_misaligned_arrays_are_read_all_the_same() -> None:
    call = Call()
    shifted = np.zeros(9, np.uint8)
    shifted[1:] = call.similarities.view(np.uint8)
    call.candidates.similarities = shifted.ctypes.data + 1
    assert call.status() == Status.OK
    assert call.columns[1].tolist() == [1, 0]


def test_every_status_has_a_message_of_its_own() -> None:
    library = Call().library
    messages = [library.sluice_rerank_status_message(status) for status in Status]
    assert len(set(messages)) == len(Status)
    for unknown in (len(Status), 2**32 - 1):
        assert library.sluice_rerank_status_message(unknown) == b"unknown status"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (FusionOptions(alpha=2), "options.alpha"),
        (FusionOptions(k1=-1), "options.k1"),
        (FusionOptions(b=math.nan), "options.b"),
        (FusionOptions(title=-1), "options.title"),
        (FusionOptions(proximity=1001), "options.proximity"),
    ],
)
def test_python_names_the_option(
    library: RerankLibrary, options: FusionOptions, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        library.score("fox", ["fox"], np.ones(1, np.float32), options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "similarities",
    [
        np.ones(1, np.float32),
        np.ones((2, 1), np.float32),
        np.array([1, math.nan], np.float32),
        np.array([1, 1e300], np.float64),
    ],
)
def test_python_names_the_similarities(
    library: RerankLibrary, similarities: np.ndarray[Any, Any]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        library.score("fox", ["fox", "dog"], similarities)
    assert caught.value.field == "similarities"


def known(
    chunks: int = 5,
    text_words: int = 9,
    title_words: int = 0,
    hashes: np.ndarray[Any, Any] | None = None,
    frequencies: list[int] | None = None,
) -> WordStatistics:
    """Statistics that know the word "fox"."""
    fox = np.array([reference.hash_of("fox")], np.uint32)
    return WordStatistics(
        chunks,
        text_words,
        title_words,
        fox if hashes is None else hashes,
        np.array([1] if frequencies is None else frequencies, np.uint32),
    )


def test_statistics_out_of_order_do_no_harm(library: RerankLibrary) -> None:
    rng = np.random.default_rng(1)
    terms = [f"w{number}" for number in range(300)]
    hashes = np.array([reference.hash_of(term) for term in terms], np.uint32)
    query, ones = " ".join(terms), np.ones(300, np.uint32)
    for _ in range(50):
        rng.shuffle(hashes)
        statistics = WordStatistics(5, 9, 0, hashes, ones)
        scores = library.score(query, ["w1 w2"], np.ones(1, np.float32), statistics=statistics)
        assert np.isfinite(scores.lexical_raw).all()


@pytest.mark.parametrize(
    "statistics",
    [
        known(chunks=0),
        known(chunks=-1),
        known(chunks=2**64),
        known(text_words=-1),
        known(title_words=2**64),
        known(frequencies=[6]),
        known(frequencies=[1, 1]),
        known(hashes=np.array([1], np.uint64)),
        known(hashes=np.array([[1]], np.uint32)),
        known(hashes=np.array([1, 2, 3], np.uint32)[::2], frequencies=[1, 1]),
    ],
)
def test_python_names_the_statistics(library: RerankLibrary, statistics: WordStatistics) -> None:
    with pytest.raises(InvalidArgument) as caught:
        library.score("fox", ["fox"], np.ones(1, np.float32), statistics=statistics)
    assert caught.value.field == "statistics"


def test_python_names_the_long_query(library: RerankLibrary) -> None:
    longest = "x" * layout.MAX_QUERY_BYTES
    most = " ".join(map(str, range(10_000, 10_000 + layout.MAX_QUERY_TERMS)))
    for query in (longest, most):
        assert library.highlight(query, ["fox"]) == [[]]
        with pytest.raises(InvalidArgument) as caught:
            library.highlight(query + " fox", ["fox"])
        assert caught.value.field == "query"


def test_a_missing_library_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="ziglang build"):
        RerankLibrary.load(tmp_path / "absent.so")


def test_a_broken_library_says_how_to_build_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF not really")
    with pytest.raises(FailedPrecondition, match="ziglang build"):
        RerankLibrary.load(broken)


def test_another_abi_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ABI_VERSION", 4)
    with pytest.raises(FailedPrecondition, match="ABI version 3, this binding needs 4"):
        RerankLibrary.load()


def test_a_library_that_lacks_a_function(tmp_path: Path) -> None:
    source, library = tmp_path / "half.c", tmp_path / "half.so"
    source.write_text(
        f"unsigned sluice_rerank_abi_version(void) {{ return {layout.ABI_VERSION}; }}"
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    with pytest.raises(FailedPrecondition, match=r"half\.so is not complete .*Build it"):
        RerankLibrary.load(library)
