"""Counters and gauges by name. Labels must be few and bounded: never a document or a query."""

from __future__ import annotations

from common.telemetry import signals
from common.telemetry.signals import Metric

__all__ = ["Metric", "count", "gauge_add"]


def count(metric: Metric, amount: int = 1, /, **labels: str) -> None:
    """Add to a counter; ``amount`` is not negative."""
    signals.current().sums[metric].add(amount, labels)


def gauge_add(metric: Metric, amount: int, /, **labels: str) -> None:
    """Move a gauge up, or down with a negative amount."""
    signals.current().sums[metric].add(amount, labels)
