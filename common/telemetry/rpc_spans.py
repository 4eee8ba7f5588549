"""Spans of RPCs: the server's side and the client's, joined by W3C trace context.

Knows no gRPC: methods and status codes are names, metadata a mapping of header names. Names of
attributes follow OpenTelemetry's semantic conventions for RPC.
"""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING, Self

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from common.telemetry import signals
from common.telemetry.metrics import Metric, count
from common.telemetry.spans import current_trace_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType

logger = logging.getLogger(__name__)

TRACE_HEADERS = frozenset({"traceparent", "tracestate"})
# Codes that tell of a fault of the server rather than of the request.
_SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_propagator = TraceContextTextMapPropagator()


def _attributes(method: str) -> dict[str, str]:
    service, _, name = method.rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


class ServerSpan:
    """One RPC on the server: span, request and error counts, duration, one log line at INFO.

    Args:
        method: ``package.Service/Method``.
        headers: the request's headers; only trace context is read.

    Attributes:
        code: name of the status the RPC ends with; set it before leaving.
    """

    __slots__ = ("_method", "_otel", "_started_ns", "_token", "code")

    _token: Token[context.Context]
    _started_ns: int

    def __init__(self, method: str, headers: Mapping[str, str]) -> None:
        self.code = "UNKNOWN"
        self._method = method
        parent = _propagator.extract(headers, context.Context()) if headers else context.Context()
        self._otel = signals.current().tracer.start_span(
            method, parent, trace.SpanKind.SERVER, _attributes(method)
        )

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._otel))
        self._started_ns = perf_counter_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        duration_ns = perf_counter_ns() - self._started_ns
        labels = {"method": self._method, "code": self.code}
        count(Metric.REQUESTS, **labels)
        if self.code != "OK":
            count(Metric.ERRORS, **labels)
        signals.current().rpc_duration.record(duration_ns / 1e9, labels)
        _end(self._otel, self.code, failed=self.code in _SERVER_FAULTS)
        extra = labels | {
            "duration_ms": round(duration_ns / 1e6, 3),
            "trace_id": current_trace_id(),
        }
        logger.info("rpc", extra=extra)
        context.detach(self._token)


class ClientSpan:
    """One RPC on the client. It is never the current span, so that it may end anywhere.

    Args:
        method: ``package.Service/Method``.
    """

    __slots__ = ("_otel",)

    def __init__(self, method: str) -> None:
        self._otel = signals.current().tracer.start_span(
            method, kind=trace.SpanKind.CLIENT, attributes=_attributes(method)
        )

    def headers(self) -> dict[str, str]:
        """Trace context to send, as W3C headers."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(self._otel))
        return carrier

    def is_recording(self) -> bool:
        """Whether ``finish`` has any use."""
        return self._otel.is_recording()

    def finish(self, code: str) -> None:
        """End the span with the name of the RPC's status."""
        _end(self._otel, code, failed=code != "OK")


def _end(otel: trace.Span, code: str, *, failed: bool) -> None:
    otel.set_attribute("rpc.response.status_code", code)
    if failed:
        otel.set_status(trace.Status(trace.StatusCode.ERROR))
        otel.set_attribute("error.type", code)
    otel.end()
