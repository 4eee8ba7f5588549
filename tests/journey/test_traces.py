"""One trace for a whole ingest, one for a whole search, across client and server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from client.answers import SearchQuery
from client.client import SluiceClient
from common.config import load
from common.telemetry import Stage, Telemetry, TelemetrySettings
from ingestor.ingestion import Ingestion
from ingestor.settings import IngestorConfig
from standalone.serve import UpConfig, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

WORD = "marmalade"
INDEX_RPC = "sluice.index.v1.IndexService/IndexDocuments"
SEARCH_RPC = "sluice.query.v1.QueryService/Search"


@asynccontextmanager
async def everything(home: Path) -> AsyncIterator[str]:
    """`sluice up` in this process; its address."""
    overrides = {
        "up": {"data_dir": home / "data", "server": {"listen": "127.0.0.1:0"}},
        "embedding": {"kind": "hashing"},
    }
    config = load(UpConfig, file=None, environ={}, overrides=overrides)
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(run(config, stop=stop, on_ready=ready.set_result))
    try:
        yield await asyncio.wait_for(ready, 60)
    finally:
        stop.set()
        await asyncio.wait_for(server, 60)


@asynccontextmanager
async def shown(*_: object) -> AsyncIterator[None]:
    yield


async def ingest(home: Path, lake: Path, address: str) -> None:
    overrides = {
        "client": {"target": address},
        "ingest": {"state_uri": (home / "state").as_uri()},
    }
    config = load(IngestorConfig, file=None, environ={}, overrides=overrides)
    async with Ingestion.open(config, {}) as ingestion:
        await ingestion.ingest([str(lake)], "docs", show=shown)


def ancestors(spans: tuple[ReadableSpan, ...], name: str) -> list[str]:
    """Names from a span of that name up to the root of its trace."""
    by_id = {span.context.span_id: span for span in spans if span.context}
    current: ReadableSpan | None = next(span for span in spans if span.name == name)
    path = []
    while current is not None:
        path.append(current.name)
        current = by_id.get(current.parent.span_id) if current.parent else None
    return path


def trace_of(spans: tuple[ReadableSpan, ...], root: str) -> Counter[str]:
    """How often each span stands in the trace with that root."""
    ids = {s.context.trace_id for s in spans if s.context and s.name == root and not s.parent}
    assert len(ids) == 1
    return Counter(s.name for s in spans if s.context and s.context.trace_id in ids)


async def test_both_journeys_are_one_trace_each(tmp_path, capfd):
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "a.md").write_text(f"# Toast\n\nBread with {WORD}.")
    (lake / "b.txt").write_text("Nothing of the kind.")
    exporter = InMemorySpanExporter()
    settings = TelemetrySettings(log_level="debug")
    async with Telemetry.open("test", settings, {}, span_exporter=exporter):
        async with everything(tmp_path) as address:
            await ingest(tmp_path, lake, address)
            async with SluiceClient(address) as client:
                answer = await client.search(SearchQuery(WORD, "docs"))
        assert answer.hits[0].source_uri.endswith("a.md")
    spans = exporter.get_finished_spans()

    job = trace_of(spans, Stage.INGEST_JOB)
    assert job[Stage.INGEST_READ] == job[Stage.INGEST_EXTRACT] == 2
    assert job[Stage.INGEST_LIST] == 1
    for stage in (Stage.INDEX_RECONCILE, Stage.INDEX_CHUNK, Stage.INDEX_EMBED, Stage.INDEX_WRITE):
        # The stream's client span stands between the job and the server.
        assert ancestors(spans, stage) == [stage, INDEX_RPC, INDEX_RPC, Stage.INGEST_JOB]
    assert job[Stage.INGEST_SEND] >= 1

    search = trace_of(spans, Stage.CLIENT_SEARCH)
    for stage in (
        Stage.SEARCH_ROUTE,
        Stage.SEARCH_EMBED,
        Stage.SEARCH_RETRIEVE,
        Stage.SEARCH_RERANK,
        Stage.SEARCH_ASSEMBLE,
    ):
        assert search[stage] == 1
        assert ancestors(spans, stage) == [stage, SEARCH_RPC, SEARCH_RPC, Stage.CLIENT_SEARCH]
    # Words that are not kept yet are read to rerank, and what may stand in the answer to assemble.
    assert search[Stage.SEARCH_FETCH] == 2

    logged = capfd.readouterr().err
    assert WORD not in logged
    assert not any(WORD in str(span.attributes) for span in spans)
    lines = [json.loads(line) for line in logged.splitlines()]
    written = next(line for line in lines if line.get("stage") == Stage.INDEX_WRITE)
    assert written["duration_ms"] > 0
    assert len(written["trace_id"]) == 32
    assert not logging.getLogger("indexer").handlers
