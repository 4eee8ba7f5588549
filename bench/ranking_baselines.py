"""Rankings that Sluice's own is held against: dense, BM25 over the whole corpus, and their mix.

Whole documents, title and text, cut where the model stops reading; nothing is cut into chunks, and
no server runs. A ranking is document ids, best first. Nothing here knows relevance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import bm25s
import numpy as np
import snowballstemmer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from client.evaluating.judged_set import JudgedSet
    from common.embedding import Embedder

    Rankings: TypeAlias = "list[list[str]]"

K1, B = 1.2, 0.75
# Documents that a ranking holds, and candidates of the mean of both.
DEPTH = 200
# Documents embedded in one call.
BATCH = 512


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Every document's scores for every query; each of shape (queries, documents).

    Attributes:
        ids: of the documents.
        dense: cosines.
        bm25: with bm25s' own short list of stop words, as it comes.
        bm25_plus: with its longer list.
    """

    ids: Sequence[str]
    dense: NDArray[np.float32]
    bm25: NDArray[np.float32]
    bm25_plus: NDArray[np.float32]

    def rankings(self) -> dict[str, Rankings]:
        """For each baseline its ranking of each query."""
        return {
            "dense": self._ranked(self.dense),
            "bm25s": self._ranked(self.bm25, least=0.0),
            "bm25s_plus": self._ranked(self.bm25_plus, least=0.0),
            "simple": [self._simple(*row) for row in zip(self.dense, self.bm25, strict=True)],
        }

    def _ranked(self, scores: NDArray[np.float32], least: float = -np.inf) -> Rankings:
        return [[self.ids[place] for place in _best(row) if row[place] > least] for row in scores]

    def _simple(self, dense: NDArray[np.float32], bm25: NDArray[np.float32]) -> list[str]:
        """Half and half over the dense candidates, each from its theoretical least score.

        Source: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2023).
        """
        candidates = _best(dense)
        meaning = (dense[candidates] + 1) / (dense[candidates].max() + 1)
        words = bm25[candidates] / max(float(bm25[candidates].max()), 1e-9)
        return [self.ids[candidates[place]] for place in _best(meaning + words)]


async def score(judged: JudgedSet, embedder: Embedder) -> Scored:
    """Score a whole corpus for all of its queries."""
    documents = list(judged.documents())
    texts = [f"{document.title} {document.text}".strip() for document in documents]
    queries = [query.text for query in judged.queries]
    vectors = await _embed(embedder, texts)
    return Scored(
        ids=[document.id for document in documents],
        dense=await _embed(embedder, queries) @ vectors.T,
        bm25=_bm25(texts, queries, "en"),
        bm25_plus=_bm25(texts, queries, "en_plus"),
    )


async def _embed(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    parts = [
        await embedder.embed_documents(texts[start : start + BATCH])
        for start in range(0, len(texts), BATCH)
    ]
    return np.concatenate(parts)


def _bm25(texts: Sequence[str], queries: Sequence[str], stop_words: str) -> NDArray[np.float32]:
    stem = snowballstemmer.stemmer("english").stemWords

    def tokens(some: Sequence[str]) -> list[list[str]]:
        cut: list[list[str]] = bm25s.tokenize(
            list(some), stopwords=stop_words, stemmer=stem, return_ids=False, show_progress=False
        )
        return cut

    index = bm25s.BM25(k1=K1, b=B)
    index.index(tokens(texts), show_progress=False)
    scores = np.zeros((len(queries), len(texts)), np.float32)
    for row, query in zip(scores, tokens(queries), strict=True):
        if query:
            row[:] = index.get_scores(query)
    return scores


def _best(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Places of the best, equals in their order."""
    return np.argsort(-scores, kind="stable")[:DEPTH]
