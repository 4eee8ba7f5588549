"""The seam to the scorer: candidates' ids and similarities in, scores out.

What is known of a chunk's words is kept natively under its id, so that a query whose candidates
are all kept touches no text: that takes tens of microseconds and is done in place. Reading new
texts takes milliseconds, which is long for an event loop, and has threads of its own. A text or two
does not: handing them over would take longer, for a thread waits twice for the interpreter.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import compress
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import numpy as np

from common.errors import InvalidArgument
from query.chunks import ChunkText
from query.duplicates import RESEMBLANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rerank_zig import FusionOptions, RerankLibrary, Scores, WordStatistics

# Of texts read in place, which takes a millisecond at most.
IN_PLACE_BYTES: Final = 32 * 1024

_NO_TEXT: Final = ChunkText(b"", b"")
_T = TypeVar("_T")


class RerankMode(StrEnum):
    """What orders the candidates."""

    DENSE = "dense"
    FUSED = "fused"
    LEXICAL = "lexical"
    CROSS_ENCODER = "cross_encoder"


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """What is to be scored, and by what.

    Attributes:
        query: its words.
        ids: n chunk ids.
        similarities: shape (n,).
        options: how meaning and words are mixed.
        statistics: of the index version; None counts over the candidates.
    """

    query: str
    ids: Sequence[str]
    similarities: NDArray[np.float32]
    options: FusionOptions
    statistics: WordStatistics | None


class Reranker(Protocol):
    """Scores candidates by meaning and by words."""

    async def score(
        self, scoring: Scoring, chunks: Mapping[str, ChunkText] | None = None
    ) -> tuple[Scores, list[str]]:
        """Scores by the words kept, after keeping those of ``chunks``.

        The ids returned are not kept: they say no words in these scores.
        """
        ...

    async def score_texts(self, scoring: Scoring, chunks: Mapping[str, ChunkText]) -> Scores:
        """Scores by texts alone, kept or not; a chunk that is not among them says no words."""
        ...

    async def highlight(self, query: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Of each text the character spans of words that share a stem with the query."""
        ...

    async def group_duplicates(self, texts: Sequence[bytes]) -> NDArray[np.int32]:
        """Of each text the index of the first one that it nearly repeats, itself if none."""
        ...

    def terms(self, query: str) -> list[str]:
        """The query's words after stop words and stemming."""
        ...


class ZigReranker:
    """The native library, in place for what is short, else on a bounded pool of threads.

    Args:
        library: scores.
        threads: how many read texts at once.
        store_bytes: bound of what is kept of chunks' words, the least recently used going first.
    """

    def __init__(self, library: RerankLibrary, *, threads: int, store_bytes: int) -> None:
        self._library = library
        self._store = library.open_store(store_bytes)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="rerank")

    async def score(
        self, scoring: Scoring, chunks: Mapping[str, ChunkText] | None = None
    ) -> tuple[Scores, list[str]]:
        """Keep and score in one turn."""
        known = chunks or {}
        size = sum(len(chunk.title) + len(chunk.text) for chunk in known.values())
        return await self._in_turn(size, lambda: self._score(scoring, known))

    async def score_texts(self, scoring: Scoring, chunks: Mapping[str, ChunkText]) -> Scores:
        """Score what does not fit, or does not stay, in the store."""
        return await self._on_a_thread(lambda: self._score_texts(scoring, chunks))

    async def highlight(self, query: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Mark all texts in one turn."""
        size = sum(map(len, texts))
        return await self._in_turn(size, lambda: self._library.highlight(query, texts))

    async def group_duplicates(self, texts: Sequence[bytes]) -> NDArray[np.int32]:
        """Compare all texts in one turn."""
        size = sum(map(len, texts))
        return await self._in_turn(size, lambda: self._library.group_duplicates(texts, RESEMBLANCE))

    def terms(self, query: str) -> list[str]:
        """Analyse in place: a query is short."""
        with _of_text():
            return self._library.analyze(query)

    async def aclose(self) -> None:
        """Wait for running calls and let go of what is kept."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        self._store.close()

    def _score(self, scoring: Scoring, chunks: Mapping[str, ChunkText]) -> tuple[Scores, list[str]]:
        if chunks:
            titles, texts = zip(*chunks.values(), strict=True)
            self._store.put(list(chunks), titles, texts)
        scores, missing = self._store.score(
            scoring.query,
            scoring.ids,
            scoring.similarities,
            scoring.options,
            scoring.statistics,
        )
        return scores, list(compress(scoring.ids, missing))

    def _score_texts(self, scoring: Scoring, chunks: Mapping[str, ChunkText]) -> Scores:
        found = [chunks.get(chunk_id, _NO_TEXT) for chunk_id in scoring.ids]
        return self._library.score(
            scoring.query,
            [chunk.text for chunk in found],
            scoring.similarities,
            scoring.options,
            scoring.statistics,
            titles=[chunk.title for chunk in found],
        )

    async def _in_turn(self, size: int, call: Callable[[], _T]) -> _T:
        """Do in place what reads little text, else on a thread."""
        if size > IN_PLACE_BYTES:
            return await self._on_a_thread(call)
        with _of_text():
            return call()

    async def _on_a_thread(self, call: Callable[[], _T]) -> _T:
        with _of_text():
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)


@contextmanager
def _of_text() -> Iterator[None]:
    """Tell what is wrong with a question's words by the name that they have there."""
    try:
        yield
    except InvalidArgument as error:
        if error.field != "query":
            raise
        raise InvalidArgument(error.message.removeprefix("query: "), field="text") from error


def best_first(scores: NDArray[np.float32]) -> list[int]:
    """Indices by descending score; equals keep their order, which is that of the vectors."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
