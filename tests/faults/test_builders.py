"""A builder that stands still loses its build: another takes over, and it can change nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from contextlib import aclosing

import pytest

from client.client import SluiceClient
from client.indexing import Document
from common.errors import Contended, FailedPrecondition
from tests.cluster import HASHING, running_cluster, write_notes

FILES = 800
FREEZE_AT = 10
TTL_S = 2
JOB_S = 120


@pytest.fixture
def lake(tmp_path):
    return write_notes(tmp_path / "lake", FILES)


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    environ = HASHING | {"SLUICE_INGEST__BUILD_TTL_S": str(TTL_S)}
    with running_cluster(folder, "indexer-1", "query-1", environ=environ) as running:
        indexer, query = running.named("indexer") + running.named("query")
        running.configure(client={"target": indexer.address, "query_target": query.address})
        yield running


def rebuild(cluster, lake):
    pipe = subprocess.PIPE
    command = ("ingest", str(lake), "--collection", "docs", "--rebuild", "--activate", "--json")
    return cluster.begin(*command, stdout=pipe, stderr=pipe)


def states(cluster):
    shown = cluster.sluice("collections", "show", "docs")
    assert shown.returncode == 0, shown.stderr
    versions = json.loads(shown.stdout)["versions"]
    return {version["number"]: version["state"] for version in versions}


def plain(records):
    return {chunk: text for chunk, (text, _) in records.items()}


@pytest.mark.timeout(400)
def test_a_frozen_builder_wakes_up_to_an_index_that_is_anothers(cluster, lake):
    assert cluster.sluice("ingest", str(lake), "--collection", "docs").returncode == 0
    with rebuild(cluster, lake) as frozen:
        try:
            deadline = time.monotonic() + JOB_S
            while len(cluster.records("docs", 2)) < FREEZE_AT:
                assert frozen.poll() is None, frozen.communicate()
                assert time.monotonic() < deadline
            frozen.send_signal(signal.SIGSTOP)
            refused = 0
            while True:  # until the lease of the frozen one ends
                with rebuild(cluster, lake) as second:
                    out, told = second.communicate(timeout=JOB_S)
                if second.returncode == 0:
                    break
                assert b"is being built by" in told, told
                refused += 1
                assert time.monotonic() < deadline
            summary = json.loads(out)
            number = summary["index_version"]
            before = plain(cluster.records("docs", 2))
            frozen.send_signal(signal.SIGCONT)
            _, told = frozen.communicate(timeout=JOB_S)
        finally:
            frozen.kill()
    assert frozen.returncode == 1
    assert b"build" in told, told
    assert b"lost" in told, told
    assert plain(cluster.records("docs", 2)) == before
    assert 0 < len(before) < len(plain(cluster.records("docs", 1)))
    assert states(cluster) == {1: "retired", 2: "failed", number: "active"}
    assert plain(cluster.records("docs", number)) == plain(cluster.records("docs", 1))


async def documents(number):
    yield Document(f"file:///late/{number}.md", f"Late text {number}.", version=1)


async def write(client, version, number):
    acknowledgements = client.index_documents(documents(number), collection="docs", version=version)
    async with aclosing(acknowledgements) as stream:
        return [acknowledgement async for acknowledgement in stream]


@pytest.mark.timeout(200)
def test_whatever_a_builder_that_lost_its_lease_tries_is_refused(cluster):
    indexer = cluster.named("indexer")[0].address

    async def scenario():
        async with SluiceClient(indexer) as client:
            await client.create("docs")
            late = await client.begin_version("docs", builder="the late one", ttl_s=TTL_S)
            number = late.version.number
            assert len(await write(client, number, 1)) == 1
            with pytest.raises(Contended, match="the late one"):
                await client.begin_version("docs", builder="the next one")
            async with asyncio.timeout(JOB_S):
                while (await client.describe("docs")).build is not None:  # noqa: ASYNC110 — the lease ends in etcd
                    await asyncio.sleep(0.1)
            with pytest.raises(FailedPrecondition, match="is over"):
                await write(client, number, 2)
            following = await client.begin_version("docs", builder="the next one", ttl_s=30)
            for attempt in (
                write(client, number, 3),
                client.renew_build("docs", number, late.fence),
                client.verify("docs", version=number, fence=late.fence),
                client.activate("docs", number, fence=late.fence),
                client.activate("docs", number, fence=following.fence),
            ):
                with pytest.raises(FailedPrecondition):
                    await attempt
            active = (await client.describe("docs")).active
            assert active is not None
            assert active.version == 1
            version, fence = following.version.number, following.fence
            assert len(await write(client, version, 4)) == 1
            assert (await client.verify("docs", version=version, fence=fence)).passed
            pointer, changed = await client.activate("docs", version, fence=fence)
            assert (pointer.version, changed) == (version, True)
            await client.end_build("docs", version, fence)
            # Ending a build that is another's since, or over, changes nothing.
            await client.end_build("docs", number, late.fence)
            described = await client.describe("docs")
            found = {one.number: (one.state, one.documents) for one in described.versions}
            assert found == {1: ("retired", 0), number: ("failed", 1), version: ("active", 1)}

    asyncio.run(scenario())
