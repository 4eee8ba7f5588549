"""Measures of a ranking against relevance grades, as the retrieval literature defines them.

A ranking is document ids, best first, each once; grades are whole numbers, above 0 is relevant, and
what was not judged counts as 0. Pure functions: nothing here reads or asks anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def exponential_gain(grade: int) -> float:
    """2^grade - 1: Burges et al., ICML 2005."""
    return math.ldexp(1.0, min(max(grade, 0), 1_000)) - 1


def linear_gain(grade: int) -> float:
    """The grade itself: what trec_eval's ndcg_cut counts, and BEIR, which calls it."""
    return float(max(grade, 0))


def ndcg(
    ranking: Sequence[str],
    grades: Mapping[str, int],
    k: int,
    gain: Callable[[int], float] = exponential_gain,
) -> float:
    """Normalised discounted cumulative gain of the first k, 0 to 1; 0.0 if nothing is relevant.

    sum over ranks r = 1..k of gain(grade) / log2(r + 1), divided by the same sum of the best
    possible ranking: Järvelin and Kekäläinen, ACM TOIS 20(4), 2002. The two gains agree where no
    grade is above 1.
    """
    best = _dcg(sorted(map(gain, grades.values()), reverse=True)[:k])
    found = _dcg(gain(grades.get(document, 0)) for document in ranking[:k])
    return found / best if best > 0 else 0.0


def _dcg(gains: Iterable[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Share of the relevant documents among the first k; 0.0 if nothing is relevant."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document among the first k, 0.0 if there is none.

    Its mean over queries is MRR: Voorhees, TREC-8 Question Answering Track, 1999.
    """
    for rank, document in enumerate(ranking[:k], start=1):
        if grades.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of the values does not exceed (nearest rank).

    Args:
        values: at least one.
        share: above 0, at most 1.
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]
