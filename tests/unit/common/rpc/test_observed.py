"""What a server tells of each RPC: one log line and its counts; probes stay silent."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from common.errors import NotFound
from common.rpc import open_channel
from sluice.query.v1 import query_pb2, query_pb2_grpc

TEXT = "a question that must stay private"
METHOD = "sluice.query.v1.QueryService/Search"


async def test_one_line_and_one_count_an_rpc(running, telemetry, capfd):
    async def search(request, _context):
        if request.collection == "absent":
            raise NotFound("no such collection; create it first")
        return query_pb2.SearchResponse()

    reader = InMemoryMetricReader()
    telemetry(metric_reader=reader)
    async with running(search) as server, open_channel(server.address) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        await stub.Search(query_pb2.SearchRequest(text=TEXT), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Search(query_pb2.SearchRequest(text=TEXT, collection="absent"), timeout=10)
        health = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
    written = capfd.readouterr().err
    assert TEXT not in written
    lines = [json.loads(line) for line in written.splitlines()]
    rpcs = [line for line in lines if line["message"] == "rpc"]
    assert [(line["method"], line["code"]) for line in rpcs] == [
        (METHOD, "OK"),
        (METHOD, "NOT_FOUND"),
    ]
    assert all(line["duration_ms"] > 0 and len(line["trace_id"]) == 32 for line in rpcs)
    gathered = reader.get_metrics_data()
    assert gathered is not None
    points: dict[str, dict[object, Any]] = {
        metric.name: {(point.attributes or {})["code"]: point for point in metric.data.data_points}
        for metric in gathered.resource_metrics[0].scope_metrics[0].metrics
    }
    assert {code: point.value for code, point in points["sluice.requests"].items()} == {
        "OK": 1,
        "NOT_FOUND": 1,
    }
    assert {code: point.value for code, point in points["sluice.errors"].items()} == {
        "NOT_FOUND": 1
    }
    assert points["sluice.rpc.duration"]["OK"].count == 1
    assert points["sluice.rpc.duration"]["OK"].attributes["method"] == METHOD
