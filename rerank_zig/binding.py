"""The Python door of the native reranker: packs, calls once, unpacks.

Calls go through ctypes, which releases the GIL while the library works; one instance serves any
number of threads. It must never compute a score itself, and never let a value that the library
refuses pass as a result: every refusal is an InvalidArgument that names the parameter.
"""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from common.errors import FailedPrecondition, InvalidArgument, Overloaded
from rerank_zig import layout
from rerank_zig.layout import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

DEFAULT_PATH: Final = Path(__file__).parent / "zig-out" / "lib" / "libsluice_rerank.so"
BUILD_COMMAND: Final = (
    "python -m ziglang build --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out"
)
OUT_OF_MEMORY_RETRY_MS: Final = 1000
FIRST_SPAN_CAPACITY: Final = 256

_FIELDS: Final = {
    Status.SIMILARITY_NOT_FINITE: "similarities",
    Status.ALPHA_OUT_OF_RANGE: "options.alpha",
    Status.K1_OUT_OF_RANGE: "options.k1",
    Status.B_OUT_OF_RANGE: "options.b",
    Status.UNKNOWN_NORMALISATION: "options.normalisation",
    Status.STATISTICS_OUT_OF_RANGE: "statistics",
    Status.TOO_MANY_CANDIDATES: "texts",
    Status.TEXT_TOO_LONG: "text",
    Status.QUERY_TOO_LONG: "query",
}


class Normalisation(enum.Enum):
    """How both columns of scores come to one scale before they are mixed.

    Source: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2023).
    """

    MIN_MAX = 0
    """From the least to the greatest score of the candidates; a constant column becomes 0."""
    THEORETICAL = 1
    """From the least score that the function can give (cosine -1, BM25 0) to the greatest one of
    the candidates ("TM2C2")."""


