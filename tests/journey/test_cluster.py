"""The services apart, as on a cluster: etcd, a Chroma server, an indexer and a query server."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster import Cluster

RUNBOOKS = Path(__file__).resolve().parents[2] / "samples" / "runbooks"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    # With the embedder that a person has: what is found is looked at.
    with running_cluster(tmp_path, "indexer", "query", environ={}) as running:
        index, query = (running.services[name].address for name in ("indexer", "query"))
        running.configure(client={"target": index, "query_target": query})
        yield running


@pytest.mark.timeout(300)
def test_services_apart_index_answer_and_switch(cluster, tmp_path):
    lake = tmp_path / "lake"
    shutil.copytree(RUNBOOKS, lake)
    first = cluster.sluice("ingest", str(lake), "--collection", "docs")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["indexed"] == len(list(lake.iterdir()))
    assert answers(cluster, "both NameNodes are standby")[0] == "namenode-failover.md"

    changed = lake / "rebalance-disks.md"
    changed.write_text("# Zymurgy\n\nThe zymurgy of DataNodes is a short chapter.")
    (lake / "namenode-failover.md").unlink()
    second = json.loads(cluster.sluice("ingest", str(lake), "--collection", "docs").stdout)
    assert (second["updated"], second["deleted"]) == (1, 1)
    assert answers(cluster, "zymurgy")[0] == changed.name
    assert "namenode-failover.md" not in answers(cluster, "both NameNodes are standby")

    rebuilt = cluster.sluice("ingest", str(lake), "--collection", "docs", "--rebuild", "--activate")
    assert rebuilt.returncode == 0, rebuilt.stderr
    # The query server hears of the switch from etcd alone; nothing is restarted.
    deadline = time.monotonic() + 10
    while (version := search(cluster, "zymurgy")["index_version"]) != 2:
        assert version == 1
        assert time.monotonic() < deadline, "the query server did not follow"
    back = cluster.sluice("collections", "rollback", "docs")
    assert back.returncode == 0, back.stderr
    checks = json.loads(cluster.sluice("doctor").stdout)
    assert all(check["ok"] for check in checks["checks"]), checks


def answers(cluster: Cluster, question: str) -> list[str]:
    """Names of the files found, best first."""
    return [hit["source_uri"].rpartition("/")[2] for hit in search(cluster, question)["hits"]]


def search(cluster: Cluster, question: str) -> dict[str, Any]:
    done = cluster.sluice("search", question, "--collection", "docs")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
