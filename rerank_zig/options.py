"""How candidates are to be scored, and the scores.

It must know no ctypes, and check nothing itself: the library does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
class FusionOptions:
    """How to mix meaning and words: ``alpha * dense + (1 - alpha) * lexical``.

    The defaults are one set for all collections; docs/RANKING.md says what they reach.

    Args:
        alpha: weight of the dense similarity, 0 to 1; None adapts it to each query.
        k1: BM25's saturation by term frequency, 0 to 1000.
        b: BM25's share of length normalisation, 0 to 1.
        title: what a word in the title counts beside one in the text, 0 to 1000.
        proximity: weight of words of the query that stand near each other, 0 to 1000.
        normalisation: what brings both columns to one scale.
    """

    alpha: float | None = None
    k1: float = 1.0
    b: float = 0.75
    title: float = 3.0
    proximity: float = 0.5
    normalisation: Normalisation = Normalisation.MIN_MAX


class Scores(NamedTuple):
    """The scores of n candidates, in their order; every array has the shape (n,).

    Args:
        fused: the mix, within [0, 1].
        dense: similarities, normalised to [0, 1].
        lexical_raw: what the words say, from 0: BM25F and proximity.
        lexical: the same, normalised to [0, 1].
        title: the part of ``lexical_raw`` that words in the title added.
        proximity: the part of it that words near each other added.
        alpha: the share of meaning as used.
        chunks: how many chunks the statistics were counted over.
    """

    fused: NDArray[np.float32]
    dense: NDArray[np.float32]
    lexical_raw: NDArray[np.float32]
    lexical: NDArray[np.float32]
    title: NDArray[np.float32]
    proximity: NDArray[np.float32]
    alpha: float
    chunks: int


DEFAULT_OPTIONS = FusionOptions()
