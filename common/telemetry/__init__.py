"""What a service tells about itself: spans, metrics and logs, behind a few names.

Domain code imports from here and nothing from OpenTelemetry. Until ``Telemetry.open`` is called
everything works and nothing is exported. No span, metric or log made here holds document text.
"""

from common.telemetry.logs import describe_exception
from common.telemetry.metrics import Measure, Metric, count, gauge_add, observe
from common.telemetry.rpc_spans import ClientSpan, ServerSpan
from common.telemetry.spans import ActiveSpan, Attribute, Stage, current_trace_id, span
from common.telemetry.telemetry import Telemetry, TelemetrySettings

__all__ = [
    "ActiveSpan",
    "Attribute",
    "ClientSpan",
    "Measure",
    "Metric",
    "ServerSpan",
    "Stage",
    "Telemetry",
    "TelemetrySettings",
    "count",
    "current_trace_id",
    "describe_exception",
    "gauge_add",
    "observe",
    "span",
]
