"""One of two indexers is killed in the middle of a job: nothing is lost, nothing is twice."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from common.chroma import ChromaSettings, open_chroma
from common.errors import NotFound
from tests.installation import SLUICE
from tests.integration.chroma_server import chroma_server
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = 800
KILL_AT = 10
READY_S = 60
JOB_S = 240


class Services:
    """etcd, Chroma and what is started on them; commands of a person."""

    def __init__(self, folder: Path, etcd: Etcd, chroma_port: int) -> None:
        self._folder = folder
        self._chroma = ChromaSettings(mode="server", port=chroma_port)
        self._settings = folder / "sluice.yaml"
        settings = {
            "coordinator": {"kind": "etcd", "endpoints": [etcd.endpoint]},
            "chroma": {"mode": "server", "port": chroma_port},
            "indexer": {"server": {"listen": "127.0.0.1:0"}, "instance_ttl_s": 2},
            # Nobody is there: who answers is known from etcd alone.
            "client": {"target": "127.0.0.1:1"},
            "ingest": {"state_uri": str(folder / "state")},
        }
        self._settings.write_text(yaml.safe_dump(settings))
        own = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
        # What becomes of a document is the same with any embedder; this one has no model to load.
        self._environ = own | {"SLUICE_EMBEDDING__KIND": "hashing"}

    @contextmanager
    def indexers(self, *names: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Indexers as processes, once all take requests."""
        with ExitStack() as stack:
            processes = []
            for name in names:
                errors = stack.enter_context((self._folder / name).open("wb"))
                process = stack.enter_context(self._begin("serve", "indexer", stderr=errors))
                stack.callback(process.kill)
                processes.append(process)
            deadline = time.monotonic() + READY_S
            for name, process in zip(names, processes, strict=True):
                log = self._folder / name
                while not re.search(r"is ready on \S+", log.read_text()):
                    assert process.poll() is None, log.read_text()[-2_000:]
                    assert time.monotonic() < deadline, "not ready in time"
                    time.sleep(0.05)  # a line of a log cannot be awaited
            yield processes

    @contextmanager
    def ingest(self, lake: Path, collection: str) -> Iterator[subprocess.Popen[bytes]]:
        """A job that has begun."""
        command = ("ingest", str(lake), "--collection", collection, "--json")
        pipe = subprocess.PIPE
        with self._begin(*command, stdout=pipe, stderr=pipe) as process:
            try:
                yield process
            finally:
                process.kill()

    def records(self, collection: str) -> dict[str, tuple[Any, Any]]:
        """Text and metadata of every chunk, by its id; nothing if there is no collection yet."""

        async def read() -> dict[str, tuple[Any, Any]]:
            chroma = open_chroma(self._chroma)
            try:
                opened = await chroma.collection(f"default.{collection}.v000001")
                found = await opened.get(include=["documents", "metadatas"])
            except NotFound:
                return {}
            finally:
                await chroma.aclose()
            texts, metadatas = found.documents or [], found.metadatas or []
            return dict(zip(found.ids, zip(texts, metadatas, strict=True), strict=True))

        return asyncio.run(read())

    def _begin(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        command = [*SLUICE, *arguments, "--config", str(self._settings)]
        return subprocess.Popen(command, env=self._environ, **streams)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd(tmp_path / "etcd"))
        port = stack.enter_context(chroma_server(tmp_path / "chroma"))
        yield Services(tmp_path, etcd, port)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    for number in range(FILES):
        text = " ".join(f"Block {number * step} has replicas." for step in range(1, 30))
        (folder / f"{number:04}.md").write_text(f"# Report {number}\n\n{text}\n")
    return folder


def finished(job: subprocess.Popen[bytes]) -> tuple[dict[str, Any], str]:
    """The summary of a job that must end with 0, and its log."""
    out, log = job.communicate(timeout=JOB_S)
    assert job.returncode == 0, log.decode()[-4_000:]
    return json.loads(out), log.decode()


@pytest.mark.timeout(600)
def test_a_killed_indexer_loses_nothing_and_doubles_nothing(services, lake):
    with services.indexers("first.log", "second.log") as (victim, _):
        with services.ingest(lake, "docs") as job:
            deadline = time.monotonic() + JOB_S
            while len(documents(services.records("docs"))) < KILL_AT:
                assert job.poll() is None, job.communicate()
                assert time.monotonic() < deadline
            victim.kill()
            summary, log = finished(job)
        assert "left out until it answers again" in log, "it was killed too late"
        assert (summary["documents"], summary["dead_letters"]) == (FILES, 0)
        with services.ingest(lake, "clean") as job:
            summary, _ = finished(job)
        assert summary["documents"] == FILES
    survived, clean = services.records("docs"), services.records("clean")
    assert survived == clean
    assert len(documents(clean)) == FILES


def documents(records: dict[str, tuple[Any, Any]]) -> set[str]:
    return {metadata["document_id"] for _, metadata in records.values()}
