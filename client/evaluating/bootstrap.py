"""How sure a mean over queries is: percentile bootstrap intervals, paired over several series.

Every series is resampled by the same draws of queries, so that the interval of a difference is that
of its own distribution and not of two that were drawn apart. Efron and Tibshirani, An Introduction
to the Bootstrap, 1993, chapter 13. Pure: nothing is read or asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

K = TypeVar("K")

RESAMPLES: Final = 2_000
SEED: Final = 1
LEVEL: Final = 0.95


def intervals(
    series: Mapping[K, Sequence[float]], *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[K, tuple[float, float]]:
    """The interval of each series' mean, at ``LEVEL``.

    Args:
        series: by name, values of the same queries in the same order; at least one value each.
        resamples: how often as many queries are drawn with replacement.
        seed: of the draws.
    """
    values = np.array(list(series.values()), dtype=np.float64).reshape(len(series), -1)
    draws = np.random.default_rng(seed)
    queries = values.shape[1]
    means = np.empty((resamples, len(series)))
    for resample in means:
        resample[:] = values[:, draws.integers(0, queries, queries)].mean(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(series)}
