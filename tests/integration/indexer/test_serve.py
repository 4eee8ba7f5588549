"""The composition root: one process serves, registers itself, and leaves in order."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from common.chroma import ChromaSettings
from common.config import load
from common.coordination import CoordinatorSettings, IndexRegistry, open_coordinator
from common.embedding import EmbeddingSettings
from common.rpc import ServerSettings, open_channel
from common.telemetry import Telemetry, TelemetrySettings
from indexer.serve import IndexerConfig, run
from indexer.settings import IndexerSettings
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from tests.integration.etcd import Etcd
from tests.integration.indexer.conftest import document

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.indexer.conftest import Running


def config(tmp_path: Path) -> IndexerConfig:
    return IndexerConfig(
        coordinator=CoordinatorSettings(path=tmp_path / "coordinator"),
        chroma=ChromaSettings(mode="embedded", path=tmp_path / "chroma"),
        embedding=EmbeddingSettings(kind="hashing"),
        indexer=IndexerSettings(server=ServerSettings(listen="127.0.0.1:0")),
    )


async def test_serves_both_services_until_it_is_told_to_stop(tmp_path: Path) -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(run(config(tmp_path), stop=stop, on_ready=ready.set_result))
    address = await asyncio.wait_for(ready, 20)
    async with open_channel(address) as channel:
        stub = collections_pb2_grpc.CollectionsServiceStub(channel)
        request = collections_pb2.CreateCollectionRequest(collection="docs")
        assert (await stub.CreateCollection(request)).created
    stop.set()
    await asyncio.wait_for(serving, 20)
    # everything was let go: another process could open it now, and finds what was made
    coordinator = open_coordinator(CoordinatorSettings(path=tmp_path / "coordinator"))
    registry = IndexRegistry(coordinator)
    assert (await registry.version("default", "docs", 0)).number == 1
    assert await registry.instances("indexer") == ()
    await coordinator.aclose()


async def test_on_every_address_it_is_announced_by_one_that_answers(tmp_path: Path) -> None:
    with Etcd(tmp_path / "etcd") as etcd:
        shared = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,))
        everywhere = config(tmp_path).model_copy(
            update={
                "coordinator": shared,
                "indexer": IndexerSettings(server=ServerSettings(listen="0.0.0.0:0")),
            }
        )
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(run(everywhere, stop=stop, on_ready=ready.set_result))
        coordinator = open_coordinator(shared)
        try:
            port = (await asyncio.wait_for(ready, 20)).rpartition(":")[2]
            (instance,) = await IndexRegistry(coordinator).instances("indexer")
            assert instance.address == f"127.0.0.1:{port}"
        finally:
            await coordinator.aclose()
            stop.set()
            await asyncio.wait_for(serving, 20)


def test_the_command_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    environ = os.environ | {
        "SLUICE_COORDINATOR__PATH": str(tmp_path / "coordinator"),
        "SLUICE_CHROMA__MODE": "embedded",
        "SLUICE_CHROMA__PATH": str(tmp_path / "chroma"),
        "SLUICE_EMBEDDING__KIND": "hashing",
    }
    program = "import typer; from indexer.commands import serve_command; typer.run(serve_command)"
    command = [sys.executable, "-c", program, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            assert any(re.search(r"is ready on 127\.0\.0\.1:\d+", line) for line in lines)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_command_line_loads_nothing_heavy() -> None:
    program = (
        "import sys, indexer.commands as commands; assert commands.serve_command;"
        "sys.exit(bool({'grpc', 'chromadb', 'llama_index', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_limits_must_fit_into_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="max_document_bytes"):
        IndexerSettings(max_batch_bytes=2**20, max_document_bytes=2**21)
    with pytest.raises(ValidationError, match="max_message_bytes"):
        IndexerSettings(max_batch_bytes=2**24)
    file = tmp_path / "sluice.yaml"
    file.write_text("indexer: {slice_chunks: 64}\nquery: {}\n")
    loaded = load(IndexerConfig, file=file, environ={"SLUICE_CHUNKING__CHUNK_TOKENS": "128"})
    assert (loaded.indexer.slice_chunks, loaded.chunking.chunk_tokens) == (64, 128)


async def test_a_stream_leaves_a_span_for_each_stage_under_its_own(running: Running) -> None:
    exporter = InMemorySpanExporter()
    await running.create()
    async with Telemetry.open("indexer", TelemetrySettings(), {}, span_exporter=exporter):
        await running.send([document("a")])
        await running.send([document("a", 2, "anew. " * 40)])
    spans = exporter.get_finished_spans()
    roots = [span for span in spans if span.name.endswith("IndexService/IndexDocuments")]
    for root in (span for span in roots if span.kind.name == "SERVER"):
        assert root.context is not None
        children = [
            span.name
            for span in spans
            if span.parent and span.parent.span_id == root.context.span_id
        ]
        assert children[:4] == ["index.reconcile", "index.chunk", "index.embed", "index.write"]
    assert sum(span.kind.name == "SERVER" for span in roots) == 2
    assert sum(span.name == "index.delete" for span in spans) == 1
    assert not any("text of its own" in str(span.attributes) for span in spans)
