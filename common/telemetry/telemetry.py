"""Opens and closes what telemetry needs: tracer, meter, Prometheus endpoint and log handler.

Standard ``OTEL_`` variables choose where traces and metrics go; by default nowhere. The exporters
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

from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import Field

from common.config import Settings
from common.errors import ConfigurationError
from common.telemetry import signals
from common.telemetry.logs import JsonFormatter, TextFormatter
from common.telemetry.signals import Signals, UnexportedTracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from opentelemetry.trace import Tracer

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
        resource = Resource.create({"service.name": service})
        stack = ExitStack()
        try:
            stack.enter_context(_log_handler(service, settings))
            readers = [metric_reader] if metric_reader is not None else []
            address = None
            if settings.metrics_listen is not None:
                reader, address = stack.enter_context(_prometheus(settings.metrics_listen))
                readers.append(reader)
            readers += map(_metric_reader, metrics)
            tracer = _tracer(stack, resource, traces, span_exporter)
            meter = _meter(stack, resource, readers)
            stack.enter_context(signals.use(Signals.create(tracer, meter)))
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


def _span_exporter(kind: str) -> SpanExporter:
    if kind == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415  # slow to import, seldom used
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()


def _metric_reader(kind: str) -> MetricReader:
    if kind == "console":
        return PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr))
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415  # slow to import, seldom used
        OTLPMetricExporter,
    )

    return PeriodicExportingMetricReader(OTLPMetricExporter())


def _tracer(
    stack: ExitStack, resource: Resource, kinds: tuple[str, ...], extra: SpanExporter | None
) -> Tracer:
    if not kinds and extra is None:
        return UnexportedTracer()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    stack.callback(provider.shutdown)
    for kind in kinds:
        provider.add_span_processor(BatchSpanProcessor(_span_exporter(kind)))
    if extra is not None:
        provider.add_span_processor(SimpleSpanProcessor(extra))
    return provider.get_tracer("sluice")


def _meter(stack: ExitStack, resource: Resource, readers: list[MetricReader]) -> Meter:
    if not readers:
        return NoOpMeter("sluice")
    # Exemplars would double the cost of a measurement; traces are joined to logs instead.
    exemplars = AlwaysOffExemplarFilter()
    provider = MeterProvider(readers, resource, exemplars, shutdown_on_exit=False)
    stack.callback(provider.shutdown)
    return provider.get_meter("sluice")


@contextmanager
def _prometheus(listen: str) -> Iterator[tuple[MetricReader, str]]:
    from opentelemetry.exporter.prometheus import (  # noqa: PLC0415  # only with an endpoint
        PrometheusMetricReader,
    )

    host, _, port = listen.rpartition(":")
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"telemetry.metrics_listen: cannot listen on {listen}"
            f" ({type(error).__name__}); choose a free port of this machine"
        ) from error
    try:
        yield reader, f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(FLUSH_S)


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
