"""A store of chunks' words, so that candidates are scored by their ids alone, without their texts.

What it keeps lies in the native library, within a bound; here is only the way there. It must never
hold a text, nor answer for a chunk that it does not keep: `TermStore.score` says which those are.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from common.errors import FailedPrecondition, InvalidArgument
from rerank_zig import layout
from rerank_zig.layout import Status
from rerank_zig.options import DEFAULT_OPTIONS, FusionOptions, Scores
from rerank_zig.packing import (
    HELD_CANDIDATES,
    LastOne,
    address_of,
    as_columns,
    as_options,
    as_similarities,
    as_statistics,
    as_text,
    check,
    encode,
    pack,
    scores_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from rerank_zig.words import WordStatistics

_MAX_BYTES: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """What a store holds and how it does.

    Args:
        bytes: taken of its bound, its own bookkeeping included.
        chunks: how many it keeps now.
        hits: ids that were looked up, by `missing` or `score`, and kept.
        misses: likewise, and not kept.
        evictions: chunks that made room for others.
    """

    bytes: int
    chunks: int
    hits: int
    misses: int
    evictions: int


class TermStore:
    """Chunks by their ids, as their words' hashes; the same id means the same text for ever.

    Any number of threads may use one, and close it: calls under way end as if it were open, later
    ones raise FailedPrecondition. A store that nobody refers to closes itself. Every method raises
    InvalidArgument where an id is empty or holds a newline, or there are more than 1,048,576.
    """

    __slots__ = (
        "__weakref__",
        "_as_options",
        "_as_statistics",
        "_close",
        "_handle",
        "_held",
        "_library",
    )

    def __init__(self, library: ctypes.CDLL, held: ctypes.PyDLL, max_bytes: int) -> None:
        """Open a store; `RerankLibrary.open_store` does.

        Args:
            library: the loaded library.
            held: the same, for calls that are too short to give up the GIL.
            max_bytes: all that it may take, its own bookkeeping included; reserved at once, taken
                as chunks come. More than 128 GiB is as good as 128 GiB.

        Raises:
            InvalidArgument: the bound is negative or beyond 64 bits.
            FailedPrecondition: 64 stores are open.
            Overloaded: the system does not give so much memory.
        """
        if not 0 <= max_bytes <= _MAX_BYTES:
            raise InvalidArgument("must be from 0 to 2**64 - 1", field="max_bytes")
        handle = ctypes.c_uint64()
        self._library, self._held = library, held
        self._as_options, self._as_statistics = LastOne(as_options), LastOne(as_statistics)
        self._check(library.sluice_store_open(max_bytes, handle))
        self._handle: int = handle.value
        self._close = weakref.finalize(self, library.sluice_store_close, self._handle)

    def missing(self, ids: Sequence[str]) -> list[int]:
        """Return the indices of those ids whose chunks are not kept, ascending."""
        is_missing = np.empty(len(ids), np.bool_)
        self._check(
            self._library.sluice_store_missing(self._handle, _as_ids(ids), address_of(is_missing))
        )
        return np.flatnonzero(is_missing).tolist()

    def put(self, ids: Sequence[str], titles: Sequence[bytes], texts: Sequence[bytes]) -> None:
        """Read and keep chunks.

        Those that are kept are passed over, one that takes more than the whole bound is not kept,
        and those that were not looked up lately make room.

        Args:
            ids: n ids.
            titles: n titles in UTF-8, empty where a chunk has none.
            texts: n texts in UTF-8, 2 GiB together, as the titles.

        Raises:
            InvalidArgument: the limits above, or not as many of each.
            Overloaded: memory ran out; some of the chunks may be kept.
        """
        if len(texts) != len(ids):
            raise InvalidArgument(f"must be as many as ids, {len(ids)}", field="texts")
        self._check(
            self._library.sluice_store_put(
                self._handle, _as_ids(ids), pack(titles, "titles"), pack(texts, "texts")
            )
        )

    def score(
        self,
        query: str,
        ids: Sequence[str],
        similarities: NDArray[np.float32],
        options: FusionOptions = DEFAULT_OPTIONS,
        statistics: WordStatistics | None = None,
    ) -> tuple[Scores, NDArray[np.bool_]]:
        """Score kept chunks as `RerankLibrary.score` does their titles and texts.

        Args:
            query: the query's text, at most 1 MiB in UTF-8 and 1,024 different terms.
            ids: n candidates.
            similarities: shape (n,), finite, higher is nearer; cosine for THEORETICAL.
            options: how to mix.
            statistics: of the collection; without, they are counted over the candidates.

        Returns:
            the scores, and of shape (n,), which chunks are not kept: they score as if empty.

        Raises:
            InvalidArgument: a value is outside what this docstring and the classes above allow.
        """
        count = len(ids)
        dense = as_similarities(similarities, count)
        columns = np.empty((6, count), np.float32)
        is_missing = np.empty(count, np.bool_)
        written = as_columns(columns)
        library = self._held if count <= HELD_CANDIDATES else self._library
        self._check(
            library.sluice_store_score(
                self._handle,
                as_text(encode(query)),
                _as_ids(ids),
                address_of(dense),
                self._as_options(options),
                None if statistics is None else self._as_statistics(statistics),
                written,
                address_of(is_missing),
            )
        )
        return scores_of(columns, written), is_missing

    def usage(self) -> StoreUsage:
        """Return what it holds now, and what was looked up since it was opened."""
        usage = layout.Usage()
        self._check(self._library.sluice_store_usage(self._handle, usage))
        return StoreUsage(
            bytes=usage.bytes,
            chunks=usage.chunks,
            hits=usage.hits,
            misses=usage.misses,
            evictions=usage.evictions,
        )

    def close(self) -> None:
        """Free it once the calls under way have ended; more than once does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, status: int) -> None:
        if status == Status.OK:
            return
        if status == Status.UNKNOWN_STORE:
            raise FailedPrecondition("The store of terms is closed. Open another one.")
        if status == Status.TOO_MANY_STORES:
            raise FailedPrecondition("Too many stores of terms are open. Close one.")
        check(self._library, status)


def _as_ids(ids: Sequence[str]) -> layout.Ids:
    """One block, which the library takes apart and checks: an id with a newline makes one more."""
    # Every str has bytes of its own then, lone surrogates too.
    block = "\n".join(ids).encode("utf-8", "surrogatepass")
    return layout.Ids(block, len(block), len(ids))
