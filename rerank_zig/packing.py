"""What crosses the C ABI: texts, numbers and scores as the library wants them, and its refusals.

It must never compute a score itself, and never let a value that the library refuses pass as a
result: every refusal is an error that names the parameter.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import numpy as np

from common.errors import InvalidArgument, Overloaded
from rerank_zig import layout
from rerank_zig.layout import Status
from rerank_zig.options import FusionOptions, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rerank_zig.words import WordStatistics

GivenT = TypeVar("GivenT")
MadeT = TypeVar("MadeT")

OUT_OF_MEMORY_RETRY_MS: Final = 1000
# What takes 0.2 ms or less keeps the GIL: to get it back from a busy thread takes up to 5 ms.
HELD_BYTES: Final = 32 * 1024
HELD_CANDIDATES: Final = 512

_FIELDS: Final = {
    Status.SIMILARITY_NOT_FINITE: "similarities",
    Status.ALPHA_OUT_OF_RANGE: "options.alpha",
    Status.K1_OUT_OF_RANGE: "options.k1",
    Status.B_OUT_OF_RANGE: "options.b",
    Status.TITLE_OUT_OF_RANGE: "options.title",
    Status.PROXIMITY_OUT_OF_RANGE: "options.proximity",
    Status.UNKNOWN_NORMALISATION: "options.normalisation",
    Status.STATISTICS_OUT_OF_RANGE: "statistics",
    Status.TITLES_LENGTH_MISMATCH: "titles",
    Status.TOO_MANY_CANDIDATES: "texts",
    Status.TEXT_TOO_LONG: "text",
    Status.QUERY_TOO_LONG: "query",
    Status.RESEMBLANCE_OUT_OF_RANGE: "resemblance",
    Status.TOO_MANY_TEXTS_TO_GROUP: "texts",
    Status.IDS_MALFORMED: "ids",
}


def holding_interpreter(library: ctypes.CDLL) -> ctypes.PyDLL:
    """The same library, but calls keep the GIL."""
    held = ctypes.PyDLL(library._name)  # noqa: SLF001 — what ctypes calls the path
    layout.declare(held)
    return held


def check(library: ctypes.CDLL, status: int) -> None:
    """Turn what the library refused into an error.

    Raises:
        InvalidArgument: with the parameter's name.
        Overloaded: memory ran out.
    """
    if status == Status.OK:
        return
    message = library.sluice_rerank_status_message(status).decode()
    if status == Status.OUT_OF_MEMORY:
        raise Overloaded(message, retry_after_ms=OUT_OF_MEMORY_RETRY_MS)
    raise InvalidArgument(message, field=_FIELDS.get(Status(status), ""))


def encode(text: str) -> bytes:
    """UTF-8; a lone surrogate becomes "?", one character that separates words, as it itself is."""
    return text.encode("utf-8", "replace")


def as_text(encoded: bytes) -> layout.Text:
    """One text for the library."""
    return layout.Text(bytes=encoded, byte_count=len(encoded))


def pack(texts: Sequence[str | bytes], field: str) -> layout.Texts:
    """Many texts as one block. A copy of this struct does not keep the offsets alive.

    Raises:
        InvalidArgument: they are over 2 GiB together; it names `field`.
    """
    try:
        blocks = cast("Sequence[bytes]", texts)
        packed = b"".join(blocks)
    except TypeError:  # some are str
        blocks = [text if isinstance(text, bytes) else encode(text) for text in texts]
        packed = b"".join(blocks)
    if len(packed) > layout.MAX_TEXT_BYTES:
        raise InvalidArgument("more than 2 GiB of text; pass it in parts", field=field)
    offsets = np.zeros(len(blocks) + 1, np.uint32)
    np.cumsum(np.fromiter(map(len, blocks), np.uint32, len(blocks)), out=offsets[1:])
    block = layout.Texts(
        bytes=packed,
        byte_count=len(packed),
        offsets=address_of(offsets),
        offset_count=len(offsets),
    )
    # The struct knows only the address; this keeps the array alive as long as the struct.
    block.owner = offsets
    return block


def as_similarities(similarities: NDArray[Any], count: int) -> NDArray[np.float32]:
    """Similarities as the library reads them.

    Raises:
        InvalidArgument: the shape is not (count,).
    """
    if similarities.dtype == np.float32:
        dense = np.ascontiguousarray(similarities)
    else:
        # What float32 cannot hold becomes infinite, which the library then refuses.
        with np.errstate(over="ignore"):
            dense = np.ascontiguousarray(similarities, np.float32)
    if dense.shape != (count,):
        raise InvalidArgument(
            f"must have the shape ({count},), one for each text, not {dense.shape}",
            field="similarities",
        )
    return dense


def as_options(options: FusionOptions) -> layout.Options:
    """Options for the library."""
    return layout.Options(
        alpha=0.0 if options.alpha is None else options.alpha,
        k1=options.k1,
        b=options.b,
        title=options.title,
        proximity=options.proximity,
        normalisation=options.normalisation.value,
        adaptive=options.alpha is None,
    )


def as_statistics(statistics: WordStatistics) -> layout.Statistics:
    """Statistics for the library; they must live as long as these are used.

    Raises:
        InvalidArgument: an array has another type or shape, or a count does not fit 64 bits.
    """
    hashes, frequencies = statistics.hashes, statistics.frequencies
    for array in (hashes, frequencies):
        if array.dtype != np.uint32 or array.ndim != 1 or not array.flags.c_contiguous:
            raise InvalidArgument("arrays must be contiguous and of uint32", field="statistics")
    if len(hashes) != len(frequencies):
        raise InvalidArgument("there must be a frequency for each hash", field="statistics")
    counts = statistics.chunks, statistics.text_words, statistics.title_words
    if not all(0 <= count < 1 << 64 for count in counts):
        raise InvalidArgument("counts must be from 0 to 2**64 - 1", field="statistics")
    return layout.Statistics(
        document_count=statistics.chunks,
        text_words=statistics.text_words,
        title_words=statistics.title_words,
        hashes=address_of(hashes),
        frequencies=address_of(frequencies),
        count=len(hashes),
    )


class LastOne(Generic[GivenT, MadeT]):
    """What the last object was turned into, since the same one comes with call after call.

    Threads may race for it; each has the right answer all the same. It keeps that object alive.

    Args:
        make: turns one into what the library takes; raises where it cannot.
    """

    __slots__ = ("_last", "_make")

    def __init__(self, make: Callable[[GivenT], MadeT]) -> None:
        self._make = make
        self._last: tuple[GivenT, MadeT] | None = None

    def __call__(self, given: GivenT) -> MadeT:
        """What is made of it."""
        last = self._last
        if last is not None and last[0] is given:
            return last[1]
        made = self._make(given)
        self._last = given, made
        return made


def address_of(array: NDArray[Any]) -> int:
    """Where a contiguous array lies; `array.ctypes.data`, at a fraction of its price.

    The array must live as long as the address is used.
    """
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError):
        # Empty, or not to be written to.
        return array.ctypes.data


def as_columns(columns: NDArray[np.float32]) -> layout.Columns:
    """Where the library writes scores: shape (6, n), as `scores_of` reads them."""
    first, row = address_of(columns), columns.strides[0]
    return layout.Columns(
        first,  # fused
        first + row,  # dense
        first + 2 * row,  # lexical_raw
        first + 3 * row,  # lexical
        first + 4 * row,  # title
        first + 5 * row,  # proximity
        columns.shape[1],
    )


def scores_of(columns: NDArray[np.float32], written: layout.Columns) -> Scores:
    """The scores that the library wrote."""
    fused, dense, lexical_raw, lexical, title, proximity = columns
    return Scores(
        fused=fused,
        dense=dense,
        lexical_raw=lexical_raw,
        lexical=lexical,
        title=title,
        proximity=proximity,
        alpha=written.alpha,
        chunks=written.chunk_count,
    )
