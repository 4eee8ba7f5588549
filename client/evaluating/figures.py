"""What an evaluation found, as figures: means with intervals, differences, percentiles of times.

Computed once from what every query got; tables, JSON and the report only show it. Nothing is asked
or printed here.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from client.evaluating import bootstrap
from client.evaluating.metrics import percentile
from client.quantities import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from client.evaluating.asking import Asked
    from client.evaluating.judged_set import JudgedSet

MEASURES: Final[Mapping[str, Callable[[Asked], float]]] = {
    "ndcg@10": lambda asked: asked.ndcg_at_10,
    "recall@100": lambda asked: asked.recall_at_100,
    "mrr@10": lambda asked: asked.reciprocal_rank_at_10,
}
# As the server runs them; one that is not known here comes last.
_STAGES: Final = ("route", "embed", "retrieve", "fetch", "rerank", "cross_encode", "assemble")
# Differences below are rounding, not ranking.
_SAME = 1e-9
_UNSURE: Final = "is neither clearly better nor clearly worse than"


class Estimate(NamedTuple):
    """A mean over the queries and its interval."""

    mean: float
    low: float
    high: float


class Times(NamedTuple):
    """Percentiles, in milliseconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A mode less the first one, over the same queries.

    Attributes:
        to: the first mode.
        measures: mean difference of each measure.
        by_query: of nDCG@10, in the order of the queries.
    """

    to: str
    measures: Mapping[str, Estimate]
    by_query: tuple[float, ...]

    @property
    def better(self) -> int:
        """Queries that gained."""
        return sum(difference > _SAME for difference in self.by_query)

    @property
    def worse(self) -> int:
        """Queries that lost."""
        return sum(difference < -_SAME for difference in self.by_query)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        equal = len(self.by_query) - self.better - self.worse
        counts = {"better": self.better, "equal": equal, "worse": self.worse}
        return {"to": self.to, **_estimates(self.measures), **counts}


@dataclass(frozen=True, slots=True)
class ModeFigures:
    """What one mode reached.

    Attributes:
        measures: by name.
        linear_ndcg: nDCG@10 as trec_eval counts it.
        call: of the whole call.
        stages: of each stage of the server, over the queries that came to it.
        candidates: taken from the vector store for each query.
        degraded: answers that were less than they could be, by reason.
        difference: to the first mode; None for itself.
    """

    measures: Mapping[str, Estimate]
    linear_ndcg: float
    call: Times
    stages: Mapping[str, Times]
    candidates: int
    degraded: Mapping[str, int]
    difference: Difference | None

    def to_json(self) -> dict[str, Any]:
        """As plain values; the first five names are those that reports rely on."""
        means = {name: estimate.mean for name, estimate in self.measures.items()}
        return {
            **means,
            "p50_ms": self.call.p50,
            "p99_ms": self.call.p99,
            "p90_ms": self.call.p90,
            **{key: value for key, value in _estimates(self.measures).items() if key not in means},
            "ndcg@10_linear": self.linear_ndcg,
            "stages_ms": {stage: times._asdict() for stage, times in self.stages.items()},
            "candidates": self.candidates,
            "degraded": dict(self.degraded),
            **({"difference": self.difference.to_json()} if self.difference else {}),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A whole evaluation.

    Attributes:
        judged: what was asked.
        modes: in the order they were asked for; others are compared with the first.
        asked: what every query got.
        statistics: what words were counted over: ``corpus`` or ``candidates``.
        settings: what it was measured with, in words.
        notes: what a reader must know of the figures.
    """

    judged: JudgedSet
    modes: Mapping[str, ModeFigures]
    asked: Mapping[str, Sequence[Asked]]
    statistics: str
    settings: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def stages(self) -> list[str]:
        """Names of all stages that any mode ran, in their order."""
        names = dict.fromkeys(name for figures_ in self.modes.values() for name in figures_.stages)
        return sorted(names, key=(*_STAGES, *names).index)

    @property
    def first(self) -> str:
        """The mode that others are compared with."""
        return next(iter(self.modes))

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON object."""
        return {
            "dataset": self.judged.name,
            "queries": len(self.judged.queries),
            "modes": {name: figures.to_json() for name, figures in self.modes.items()},
            "split": self.judged.split,
            "documents": self.judged.size,
            "statistics": self.statistics,
            "bootstrap": {
                "resamples": bootstrap.RESAMPLES,
                "seed": bootstrap.SEED,
                "level": bootstrap.LEVEL,
            },
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }


def figures(
    asked: Mapping[str, Sequence[Asked]], candidates: Callable[[str], int]
) -> dict[str, ModeFigures]:
    """The figures of each mode, those after the first with the difference to it.

    Args:
        asked: for each mode the same queries in the same order, at least one.
        candidates: that a mode takes from the vector store.
    """
    first = next(iter(asked))
    # By mode, what it is less, and measure.
    series = {
        (mode, "", measure): [of(answer) for answer in answers]
        for mode, answers in asked.items()
        for measure, of in MEASURES.items()
    }
    series |= {
        (mode, first, measure): [
            one - other for one, other in zip(row, series[first, "", measure], strict=True)
        ]
        for (mode, _, measure), row in series.items()
        if mode != first
    }
    intervals = bootstrap.intervals(series)

    def estimates(mode: str, less: str = "") -> dict[str, Estimate]:
        keys = {measure: (mode, less, measure) for measure in MEASURES}
        return {name: Estimate(_mean(series[key]), *intervals[key]) for name, key in keys.items()}

    return {
        mode: ModeFigures(
            measures=estimates(mode),
            linear_ndcg=_mean([answer.linear_ndcg_at_10 for answer in answers]),
            call=times([answer.call_ms for answer in answers]),
            stages=_stages(answers),
            candidates=candidates(mode),
            degraded=Counter(why for answer in answers for why in answer.degraded),
            difference=None
            if mode == first
            else Difference(first, estimates(mode, first), tuple(series[mode, first, "ndcg@10"])),
        )
        for mode, answers in asked.items()
    }


def times(durations_ms: Sequence[float]) -> Times:
    """Percentiles of at least one duration, each one that was measured."""
    return Times(*(percentile(durations_ms, share) for share in (0.50, 0.90, 0.99)))


def verdict(evaluation: Evaluation) -> list[str]:
    """What the figures say in sentences, and no more than their intervals allow."""
    reached = {mode: found.measures["ndcg@10"].mean for mode, found in evaluation.modes.items()}
    best = max(reached, key=lambda mode: reached[mode])
    verb = "has the highest" if len(reached) > 1 else "reaches"
    told = [f"{best} {verb} nDCG@10: {reached[best]:.3f}."]
    for mode, found in evaluation.modes.items():
        if found.difference is None:
            continue
        mean, low, high = found.difference.measures["ndcg@10"]
        clear = "is better than" if low > 0 else "is worse than" if high < 0 else _UNSURE
        told.append(f"{mode} {clear} {evaluation.first}: {mean:+.3f} ({low:+.3f} to {high:+.3f}).")
    return told


def degradations(modes: Mapping[str, ModeFigures]) -> Iterable[str]:
    """A note for each way in which answers were less than they could be."""
    for mode, figures_ in modes.items():
        for why, many in figures_.degraded.items():
            yield f"{mode}: {number(many, 'answer')} degraded, {why.replace('_', ' ')}"


def _stages(answers: Sequence[Asked]) -> dict[str, Times]:
    names = dict.fromkeys(stage for answer in answers for stage in answer.stages_ms)
    return {
        name: times([a.stages_ms[name] for a in answers if name in a.stages_ms]) for name in names
    }


def _estimates(measures: Mapping[str, Estimate]) -> dict[str, Any]:
    means = {name: estimate.mean for name, estimate in measures.items()}
    return means | {f"{name}_interval": [e.low, e.high] for name, e in measures.items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
