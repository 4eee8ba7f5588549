"""The Python door of the native reranker: packs, calls once, unpacks.

Calls go through ctypes, which releases the GIL while the library works, but for small ones, which
end sooner than a busy interpreter would give it back. One instance serves any number of threads.
It must never compute a score itself, and never let a value that the library refuses pass as a
result: every refusal is an InvalidArgument that names the parameter.
"""

from __future__ import annotations

import ctypes
from itertools import pairwise
from pathlib import Path
from struct import iter_unpack
from typing import TYPE_CHECKING, Final

import numpy as np

from common.errors import FailedPrecondition
from rerank_zig import layout
from rerank_zig.layout import Status
from rerank_zig.options import DEFAULT_OPTIONS, FusionOptions, Scores
from rerank_zig.packing import (
    HELD_BYTES,
    LastOne,
    address_of,
    as_columns,
    as_options,
    as_similarities,
    as_statistics,
    as_text,
    check,
    encode,
    holding_interpreter,
    pack,
    scores_of,
)
from rerank_zig.store import TermStore
from rerank_zig.words import WordCounts, WordStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DEFAULT_PATH: Final = Path(__file__).parent / "zig-out" / "lib" / "libsluice_rerank.so"
BUILD_COMMAND: Final = (
    "python -m ziglang build --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out"
)
FIRST_SPAN_CAPACITY: Final = 256


