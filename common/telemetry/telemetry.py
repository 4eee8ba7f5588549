"""Opens and closes what telemetry needs: tracer, meter, Prometheus endpoint and log handler.

Standard ``OTEL_`` variables choose where traces and metrics go; by default nowhere, and then
OpenTelemetry's SDK is not even imported: a command line starts faster without it. The exporters
themselves read their endpoint, headers and certificates from the process's environment, as
OpenTelemetry specifies. Never sets OpenTelemetry's process-wide providers.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal, Self

from opentelemetry.metrics import NoOpMeter
from pydantic import Field

from common.config import Settings
from common.errors import ConfigurationError
from common.telemetry import signals
from common.telemetry.logs import JsonFormatter, TextFormatter
from common.telemetry.signals import Signals, UnexportedTracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace.export import SpanExporter

FLUSH_S = 5.0
_PACKAGES = (
    *("bench", "client", "common", "indexer", "ingestor", "query", "rerank_zig", "standalone"),
)


class TelemetrySettings(Settings):
    """Logs and the Prometheus endpoint; traces and OTLP are set by ``OTEL_`` variables.

    Attributes:
        log_format: json or text.
        log_level: least level of Sluice's own log lines; libraries are heard from warning on.
        metrics_listen: HOST:PORT of the Prometheus endpoint; None for none, port 0 for a free one.
    """

    log_format: Literal["json", "text"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_listen: str | None = Field(default=None, pattern=r"^.+:\d{1,5}$")


class Telemetry:
    """Telemetry of one service while it is open.

    Attributes:
        metrics_address: HOST:PORT at which Prometheus may scrape; None without an endpoint.
    """

    def __init__(self, closing: ExitStack, metrics_address: str | None) -> None:
        self._closing = closing
        self.metrics_address = metrics_address

    @classmethod
    def open(
        cls,
        service: str,
        settings: TelemetrySettings,
        environ: Mapping[str, str],
        *,
        span_exporter: SpanExporter | None = None,
        metric_reader: MetricReader | None = None,
    ) -> Self:
        """Start telemetry; what was opened last is what spans and counts go to.

        Args:
            service: name in traces and logs, unless OTEL_SERVICE_NAME gives another.
            settings: logs and the Prometheus endpoint.
            environ: OTEL_SDK_DISABLED, OTEL_SERVICE_NAME, OTEL_TRACES_EXPORTER and
                OTEL_METRICS_EXPORTER (otlp, console or none; several separated by commas).
            span_exporter: gets each span as it ends, besides what ``environ`` chooses.
            metric_reader: reads the metrics, besides what ``environ`` chooses.

        Raises:
            ConfigurationError: an unknown exporter, or the Prometheus address is taken.
        """
        service = environ.get("OTEL_SERVICE_NAME") or service
        enabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        traces = _exporters("OTEL_TRACES_EXPORTER", environ) if enabled else ()
        metrics = _exporters("OTEL_METRICS_EXPORTER", environ) if enabled else ()
        stack = ExitStack()
        try:
            stack.enter_context(_log_handler(service, settings))
            opened, address = Signals.create(UnexportedTracer(), NoOpMeter("sluice")), None
            if any((traces, metrics, span_exporter, metric_reader, settings.metrics_listen)):
                from common.telemetry import export  # noqa: PLC0415  # slow to import

                opened, address = export.start(
                    stack,
                    service,
                    traces=traces,
                    metrics=metrics,
                    listen=settings.metrics_listen,
                    span_exporter=span_exporter,
                    metric_reader=metric_reader,
                )
            stack.enter_context(signals.use(opened))
        except BaseException:
            stack.close()
            raise
        return cls(stack, address)

    async def aclose(self) -> None:
        """Flush and stop, in at most ``FLUSH_S`` seconds: a dead collector delays no exit."""
        flushing = threading.Thread(target=self._closing.close, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _exporters(variable: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    names = [name.strip() for name in environ.get(variable, "none").split(",")]
    chosen = tuple(name for name in names if name not in {"", "none"})
    for name in chosen:
        if name not in {"otlp", "console"}:
            raise ConfigurationError(f"{variable}: {name} is not one of otlp, console, none")
    if "otlp" in chosen and environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc") != "grpc":
        raise ConfigurationError("OTEL_EXPORTER_OTLP_PROTOCOL: only grpc is built in; set grpc")
    return chosen


@contextmanager
def _log_handler(service: str, settings: TelemetrySettings) -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(service))
    root = logging.getLogger()
    own = [logging.getLogger(package) for package in _PACKAGES]
    before = [logger.level for logger in own]
    root.addHandler(handler)
    for logger in own:
        logger.setLevel(settings.log_level.upper())
    try:
        yield
    finally:
        for logger, level in zip(own, before, strict=True):
            logger.setLevel(level)
        root.removeHandler(handler)
