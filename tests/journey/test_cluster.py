"""The services apart, as on a cluster: etcd, a Chroma server, an indexer and a query server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.installation import SLUICE
from tests.integration.chroma_server import chroma_server
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNBOOKS = Path(__file__).resolve().parents[2] / "samples" / "runbooks"
READY_S = 60


class Cluster:
    """One settings file that every process reads, and the commands of a person."""

    def __init__(self, folder: Path, etcd: Etcd, chroma_port: int) -> None:
        self.folder = folder
        self.file = folder / "sluice.yaml"
        self.settings = {
            "coordinator": {"kind": "etcd", "endpoints": [etcd.endpoint]},
            "chroma": {"mode": "server", "port": chroma_port},
            "indexer": {"server": {"listen": "127.0.0.1:0"}},
            "query": {"server": {"listen": "127.0.0.1:0"}},
            "ingest": {"state_uri": str(folder / "state")},
        }
        self.write()
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.settings))

    @contextmanager
    def serving(self, service: str) -> Iterator[str]:
        """A service as a process; its address. It must end with 0 when it is asked to."""
        log = self.folder / f"{service}.log"
        command = [*SLUICE, "serve", service, "--config", str(self.file)]
        with (
            log.open("wb") as errors,
            subprocess.Popen(command, env=self.environ, stderr=errors) as process,
        ):
            try:
                yield _address(process, log)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0, log.read_text()[-2_000:]
            finally:
                process.kill()

    def sluice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SLUICE, *arguments, "--config", str(self.file), "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def answers(self, question: str) -> list[str]:
        done = self.sluice("search", question, "--collection", "docs")
        assert done.returncode == 0, done.stderr
        return [hit["source_uri"].rpartition("/")[2] for hit in json.loads(done.stdout)["hits"]]


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_S
    while not (found := re.search(r"is ready on (\S+)", log.read_text())):
        assert process.poll() is None, log.read_text()[-2_000:]
        assert time.monotonic() < deadline, "not ready in time"
        time.sleep(0.05)  # a line of a log cannot be awaited
    return found[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd(tmp_path / "etcd"))
        port = stack.enter_context(chroma_server(tmp_path / "chroma"))
        made = Cluster(tmp_path, etcd, port)
        index = stack.enter_context(made.serving("indexer"))
        query = stack.enter_context(made.serving("query"))
        made.settings["client"] = {"target": index, "query_target": query}
        made.write()
        yield made


@pytest.mark.timeout(300)
def test_services_apart_index_answer_and_switch(cluster, tmp_path):
    lake = tmp_path / "lake"
    shutil.copytree(RUNBOOKS, lake)
    first = cluster.sluice("ingest", str(lake), "--collection", "docs")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["indexed"] == len(list(lake.iterdir()))
    assert cluster.answers("both NameNodes are standby")[0] == "namenode-failover.md"

    changed = lake / "rebalance-disks.md"
    changed.write_text("# Zymurgy\n\nThe zymurgy of DataNodes is a short chapter.")
    (lake / "namenode-failover.md").unlink()
    second = json.loads(cluster.sluice("ingest", str(lake), "--collection", "docs").stdout)
    assert (second["updated"], second["deleted"]) == (1, 1)
    assert cluster.answers("zymurgy")[0] == changed.name
    assert "namenode-failover.md" not in cluster.answers("both NameNodes are standby")

    rebuilt = cluster.sluice("ingest", str(lake), "--collection", "docs", "--rebuild", "--activate")
    assert rebuilt.returncode == 0, rebuilt.stderr
    # The query server hears of the switch from etcd alone; nothing is restarted.
    deadline = time.monotonic() + 10
    while (version := _version(cluster)) != 2:
        assert version == 1
        assert time.monotonic() < deadline, "the query server did not follow"
    back = cluster.sluice("collections", "rollback", "docs")
    assert back.returncode == 0, back.stderr
    checks = json.loads(cluster.sluice("doctor").stdout)
    assert all(check["ok"] for check in checks["checks"]), checks


def _version(cluster: Cluster) -> int:
    version: int = json.loads(cluster.sluice("search", "zymurgy", "--collection", "docs").stdout)[
        "index_version"
    ]
    return version
