"""Where spans and measurements currently go.

OpenTelemetry lets a process set its global providers only once, but a process may open and close
telemetry many times (tests do). So the current tracer and instruments are kept here: the last ones
opened win, and before any are opened a tracer that exports nothing still gives every span its
identity, so that logs of several services can be joined by trace id. Nothing else holds them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from random import getrandbits
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.metrics import NoOpMeter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter, UpDownCounter
    from opentelemetry.util.types import Attributes

DURATION_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
LAG_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000, 60_000, 600_000)


class Metric(StrEnum):
    """Sums that services keep; Prometheus names follow from them (``sluice_documents_total``)."""

    REQUESTS = "sluice.requests"
    ERRORS = "sluice.errors"
    DOCUMENTS = "sluice.documents"
    CHUNKS = "sluice.chunks"
    BYTES_READ = "sluice.read"
    BYTES_IN_FLIGHT = "sluice.in_flight"
    ROUTES_STALE = "sluice.routes.stale"


class Measure(StrEnum):
    """Values of which services keep the distribution, besides durations in seconds."""

    SWITCH_LAG = "sluice.routes.switch_lag"


_COUNTERS = (
    (Metric.REQUESTS, "", "RPCs answered, by method and code"),
    (Metric.ERRORS, "", "RPCs that did not end with OK, by method and code"),
    (Metric.DOCUMENTS, "", "documents, by outcome"),
    (Metric.CHUNKS, "", "chunks written"),
    (Metric.BYTES_READ, "By", "bytes read from sources"),
)
_GAUGES = (
    (Metric.BYTES_IN_FLIGHT, "By", "bytes taken in and not yet acknowledged"),
    (Metric.ROUTES_STALE, "", "1 while the coordinator cannot be reached, so that routes may lag"),
)
_MEASURES = ((Measure.SWITCH_LAG, "ms", "from the activation of a version to its first searches"),)


class UnexportedTracer(trace.Tracer):
    """Gives spans an identity and records nothing; a fifth of the cost of a recorded span.

    The sampled flag is set: whoever continues the trace may export its own part.
    """

    _flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)

    def start_span(  # noqa: D102  # documented by the interface
        self,
        name: str,  # noqa: ARG002  # the interface's
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,  # noqa: ARG002  # the interface's
        attributes: Attributes = None,  # noqa: ARG002  # the interface's
        links: Sequence[trace.Link] | None = None,  # noqa: ARG002  # the interface's
        start_time: int | None = None,  # noqa: ARG002  # the interface's
        record_exception: bool = True,  # noqa: ARG002, FBT001, FBT002  # the interface's
        set_status_on_exception: bool = True,  # noqa: ARG002, FBT001, FBT002  # the interface's
    ) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else _random_id(128)
        span_id = _random_id(64)
        identity = trace.SpanContext(trace_id, span_id, is_remote=False, trace_flags=self._flags)
        return trace.NonRecordingSpan(identity)

    def start_as_current_span(  # type: ignore[override]  # noqa: D102  # as above
        self, name: str, context: Context | None = None, **_: object
    ) -> AbstractContextManager[trace.Span]:
        return trace.use_span(self.start_span(name, context))


def _random_id(bits: int) -> int:
    """Any number but 0, which W3C trace context keeps for "none"."""
    return getrandbits(bits) or 1


@dataclass(frozen=True, slots=True)
class Signals:
    """One tracer and its instruments; durations in seconds, measures in units of their own."""

    tracer: trace.Tracer
    stage_duration: Histogram
    rpc_duration: Histogram
    sums: Mapping[Metric, Counter | UpDownCounter]
    measures: Mapping[Measure, Histogram]

    @classmethod
    def create(cls, tracer: trace.Tracer, meter: Meter) -> Signals:
        """Make every instrument once."""

        def duration(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S
            )

        return cls(
            tracer=tracer,
            stage_duration=duration("sluice.stage.duration", "time in a stage"),
            rpc_duration=duration("sluice.rpc.duration", "time in an RPC, by method and code"),
            sums={name: meter.create_counter(name, unit, text) for name, unit, text in _COUNTERS}
            | {
                name: meter.create_up_down_counter(name, unit, text) for name, unit, text in _GAUGES
            },
            measures={
                name: meter.create_histogram(
                    name, unit, text, explicit_bucket_boundaries_advisory=LAG_BOUNDS_MS
                )
                for name, unit, text in _MEASURES
            },
        )


_stack = [Signals.create(UnexportedTracer(), NoOpMeter("sluice"))]


def current() -> Signals:
    """The signals opened last."""
    return _stack[-1]


@contextmanager
def use(signals: Signals) -> Iterator[None]:
    """Make these the current ones; openings may end in any order."""
    _stack.append(signals)
    try:
        yield
    finally:
        _stack[:] = [held for held in _stack if held is not signals]