class RerankLibrary:
    """The loaded library. Make one with `load`.

    It keeps nothing of a call but the last options and statistics, as the library takes them.
    """

    __slots__ = ("_as_options", "_as_statistics", "_held", "_library")

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._held = holding_interpreter(library)
        self._as_options, self._as_statistics = LastOne(as_options), LastOne(as_statistics)

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
        try:
            layout.declare(library)
        except AttributeError as error:
            raise FailedPrecondition(f"{path} is not complete ({error}). {cure}") from error
        return cls(library)

    def analyze(self, text: str) -> list[str]:
        """Return the unique terms of a text, in order of first appearance.

        Stems, words that have none, parts and compounds of identifiers; no stop words.

        Raises:
            InvalidArgument: the text is over 2 GiB in UTF-8.
        """
        encoded = encode(text)
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
            status = self._library.sluice_rerank_analyze(as_text(encoded), terms)
            if status != Status.BUFFER_TOO_SMALL:
                break
            byte_capacity, term_capacity = terms.byte_count, terms.term_count
        check(self._library, status)
        packed = term_bytes[: terms.byte_count].tobytes()
        ends = offsets[: terms.term_count + 1].tolist()
        return [packed[start:end].decode() for start, end in pairwise(ends)]

    def score(
        self,
        query: str,
        texts: Sequence[str | bytes],
        similarities: NDArray[np.float32],
        options: FusionOptions = DEFAULT_OPTIONS,
        statistics: WordStatistics | None = None,
        titles: Sequence[str | bytes] | None = None,
    ) -> Scores:
        """Score candidates by meaning and by words.

        Args:
            query: the query's text, at most 1 MiB in UTF-8 and 1,024 different terms.
            texts: n candidates, at most 1,048,576 and 2 GiB together; bytes are taken as UTF-8,
                and whatever is malformed in them separates words.
            similarities: shape (n,), finite, higher is nearer; cosine for THEORETICAL.
            options: how to mix.
            statistics: of the collection; without, they are counted over the candidates.
            titles: of the n candidates, as texts; without, none has one.

        Raises:
            InvalidArgument: a value is outside what this docstring and the classes above allow.
        """
        count = len(texts)
        dense = as_similarities(similarities, count)
        packed_texts = pack(texts, "texts")
        packed_titles = layout.Texts() if titles is None else pack(titles, "titles")
        columns = np.empty((6, count), np.float32)
        written = as_columns(columns)
        candidates = layout.Candidates(
            texts=packed_texts,
            titles=packed_titles,
            similarities=address_of(dense),
            similarity_count=count,
        )
        status = self._library.sluice_rerank_score(
            as_text(encode(query)),
            candidates,
            self._as_options(options),
            None if statistics is None else self._as_statistics(statistics),
            written,
        )
        check(self._library, status)
        return scores_of(columns, written)

    def count_words(self, titles: Sequence[bytes], texts: Sequence[bytes]) -> WordCounts:
        """Count the words of chunks, a title and a text each.

        Args:
            titles: n titles in UTF-8, empty where a chunk has none.
            texts: n texts, at most 1,048,576 and 2 GiB together, as the titles.

        Raises:
            InvalidArgument: the limits above, or the titles are not as many as the texts.
        """
        count = len(texts)
        packed_titles = pack(titles, "titles")
        packed_texts = pack(texts, "texts")
        offsets = np.empty(count + 1, np.uint32)
        text_words, title_words = np.empty((2, count), np.uint32)
        # Prose has a different term in about nine bytes, so one call nearly always does.
        capacity = (packed_texts.byte_count + packed_titles.byte_count) // 4 + 64
        while True:
            hashes = np.empty(capacity, np.uint32)
            counts = layout.PackedWordCounts(
                hashes=hashes.ctypes.data,
                hash_capacity=capacity,
                offsets=offsets.ctypes.data,
                text_words=text_words.ctypes.data,
                title_words=title_words.ctypes.data,
                text_capacity=count,
            )
            status = self._library.sluice_rerank_count_words(packed_titles, packed_texts, counts)
            if status != Status.BUFFER_TOO_SMALL:
                break
            capacity = counts.hash_count
        check(self._library, status)
        return WordCounts(
            hashes=hashes[: counts.hash_count].copy(),
            offsets=offsets,
            text_words=text_words,
            title_words=title_words,
        )

    def open_store(self, max_bytes: int) -> TermStore:
        """Open a store of chunks' words, of at most `max_bytes`; see `TermStore`.

        Raises:
            InvalidArgument: the bound is negative or beyond 64 bits.
            FailedPrecondition: 64 stores are open.
            Overloaded: the system does not give so much memory.
        """
        return TermStore(self._library, self._held, max_bytes)

    def highlight(self, query: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return of each text the character spans of words that share a term with the query.

        Ascending, without overlap; ``text[start:end]`` is a whole word, or a run of joined words
        where the whole identifier is the query's. A lone surrogate counts as one
        separating character.

        Args:
            query: at most 1 MiB in UTF-8 and 1,024 different terms.
            texts: n texts, at most 1,048,576 and 2 GiB together.

        Raises:
            InvalidArgument: a value is outside what this docstring allows.
        """
        count = len(texts)
        packed = pack(texts, "texts")
        library = self._held if packed.byte_count <= HELD_BYTES else self._library
        encoded = as_text(encode(query))
        capacity = FIRST_SPAN_CAPACITY
        while True:
            # The spans, two numbers each, and behind them where those of each text begin and end.
            buffer = np.empty(2 * capacity + count + 1, np.uint32)
            first = address_of(buffer)
            spans = layout.Spans(first, capacity, first + 8 * capacity, count)
            status = library.sluice_rerank_highlight(encoded, packed, spans)
            if status != Status.BUFFER_TOO_SMALL:
                break
            capacity = spans.count
        check(self._library, status)
        found = list(iter_unpack("=II", buffer[: 2 * spans.count].data))
        ends = buffer[2 * capacity :].tolist()
        return [found[start:end] for start, end in pairwise(ends)]

    def group_duplicates(self, texts: Sequence[bytes], resemblance: float) -> NDArray[np.int32]:
        """Return for each text the index of the first text that it nearly repeats, else its own.

        A text that repeats none leads, and later ones are held against leaders only. What nearly
        repeating is, include/sluice_rerank.h says: words that hold a digit must be the same.

        Args:
            texts: n texts in UTF-8, at most 4,096 and 64 MiB together.
            resemblance: of their sets of three words in a row, above 0, at most 1.

        Returns:
            shape (n,); ``leaders[leaders[i]] == leaders[i] <= i``.

        Raises:
            InvalidArgument: a value is outside what this docstring allows.
        """
        leaders = np.empty(len(texts), np.int32)
        packed = pack(texts, "texts")
        library = self._held if packed.byte_count <= HELD_BYTES else self._library
        status = library.sluice_rerank_group_duplicates(
            packed, resemblance, address_of(leaders), len(leaders)
        )
        check(self._library, status)
        return leaders
