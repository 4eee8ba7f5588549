"""Spans, durations and their log lines, as an exporter, a reader and a log handler see them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from common.errors import Overloaded
from common.telemetry import (
    Measure,
    Metric,
    Stage,
    Telemetry,
    TelemetrySettings,
    count,
    current_trace_id,
    gauge_add,
    observe,
    span,
)

PRIVATE = "the quick brown document"


async def test_a_span_works_before_anything_is_opened():
    assert not current_trace_id()
    with span(Stage.SEARCH_RETRIEVE, candidates=200) as outer:
        trace_id = current_trace_id()
        assert len(trace_id) == 32
        with span(Stage.SEARCH_EMBED):
            assert current_trace_id() == trace_id
        assert outer.duration_ms == 0.0
    assert outer.duration_ms > 0.0
    assert not current_trace_id()
    with span(Stage.SEARCH_EMBED):
        assert current_trace_id() != trace_id


async def test_concurrent_tasks_keep_their_own_parents():
    exporter = InMemorySpanExporter()

    async def work(both: asyncio.Barrier) -> tuple[str, str]:
        with span(Stage.INDEX_CHUNK):
            before = current_trace_id()
            await both.wait()
            with span(Stage.INDEX_EMBED):
                return before, current_trace_id()

    async with Telemetry.open("test", TelemetrySettings(), {}, span_exporter=exporter):
        both = asyncio.Barrier(2)
        first, second = await asyncio.gather(work(both), work(both))
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert first[0] != second[0]


async def test_exported_span_has_attributes_and_parent():
    exporter = InMemorySpanExporter()
    async with Telemetry.open("test", TelemetrySettings(), {}, span_exporter=exporter):
        with span(Stage.INDEX_WRITE, documents=64) as active:
            active.set("chunks", 120)
            with span(Stage.INDEX_EMBED):
                pass
    embed, write = exporter.get_finished_spans()
    assert (embed.name, write.name) == ("index.embed", "index.write")
    assert write.attributes == {"documents": 64, "chunks": 120}
    assert embed.parent is not None
    assert embed.parent.span_id == write.context.span_id
    assert write.resource.attributes["service.name"] == "test"
    assert write.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(PRIVATE), {"error.type": "ValueError"}),
        (Overloaded("wait"), {"error.type": "Overloaded", "error_code": "RESOURCE_EXHAUSTED"}),
    ],
    ids=["any", "sluice"],
)
async def test_an_exception_leaves_its_type_and_never_its_message(capfd, error, expected):
    exporter = InMemorySpanExporter()
    settings = TelemetrySettings(log_level="debug")
    async with Telemetry.open("test", settings, {}, span_exporter=exporter):
        with pytest.raises(type(error)), span(Stage.INGEST_EXTRACT):
            raise error
    (failed,) = exporter.get_finished_spans()
    assert failed.attributes == expected
    assert failed.status.status_code is StatusCode.ERROR
    assert not failed.events
    assert PRIVATE not in failed.to_json()
    written = capfd.readouterr().err
    assert PRIVATE not in written
    line = json.loads(written)
    assert line["attributes"] == expected


async def test_debug_line_of_a_stage(capfd):
    async with Telemetry.open("test", TelemetrySettings(log_level="debug"), {}):
        with span(Stage.SEARCH_RERANK, candidates=200) as active:
            trace_id = current_trace_id()
    line = json.loads(capfd.readouterr().err)
    assert line["stage"] == "search.rerank"
    assert line["trace_id"] == trace_id
    assert line["duration_ms"] == pytest.approx(active.duration_ms, abs=0.001)
    assert line["attributes"] == {"candidates": 200}


def _points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    gathered = reader.get_metrics_data()
    assert gathered is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in gathered.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


async def test_measurements_reach_the_reader():
    reader = InMemoryMetricReader()
    async with Telemetry.open("test", TelemetrySettings(), {}, metric_reader=reader):
        count(Metric.DOCUMENTS, 2, outcome="indexed")
        count(Metric.DOCUMENTS, outcome="indexed")
        gauge_add(Metric.BYTES_IN_FLIGHT, 100)
        gauge_add(Metric.BYTES_IN_FLIGHT, -40)
        with span(Stage.INDEX_WRITE) as active:
            pass
        points = _points(reader)
    (documents,) = points["sluice.documents"]
    assert (documents.value, documents.attributes) == (3, {"outcome": "indexed"})
    (in_flight,) = points["sluice.in_flight"]
    assert in_flight.value == 60
    (duration,) = points["sluice.stage.duration"]
    assert duration.attributes == {"stage": "index.write"}
    assert duration.count == 1
    assert duration.sum == pytest.approx(active.duration_ms / 1000)


def test_every_metric_can_be_counted_without_telemetry():
    for metric in Metric:
        count(metric, 1)
    for measure in Measure:
        observe(measure, 1.5)
