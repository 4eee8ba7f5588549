"""Counters, gauges and histograms by name.

Labels must be few and bounded: never a document or a query.
"""

from __future__ import annotations

from common.telemetry import signals
from common.telemetry.signals import Measure, Metric

__all__ = ["Measure", "Metric", "count", "gauge_add", "observe"]


def count(metric: Metric, amount: int = 1, /, **labels: str) -> None:
    """Add to a counter; ``amount`` is not negative."""
    signals.current().sums[metric].add(amount, labels)


def gauge_add(metric: Metric, amount: int, /, **labels: str) -> None:
    """Move a gauge up, or down with a negative amount."""
    signals.current().sums[metric].add(amount, labels)


def observe(measure: Measure, value: float, /, **labels: str) -> None:
    """Add one value, in the measure's unit; it is not negative."""
    signals.current().measures[measure].record(value, labels)
