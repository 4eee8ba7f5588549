"""One helper for a stage of work: a span, its duration by stage, and a debug log line.

An exception that passes leaves its type and its gRPC code on the span, never its message.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from time import perf_counter_ns
from typing import TYPE_CHECKING, Self, TypeAlias

from opentelemetry import context, trace

from common.errors import SluiceError
from common.telemetry import signals

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

logger = logging.getLogger(__name__)

Attribute: TypeAlias = str | int | float | bool


class Stage(StrEnum):
    """Names of stages. RPC spans are named by their method instead."""

    INGEST_JOB = "ingest.job"
    INGEST_LIST = "ingest.list"
    INGEST_READ = "ingest.read"
    INGEST_EXTRACT = "ingest.extract"
    INGEST_SEND = "ingest.send"
    INDEX_RECONCILE = "index.reconcile"
    INDEX_CHUNK = "index.chunk"
    INDEX_EMBED = "index.embed"
    INDEX_WRITE = "index.write"
    INDEX_DELETE = "index.delete"
    EMBED_DOCUMENTS = "embed.documents"
    EMBED_QUERY = "embed.query"
    SEARCH_ROUTE = "search.route"
    SEARCH_EMBED = "search.embed"
    SEARCH_RETRIEVE = "search.retrieve"
    SEARCH_FETCH = "search.fetch"
    SEARCH_RERANK = "search.rerank"
    SEARCH_CROSS_ENCODE = "search.cross_encode"
    SEARCH_ASSEMBLE = "search.assemble"
    CLIENT_SEARCH = "client.search"


_LABELS = {stage: {"stage": stage.value} for stage in Stage}


class ActiveSpan:
    """A stage while it runs; made by ``span``.

    Attributes:
        duration_ms: milliseconds the stage took; 0.0 until it has ended.
    """

    __slots__ = ("_attributes", "_otel", "_stage", "_started_ns", "_token", "duration_ms")

    _otel: trace.Span
    _token: Token[context.Context]
    _started_ns: int

    def __init__(self, stage: Stage, attributes: dict[str, Attribute]) -> None:
        self._stage = stage
        self._attributes = attributes
        self.duration_ms = 0.0

    def set(self, name: str, value: Attribute) -> None:
        """Add what became known while the stage ran."""
        self._attributes[name] = value

    def __enter__(self) -> Self:
        self._otel = signals.current().tracer.start_span(self._stage.value)
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
        self.duration_ms = duration_ns / 1e6
        signals.current().stage_duration.record(duration_ns / 1e9, _LABELS[self._stage])
        failure = _failure(error) if error is not None else {}
        if self._otel.is_recording():
            self._otel.set_attributes(self._attributes | failure)
            if isinstance(error, Exception):
                self._otel.set_status(trace.Status(trace.StatusCode.ERROR))
        if logger.isEnabledFor(logging.DEBUG):
            extra = {"stage": self._stage.value, "duration_ms": round(self.duration_ms, 3)}
            logger.debug("stage", extra=extra | {"attributes": self._attributes | failure})
        context.detach(self._token)
        self._otel.end()


def span(stage: Stage, **attributes: Attribute) -> ActiveSpan:
    """Measure a stage, awaits included; a context manager.

    Attributes are counts, names and settings, never text of documents or queries.
    """
    return ActiveSpan(stage, attributes)


def _failure(error: BaseException) -> dict[str, Attribute]:
    described: dict[str, Attribute] = {"error.type": type(error).__name__}
    if isinstance(error, SluiceError):
        described["error_code"] = error.code.name
    return described


def current_trace_id() -> str:
    """The trace id of the running span as 32 hexadecimal digits; empty outside any span."""
    identity = trace.get_current_span().get_span_context()
    return trace.format_trace_id(identity.trace_id) if identity.is_valid else ""