@dataclass(frozen=True, slots=True)
class CorpusStatistics:
    """What BM25 knows of the collection behind the candidates.

    Args:
        document_count: documents (here: chunks) in the collection, at least 1.
        average_length: mean count of terms in one, stop words not counted; 1e-9 to 1e12.
        document_frequencies: stem, as `RerankLibrary.analyze` returns it, to how many documents
            hold it; a stem that is missing counts as 0, none is above `document_count`.
    """

    document_count: int
    average_length: float
    document_frequencies: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """How to mix meaning and words: ``alpha * dense + (1 - alpha) * lexical``.

    Args:
        alpha: weight of the dense similarity, 0 to 1.
        k1: BM25's saturation by term frequency, 0 to 1000.
        b: BM25's share of length normalisation, 0 to 1.
        normalisation: what brings both columns to one scale.
    """

    alpha: float = 0.5
    k1: float = 1.2
    b: float = 0.75
    normalisation: Normalisation = Normalisation.MIN_MAX


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of n candidates, in their order; every array has the shape (n,).

    Args:
        fused: the mix, within [0, 1].
        dense: similarities, normalised to [0, 1].
        lexical_raw: BM25 as computed, from 0.
        lexical: BM25, normalised to [0, 1].
    """

    fused: NDArray[np.float32]
    dense: NDArray[np.float32]
    lexical_raw: NDArray[np.float32]
    lexical: NDArray[np.float32]


_DEFAULT_OPTIONS: Final = FusionOptions()


class RerankLibrary:
    """The loaded library. Make one with `load`; it holds no state of its own."""

    __slots__ = ("_library",)

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @classmethod
    def load(cls, path: Path | None = None) -> RerankLibrary:
        """Load the shared library and check that it speaks this binding's ABI.

        Args:
            path: the library; by default where the build puts it, beside this package.

        Raises:
            FailedPrecondition: it is missing, not loadable, or of another ABI version.
        """
        path = DEFAULT_PATH if path is None else path
        cure = f"Build it from the repository root with `{BUILD_COMMAND}`."
        if not path.is_file():
            raise FailedPrecondition(f"There is no native reranker at {path}. {cure}")
        try:
            library = ctypes.CDLL(str(path))
            library.sluice_rerank_abi_version.restype = ctypes.c_uint32
            version = library.sluice_rerank_abi_version()
        except (OSError, AttributeError) as error:
            raise FailedPrecondition(
                f"{path} is not a loadable native reranker ({error}). {cure}"
            ) from error
        if version != layout.ABI_VERSION:
            raise FailedPrecondition(
                f"{path} has ABI version {version}, this binding needs {layout.ABI_VERSION}. {cure}"
            )
        layout.declare(library)
        return cls(library)

    def analyze(self, text: str) -> list[str]:
        """Return the unique stems of a text, in order of first appearance, without stop words.

        Raises:
            InvalidArgument: the text is over 2 GiB in UTF-8.
        """
        encoded = _encode(text)
        # Most texts repeat words, so their terms fit; a rare one is asked for again by its count.
        byte_capacity, term_capacity = len(encoded) + 64, len(encoded) // 2 + 1
        while True:
            term_bytes = np.empty(byte_capacity, np.uint8)
            offsets = np.empty(term_capacity + 1, np.uint32)
            terms = layout.PackedTerms(
                bytes=term_bytes.ctypes.data,
                byte_capacity=byte_capacity,
                offsets=offsets.ctypes.data,
                offset_capacity=term_capacity + 1,
            )
            status = self._library.sluice_rerank_analyze(_text(encoded), terms)
            if status != Status.BUFFER_TOO_SMALL:
                break
            byte_capacity, term_capacity = terms.byte_count, terms.term_count
        self._check(status)
        packed = term_bytes[: terms.byte_count].tobytes()
        ends = offsets[: terms.term_count + 1].tolist()
        return [packed[start:end].decode() for start, end in pairwise(ends)]

    def score(
        self,
        query: str,
        texts: Sequence[str | bytes],
        similarities: NDArray[np.float32],
        options: FusionOptions = _DEFAULT_OPTIONS,
        statistics: CorpusStatistics | None = None,
    ) -> Scores:
        """Score candidates by meaning and by words.

        Args:
            query: the query's text, at most 1 MiB in UTF-8.
            texts: n candidates, at most 1,048,576 and 2 GiB together; bytes are taken as UTF-8,
                and whatever is malformed in them separates words.
            similarities: shape (n,), finite, higher is nearer; cosine for THEORETICAL.
            options: how to mix.
            statistics: of the collection; without, they are counted over the candidates.

        Raises:
            InvalidArgument: a value is outside what this docstring and the classes above allow.
        """
        count = len(texts)
        dense = _as_similarities(similarities, count)
        blocks = [text if isinstance(text, bytes) else _encode(text) for text in texts]
        offsets = np.zeros(count + 1, np.uint64)
        np.cumsum([len(block) for block in blocks], out=offsets[1:])
        if offsets[-1] > layout.MAX_TEXT_BYTES:
            raise InvalidArgument("more than 2 GiB of text; score in parts", field="texts")
        offsets_u32 = offsets.astype(np.uint32)

        packed = b"".join(blocks)
        columns = np.empty((4, count), np.float32)
        fused, by_meaning, lexical_raw, lexical = columns
        status = self._library.sluice_rerank_score(
            _text(_encode(query)),
            layout.Candidates(
                bytes=packed,
                byte_count=len(packed),
                offsets=offsets_u32.ctypes.data,
                offset_count=count + 1,
                similarities=dense.ctypes.data,
                similarity_count=count,
            ),
            layout.Options(
                alpha=options.alpha,
                k1=options.k1,
                b=options.b,
                normalisation=options.normalisation.value,
            ),
            None if statistics is None else self._statistics(query, statistics),
            layout.Columns(
                fused=fused.ctypes.data,
                dense=by_meaning.ctypes.data,
                lexical_raw=lexical_raw.ctypes.data,
                lexical=lexical.ctypes.data,
                capacity=count,
            ),
        )
        self._check(status)
        return Scores(fused=fused, dense=by_meaning, lexical_raw=lexical_raw, lexical=lexical)

    def highlight(self, query: str, text: str) -> list[tuple[int, int]]:
        """Return the character spans of words in ``text`` that share a stem with the query.

        Ascending, without overlap, ``text[start:end]`` is the word. A lone surrogate counts as one
        separating character.

        Raises:
            InvalidArgument: the query is over 1 MiB, or the text over 2 GiB, in UTF-8.
        """
        encoded = _encode(text)
        capacity = FIRST_SPAN_CAPACITY
        while True:
            buffer = np.empty((capacity, 2), np.uint32)
            spans = layout.Spans(spans=buffer.ctypes.data, capacity=capacity)
            status = self._library.sluice_rerank_highlight(
                _text(_encode(query)), _text(encoded), spans
            )
            if status != Status.BUFFER_TOO_SMALL:
                break
            capacity = spans.count
        self._check(status)
        return _character_spans(encoded, buffer[: spans.count].tolist())

    def _statistics(self, query: str, statistics: CorpusStatistics) -> layout.Statistics:
        """Align the document frequencies with the query's terms.

        Raises:
            InvalidArgument: a count is negative or does not fit into 64 bits.
        """
        known = statistics.document_frequencies
        frequencies = [known.get(term, 0) for term in self.analyze(query)]
        limit = (1 << 64) - 1
        if not all(0 <= count <= limit for count in (statistics.document_count, *frequencies)):
            raise InvalidArgument("counts must be from 0 to 2**64 - 1", field="statistics")
        array = (ctypes.c_uint64 * len(frequencies))(*frequencies)
        aligned = layout.Statistics(
            document_count=statistics.document_count,
            average_length=statistics.average_length,
            document_frequencies=ctypes.addressof(array),
            term_count=len(frequencies),
        )
        # The struct knows only the address; this keeps the array alive as long as the struct.
        aligned.owner = array
        return aligned

    def _check(self, status: int) -> None:
        if status == Status.OK:
            return
        message = self._library.sluice_rerank_status_message(status).decode()
        if status == Status.OUT_OF_MEMORY:
            raise Overloaded(message, retry_after_ms=OUT_OF_MEMORY_RETRY_MS)
        raise InvalidArgument(message, field=_FIELDS.get(Status(status), ""))


def _encode(text: str) -> bytes:
    """UTF-8; a lone surrogate becomes "?", one character that separates words, as it itself is."""
    return text.encode("utf-8", "replace")


def _text(encoded: bytes) -> layout.Text:
    return layout.Text(bytes=encoded, byte_count=len(encoded))


def _as_similarities(similarities: NDArray[Any], count: int) -> NDArray[np.float32]:
    # What float32 cannot hold becomes infinite, which the library then refuses.
    with np.errstate(over="ignore"):
        dense = np.ascontiguousarray(similarities, np.float32)
    if dense.shape != (count,):
        raise InvalidArgument(
            f"must have the shape ({count},), one for each text, not {dense.shape}",
            field="similarities",
        )
    return dense


def _character_spans(encoded: bytes, spans: list[list[int]]) -> list[tuple[int, int]]:
    """Turn ascending byte spans of well-formed UTF-8 into character spans, in one pass."""
    found: list[tuple[int, int]] = []
    byte_position = character_position = 0
    for start, end in spans:
        first = character_position + len(encoded[byte_position:start].decode())
        last = first + len(encoded[start:end].decode())
        found.append((first, last))
        byte_position, character_position = end, last
    return found
