"""One job is one trace, from the job through listing, reading, extraction and the stream."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from common.telemetry import Telemetry, TelemetrySettings


async def test_spans_and_measures_of_a_job(ingester, recorder):
    for number in range(3):
        (ingester.root / f"{number}.txt").write_text(f"confidential {number}")
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    async with Telemetry.open(
        "test", TelemetrySettings(), {}, span_exporter=spans, metric_reader=reader
    ):
        await ingester()
        measured: Any = reader.get_metrics_data()
    finished = spans.get_finished_spans()
    by_name: dict[str, list[Any]] = {}
    for span in finished:
        by_name.setdefault(span.name, []).append(span)
    (job,) = by_name["ingest.job"]
    assert job.parent is None
    for name, number in {"ingest.list": 1, "ingest.read": 3, "ingest.extract": 3}.items():
        assert len(by_name[name]) == number
        assert all(span.parent.span_id == job.context.span_id for span in by_name[name])
    assert sum(span.attributes["documents"] for span in by_name["ingest.send"]) == 3
    streams = by_name["sluice.index.v1.IndexService/IndexDocuments"]
    assert {span.context.trace_id for span in streams} == {job.context.trace_id}
    assert job.attributes["documents"] == 3
    assert all("confidential" not in span.to_json() for span in finished)
    values = {
        metric.name: [point.value for point in metric.data.data_points]
        for scope in measured.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name in {"sluice.read", "sluice.documents", "sluice.in_flight"}
    }
    assert values == {
        "sluice.read": [3 * len("confidential 0")],
        "sluice.documents": [3],
        "sluice.in_flight": [0],
    }
    assert len(recorder.documents) == 3
