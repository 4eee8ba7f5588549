"""Exports spans and metrics with OpenTelemetry's SDK: exporters, providers, Prometheus endpoint.

Imported only where something is exported, for the SDK is slow to import.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

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

from common.errors import ConfigurationError
from common.telemetry.signals import Signals, UnexportedTracer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from opentelemetry.trace import Tracer

JOIN_S = 5.0


def start(
    stack: ExitStack,
    service: str,
    *,
    traces: tuple[str, ...],
    metrics: tuple[str, ...],
    listen: str | None,
    span_exporter: SpanExporter | None,
    metric_reader: MetricReader | None,
) -> tuple[Signals, str | None]:
    """Start to export; what was started goes on the stack.

    Args:
        stack: closes it again.
        service: name in traces and metrics.
        traces: exporters of spans, of otlp and console.
        metrics: exporters of metrics, likewise.
        listen: HOST:PORT of the Prometheus endpoint; None for none.
        span_exporter: gets each span as it ends, besides.
        metric_reader: reads the metrics, besides.

    Returns:
        The signals to use, and HOST:PORT at which Prometheus may scrape.

    Raises:
        ConfigurationError: the Prometheus address is taken.
    """
    resource = Resource.create({"service.name": service})
    readers = [metric_reader] if metric_reader is not None else []
    address = None
    if listen is not None:
        reader, address = stack.enter_context(_prometheus(listen))
        readers.append(reader)
    readers += map(_metric_reader, metrics)
    tracer = _tracer(stack, resource, traces, span_exporter)
    return Signals.create(tracer, _meter(stack, resource, readers)), address


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
    from prometheus_client import (  # noqa: PLC0415  # as above
        CollectorRegistry,
        start_http_server,
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
        thread.join(JOIN_S)
