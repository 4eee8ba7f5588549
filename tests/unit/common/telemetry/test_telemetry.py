"""Opening and closing telemetry: exporters by environment, Prometheus, log lines."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from common.errors import ConfigurationError, Overloaded
from common.telemetry import Metric, Stage, Telemetry, TelemetrySettings, count, span

PRIVATE = "the quick brown document"
logger = logging.getLogger("common.test")


def _scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


async def test_prometheus_is_scraped_until_closed():
    settings = TelemetrySettings(metrics_listen="127.0.0.1:0")
    telemetry = Telemetry.open("indexer", settings, {})
    address = telemetry.metrics_address
    assert address is not None
    assert not address.endswith(":0")
    count(Metric.DOCUMENTS, 3, outcome="indexed")
    with span(Stage.INDEX_EMBED):
        pass
    lines = _scrape(address).splitlines()
    assert 'sluice_documents_total{outcome="indexed"} 3.0' in lines
    assert 'sluice_stage_duration_seconds_count{stage="index.embed"} 1.0' in lines
    (target,) = [line for line in lines if line.startswith("target_info{")]
    assert 'service_name="indexer"' in target
    await telemetry.aclose()
    with pytest.raises(urllib.error.URLError):
        _scrape(address)


async def test_prometheus_can_be_opened_again():
    for _ in range(2):
        settings = TelemetrySettings(metrics_listen="127.0.0.1:0")
        async with Telemetry.open("indexer", settings, {}) as telemetry:
            count(Metric.CHUNKS, 5)
            assert telemetry.metrics_address is not None
            assert "sluice_chunks_total 5.0" in _scrape(telemetry.metrics_address).splitlines()


async def test_a_taken_metrics_port_names_the_setting_and_leaves_nothing_behind():
    handlers = list(logging.getLogger().handlers)
    async with Telemetry.open("a", TelemetrySettings(metrics_listen="127.0.0.1:0"), {}) as first:
        settings = TelemetrySettings(metrics_listen=first.metrics_address)
        with pytest.raises(ConfigurationError, match=r"telemetry\.metrics_listen"):
            Telemetry.open("b", settings, {})
    assert logging.getLogger().handlers == handlers


async def test_the_last_opened_wins_and_closing_gives_way():
    first, second = InMemorySpanExporter(), InMemorySpanExporter()
    settings = TelemetrySettings()
    outer = Telemetry.open("first", settings, {}, span_exporter=first)
    inner = Telemetry.open("second", settings, {}, span_exporter=second)
    with span(Stage.INGEST_LIST):
        pass
    assert [finished.name for finished in second.get_finished_spans()] == ["ingest.list"]
    assert not first.get_finished_spans()
    await inner.aclose()
    with span(Stage.INGEST_READ):
        pass
    assert [finished.name for finished in first.get_finished_spans()] == ["ingest.read"]
    await outer.aclose()


async def test_console_exporters_write_to_stderr(capfd):
    environ = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    async with Telemetry.open("test", TelemetrySettings(), environ | {"OTEL_SERVICE_NAME": "mine"}):
        with span(Stage.INGEST_LIST):
            pass
    captured = capfd.readouterr()
    assert '"name": "ingest.list"' in captured.err
    assert '"sluice.stage.duration"' in captured.err
    assert '"service.name": "mine"' in captured.err
    assert not captured.out


async def test_the_sdk_can_be_disabled(capfd):
    environ = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}
    async with Telemetry.open("test", TelemetrySettings(), environ):
        with span(Stage.INGEST_LIST):
            pass
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_METRICS_EXPORTER": "console,statsd"}, "OTEL_METRICS_EXPORTER"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    ],
)
def test_an_unknown_exporter_names_the_variable(environ, variable):
    with pytest.raises(ConfigurationError, match=variable):
        Telemetry.open("test", TelemetrySettings(), environ)


async def test_json_lines(capfd):
    async with Telemetry.open("query", TelemetrySettings(), {}):
        with span(Stage.SEARCH_FETCH):
            logger.info(
                "fetched %d", 3, extra={"stage": "search.fetch", "kept": {"a": object()}, "n": 1.5}
            )
        logger.debug("not shown")
        logging.getLogger("somebody.else").info("not shown either")
        logging.getLogger("somebody.else").warning("shown")
    ours, theirs = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert ours.pop("ts").endswith("+00:00")
    assert len(ours.pop("trace_id")) == 32
    assert len(ours.pop("span_id")) == 16
    assert ours == {
        "level": "info",
        "logger": "common.test",
        "message": "fetched 3",
        "service": "query",
        "stage": "search.fetch",
        "kept": {"a": "object"},
        "n": 1.5,
    }
    assert theirs["message"] == "shown"
    assert "trace_id" not in theirs


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_logged_exceptions_show_types_and_places_only(capfd, log_format):
    def parse() -> None:
        try:
            int(PRIVATE)
        except ValueError as error:
            raise Overloaded("wait a little") from error

    settings = TelemetrySettings(log_format=log_format)
    async with Telemetry.open("test", settings, {}):
        try:
            parse()
        except Overloaded:
            logger.exception("failed")
    written = capfd.readouterr().err
    assert PRIVATE not in written
    for shown in ("ValueError", "Overloaded", "RESOURCE_EXHAUSTED", "wait a little", " parse"):
        assert shown in written
    if log_format == "json":
        assert json.loads(written)["error_type"] == "common.errors.Overloaded"


async def test_closing_restores_the_loggers():
    root, own = logging.getLogger(), logging.getLogger("common")
    before = list(root.handlers), own.level
    async with Telemetry.open("test", TelemetrySettings(log_level="debug"), {}):
        assert own.level == logging.DEBUG
    assert (list(root.handlers), own.level) == before
