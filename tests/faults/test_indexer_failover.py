"""One of two indexers is killed in the middle of a job: nothing is lost, nothing is twice."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster import Cluster

FILES = 800
KILL_AT = 10
JOB_S = 240


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    # Nobody is there: who answers is known from etcd alone.
    nobody = {"target": "127.0.0.1:1"}
    with running_cluster(tmp_path, "indexer-1", "indexer-2", client=nobody) as running:
        yield running


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    for number in range(FILES):
        text = " ".join(f"Block {number * step} has replicas." for step in range(1, 30))
        (folder / f"{number:04}.md").write_text(f"# Report {number}\n\n{text}\n")
    return folder


@contextmanager
def ingest(cluster: Cluster, lake: Path, collection: str) -> Iterator[subprocess.Popen[bytes]]:
    """A job that has begun."""
    command = ("ingest", str(lake), "--collection", collection, "--json")
    pipe = subprocess.PIPE
    with cluster.begin(*command, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(job: subprocess.Popen[bytes]) -> tuple[dict[str, Any], str]:
    """The summary of a job that must end with 0, and its log."""
    out, log = job.communicate(timeout=JOB_S)
    assert job.returncode == 0, log.decode()[-4_000:]
    return json.loads(out), log.decode()


@pytest.mark.timeout(600)
def test_a_killed_indexer_loses_nothing_and_doubles_nothing(cluster, lake):
    with ingest(cluster, lake, "docs") as job:
        deadline = time.monotonic() + JOB_S
        while len(documents(cluster.records("docs"))) < KILL_AT:
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < deadline
        cluster.services["indexer-1"].kill()
        summary, log = finished(job)
    assert "left out until it answers again" in log, "it was killed too late"
    assert (summary["documents"], summary["dead_letters"]) == (FILES, 0)
    with ingest(cluster, lake, "clean") as job:
        summary, _ = finished(job)
    assert summary["documents"] == FILES
    survived, clean = cluster.records("docs"), cluster.records("clean")
    assert survived == clean
    assert len(documents(clean)) == FILES


def documents(records: dict[str, tuple[Any, Any]]) -> set[str]:
    return {metadata["document_id"] for _, metadata in records.values()}
