"""The seam to the scorer: candidates' texts and similarities in, scores out.

Scoring and marking words run on threads of their own, for 200 candidates of 1 KB take
milliseconds, which is long for an event loop; a handful of terms does not and runs in place.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rerank_zig import FusionOptions, RerankLibrary, Scores


class RerankMode(StrEnum):
    """What orders the candidates."""

    DENSE = "dense"
    FUSED = "fused"
    LEXICAL = "lexical"


class Reranker(Protocol):
    """Scores candidates by meaning and by words."""

    async def score(
        self,
        query: str,
        texts: Sequence[bytes],
        similarities: NDArray[np.float32],
        options: FusionOptions,
    ) -> Scores:
        """Scores of n candidates, texts in UTF-8, similarities of shape (n,)."""
        ...

    async def highlight(self, query: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Of each text the character spans of words that share a stem with the query."""
        ...

    def terms(self, query: str) -> list[str]:
        """The query's words after stop words and stemming."""
        ...


class ZigReranker:
    """The native library, one call a query, on a bounded pool of threads."""

    def __init__(self, library: RerankLibrary, *, threads: int) -> None:
        self._library = library
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="rerank")

    async def score(
        self,
        query: str,
        texts: Sequence[bytes],
        similarities: NDArray[np.float32],
        options: FusionOptions,
    ) -> Scores:
        """Score on a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._library.score, query, texts, similarities, options
        )

    async def highlight(self, query: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Mark all texts in one turn of a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: [self._library.highlight(query, text) for text in texts]
        )

    def terms(self, query: str) -> list[str]:
        """Analyse in place: a query is short."""
        return self._library.analyze(query)

    async def aclose(self) -> None:
        """Wait for running calls."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)


def best_first(scores: NDArray[np.float32]) -> list[int]:
    """Indices by descending score; equals keep their order, which is that of the vectors."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
