"""The cluster without containers: what its demo shows is so, its checks fail, nothing is left."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_S = 90
END_S = 200
# What becomes of processes is the same with any embedder; this one has no model to load.
HASHING = {"SLUICE_EMBEDDING__KIND": "hashing"}


class ClusterSaid(Exception):
    """A command failed; what it said."""


@pytest.fixture
def start(tmp_path):
    """Starts a program of deploy/local; all that it starts in turn bears the test's folder."""
    started = []

    def begin(program, *arguments, **environ):
        process = subprocess.Popen(
            [sys.executable, "-m", f"deploy.local.{program}", *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=END_S)
    assert until_nothing_runs(tmp_path) == []


def until_nothing_runs(folder):
    """Who still runs when bounded time is over: SIGKILL takes a moment to come down to the last."""
    deadline_s = time.monotonic() + 10
    while (left := processes_of(folder)) and time.monotonic() < deadline_s:
        time.sleep(0.05)  # of others' children nobody is told
    return left


def processes_of(folder):
    """The command lines of processes that have the folder in their variables."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


@pytest.mark.timeout(300)
def test_the_demo_shows_that_answers_go_on(start, tmp_path):
    demo = start("demo", "--python", sys.executable)
    out, _ = demo.communicate(timeout=END_S)
    assert demo.returncode == 0, out[-4_000:]
    assert "indexer-1 was ended by SIGKILL\nquery-1 was ended by SIGKILL" in out
    assert "an indexer is left out until it answers again" in out
    assert "60 documents" in out
    phases = {
        row[1].strip(): tuple(map(int, row.group(2, 3, 4)))
        for row in re.finditer(r"^(.{58}) +(\d+) +(\d+) +(\d+) +\d+ ms$", out, re.MULTILINE)
    }
    killed = phases["indexer-1 and query-1 were killed under a second ingest"]
    assert killed[0] >= 20
    assert killed[1] == 0
    _, failed, stale = phases["etcd was away"]
    assert (failed, stale > 0) == (0, True)
    assert phases["Chroma was away"][1] > 0
    assert phases["Chroma was started again"][:2] == (20, 0)
    assert until_nothing_runs(tmp_path) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(300)
def test_the_demo_fails_where_answers_do_not_go_on(start, tmp_path):
    demo = start(
        "demo", "--python", sys.executable, "--kill", "query-1", "--kill", "query-2", **HASHING
    )
    out, _ = demo.communicate(timeout=END_S)
    assert demo.returncode == 1, out[-4_000:]
    assert re.search(
        r"error: while query-1 and query-2 were killed under a second ingest a search failed: "
        r"UNAVAILABLE: no server answers at ",
        out,
    ), out[-4_000:]
    assert until_nothing_runs(tmp_path) == []


@pytest.mark.timeout(120)
def test_an_interrupted_demo_leaves_nothing(start, tmp_path):
    demo = start("demo", "--python", sys.executable, **HASHING)
    until_told(demo, "etcd is ready")
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=END_S)
    assert demo.returncode == 130
    assert until_nothing_runs(tmp_path) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_a_cluster_is_told_what_to_do_and_leaves_nothing_when_it_is_killed(start, tmp_path):
    home = str(tmp_path / "home")
    cluster = start("cluster", "up", "--home", home, "--python", sys.executable, **HASHING)
    until_told(cluster, "The cluster is ready")
    with pytest.raises(ClusterSaid, match=r"a cluster runs in .* already; name another --home"):
        ask("up", "--python", sys.executable, "--home", home)

    ask("kill", "query-1", "chroma", "--home", home)
    members = json.loads(ask("status", "--json", "--home", home))["members"]
    assert {name for name, told in members.items() if told["answers"]} == {
        *("etcd", "indexer-1", "indexer-2", "query-2")
    }
    assert members["query-1"]["state"] == "was ended by SIGKILL"
    with pytest.raises(ClusterSaid, match="chroma does not run"):
        ask("kill", "chroma", "--home", home)
    assert ask("start", "chroma", "--home", home).startswith("chroma is ready on ")
    again = json.loads(ask("status", "--json", "--home", home))["members"]["chroma"]
    assert (again["answers"], again["address"]) == (True, members["chroma"]["address"])

    assert len(processes_of(tmp_path)) == 6, "the cluster itself and five members"
    cluster.kill()
    assert until_nothing_runs(tmp_path) == []
    with pytest.raises(ClusterSaid, match="no cluster runs in"):
        ask("status", "--home", home)


def test_a_member_that_does_not_start_shows_the_end_of_its_log(start, tmp_path):
    etcd = tmp_path / "etcd"
    etcd.write_text("#!/bin/sh\necho the disk is full\nexit 7\n")
    etcd.chmod(0o755)
    home = str(tmp_path / "home")
    cluster = start("cluster", "up", "--home", home, "--python", sys.executable, ETCD=str(etcd))
    out, _ = cluster.communicate(timeout=60)
    assert cluster.returncode == 1
    assert "error: etcd ended with status 7; the end of" in out
    assert "the disk is full" in out
    assert until_nothing_runs(tmp_path) == []


def ask(*arguments):
    """Run a command from another terminal; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local.cluster", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=END_S,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterSaid(done.stderr)
    return done.stdout


def until_told(process, words):
    """Read what a program prints up to these words; one that hangs is killed."""
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        told = []
        for line in process.stdout:
            told.append(line)
            if words in line:
                return
        pytest.fail(f"it ended without {words!r}:\n{''.join(told)}")
    finally:
        timer.cancel()
