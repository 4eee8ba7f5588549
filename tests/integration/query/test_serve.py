"""The query server as a process: it starts from its settings, answers, and stops when told."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from client.cli import app
from common.rpc import ChannelSettings, GrpcServer, ServerSettings, open_channel
from query.serve import open_query
from query.service import SERVICE
from query.settings import QuerySettings
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.integration.query.written_index import Document

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from common.chroma import Chroma
    from common.coordination import Coordinator
    from tests.integration.query.written_index import WrittenIndex

COMMAND = "import typer; from query.commands import serve_command; typer.run(serve_command)"
READY = b"sluice query is ready on "


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sluice.yaml"
    file.write_text(
        f"""
coordinator: {{kind: embedded, path: {tmp_path}/coordinator}}
chroma: {{mode: embedded, path: {tmp_path}/chroma}}
embedding: {{kind: hashing}}
query: {{server: {{listen: "127.0.0.1:1"}}}}
indexer: {{max_streams: 3}}
"""
    )
    return file


async def test_it_answers_until_sigterm(config: Path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND, "--config", str(config), "--listen", "127.0.0.1:0"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while not (line := await process.stderr.readline()).startswith(READY):
                assert line, "the server ended before it was ready"
        async with open_channel(line.removeprefix(READY).decode().strip()) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            query = query_pb2_grpc.QueryServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await query.Search(query_pb2.SearchRequest(collection="docs", text="x"), timeout=10)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            _, rest = await process.communicate()
        assert process.returncode == 0, rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Held:
    """An embedder whose queries wait until the test lets them go."""

    def __init__(self, index: WrittenIndex) -> None:
        self.spec = index.embedder.spec
        self._embedder = index.embedder
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        self.begun.set()
        await self.go_on.wait()
        return await self._embedder.embed_query(text)


async def test_a_full_server_refuses_a_search_before_it_reads_it(
    index: WrittenIndex, chroma: Chroma, coordinator: Coordinator
):
    await index.holding(Document("file:///a", ["namenode quota"]))
    held = Held(index)
    settings = QuerySettings(max_searches=1, max_waiting=0)
    request = query_pb2.SearchRequest(collection="docs", text="quota")
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        bindings = await open_query(
            stack,
            query=settings,
            chroma=chroma,
            coordinator=coordinator,
            embedder=held,  # type: ignore[arg-type]  # as much of one as a search needs
        )
        server = await stack.enter_async_context(
            GrpcServer.open(ServerSettings(listen="127.0.0.1:0"), bindings)
        )
        once = ChannelSettings(max_attempts=1)
        channel = await stack.enter_async_context(open_channel(server.address, once))
        first = asyncio.ensure_future(query_pb2_grpc.QueryServiceStub(channel).Search(request))
        await held.begun.wait()
        raw: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        raw = channel.unary_unary(f"/{SERVICE}/Search")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(b"no message")
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        held.go_on.set()
        assert len((await first).hits) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("query: {top: 3}", "query.top: no such key"),
        ("query: {deadline_s: 0}", "query.deadline_s: Input should be greater than 0"),
        ("query: {rerank: {alpha: 1.5}}", "query.rerank.alpha: Input should be less than or equal"),
        ("query: {rerank: {title: -1}}", "query.rerank.title: Input should be greater than or"),
        ("query: {cross_encoder: {}}", "query.cross_encoder.folder: "),
        ("chroma: {mode: server, port: 1}", "no Chroma server answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(tmp_path: Path, setting: str, message: str):
    file = tmp_path / "sluice.yaml"
    file.write_text(setting)
    result = CliRunner().invoke(app, ["serve", "query", "--config", str(file)])
    assert result.exit_code == 1, result.output
    assert f"error: {message}" in result.output
