"""A real etcd, and query servers announced in it: in this process, or as processes to be killed."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from client.answers import SearchQuery
from client.client import SluiceClient
from common.coordination import CoordinatorSettings, open_coordinator
from tests.integration.coordination.waiting import until
from tests.integration.discovery.query_node import READY, QueryNode
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from common.coordination import Coordinator

QUERY = SearchQuery("why", "docs")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path / "etcd") as running:
        yield running


@pytest.fixture
def settings(etcd: Etcd) -> CoordinatorSettings:
    return CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), timeout_ms=2000)


@pytest.fixture
async def coordinator(settings: CoordinatorSettings) -> AsyncIterator[Coordinator]:
    opened = open_coordinator(settings)
    yield opened
    await opened.aclose()


@pytest.fixture
async def nodes(coordinator: Coordinator) -> AsyncIterator[list[QueryNode]]:
    """Three announced servers of this process."""
    async with AsyncExitStack() as stack:
        made = [QueryNode(number) for number in range(1, 4)]
        for node in made:
            await stack.enter_async_context(node.serving(coordinator))
        yield made


@pytest.fixture
async def client(settings: CoordinatorSettings) -> AsyncIterator[SluiceClient]:
    async with SluiceClient("etcd:///sluice/query", coordinator=settings) as opened:
        yield opened


class Load:
    """Tasks that search without pause; what they were answered, by the server's number."""

    def __init__(self, client: SluiceClient) -> None:
        self._client = client
        self.answered: dict[int, int] = {}
        self.failed: list[Exception] = []
        self._stopped = False

    async def more(self, count: int) -> None:
        """Wait for that many more calls to end."""
        wanted = self._ended + count
        await until(lambda: self._ended >= wanted)

    @property
    def _ended(self) -> int:
        return sum(self.answered.values()) + len(self.failed)

    async def _search(self) -> None:
        while not self._stopped:
            try:
                number = (await self._client.search(QUERY)).index_version
            except Exception as error:  # noqa: BLE001  # whatever it is, the call failed
                self.failed.append(error)
            else:
                self.answered[number] = self.answered.get(number, 0) + 1

    @asynccontextmanager
    async def running(self, tasks: int = 8) -> AsyncIterator[Load]:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(self._search())
            try:
                yield self
            finally:
                self._stopped = True


@asynccontextmanager
async def node_processes(etcd: Etcd, count: int) -> AsyncIterator[dict[str, Process]]:
    """By address, servers as processes, once all are announced."""
    started: list[Process] = []
    module = "tests.integration.discovery.query_node"
    try:
        for number in range(1, count + 1):
            command = (sys.executable, "-m", module, etcd.endpoint, str(number))
            started.append(await asyncio.create_subprocess_exec(*command, stderr=PIPE))
        async with asyncio.timeout(60):
            yield {await _address(process): process for process in started}
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _address(process: Process) -> str:
    assert process.stderr is not None
    while not (line := await process.stderr.readline()).startswith(READY):
        assert line, "the server ended before it was ready"
    return line.removeprefix(READY).decode().strip()
