"""The life of index versions on a cluster, as a person and as a program lead it."""

from __future__ import annotations

import asyncio
import json

import pytest

from client.answers import SearchQuery
from client.client import SluiceClient
from client.indexing import Document
from common.errors import DeadlineExceeded
from tests.cluster import running_cluster

TEXTS = {
    "blocks.md": "A missing block has no live replica on any data node.",
    "quotas.md": "A quota bounds how many names a directory may hold.",
    "trash.md": "Deleted files stay in the trash until the next checkpoint of it.",
}
QUESTION = "what is a lease"


@pytest.fixture
def lake(tmp_path):
    root = tmp_path / "lake"
    root.mkdir()
    for name, text in TEXTS.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    with running_cluster(folder, "indexer-1", "query-1") as running:
        etcd = {"target": "etcd:///sluice/indexer", "query_target": "etcd:///sluice/query"}
        running.configure(client=etcd)
        yield running


def told(done, code=0):
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def version(cluster, number):
    shown = told(cluster.sluice("collections", "show", "docs"))
    (found,) = [one for one in shown["versions"] if one["number"] == number]
    return shown["active"]["version"], found


@pytest.mark.timeout(200)
def test_a_version_that_fails_its_golden_queries_is_not_activated_unless_forced(
    cluster, lake, tmp_path
):
    golden = tmp_path / "golden.jsonl"
    cases = [(TEXTS["blocks.md"], "blocks.md"), (QUESTION, "leases.md")]
    lines = (json.dumps({"query": query, "expected": source}) for query, source in cases)
    golden.write_text("\n".join(lines))
    ingest = ("ingest", str(lake), "--collection", "docs")
    told(cluster.sluice(*ingest))

    built = told(
        cluster.sluice(*ingest, "--rebuild", "--activate", "--golden", str(golden)), code=1
    )
    assert (built["index_version"], built["activated"]) == (2, False)
    assert [miss["query"] for miss in built["misses"]] == [QUESTION]
    active, found = version(cluster, 2)
    assert (active, found["state"], found["verdict"]["passed"]) == (1, "ready", False)
    assert any(QUESTION in finding for finding in found["verdict"]["findings"])

    # Looking at it without golden queries does not make it fit.
    told(cluster.sluice("collections", "verify", "docs", "--version", "2"))
    refused = cluster.sluice("collections", "activate", "docs", "2")
    assert refused.returncode == 1
    assert QUESTION in refused.stderr
    hits = told(cluster.sluice("search", "quota", "--collection", "docs", "--index-version", "2"))
    assert (hits["index_version"], len(hits["hits"])) == (2, 3)

    told(cluster.sluice("collections", "activate", "docs", "2", "--force"))
    active, found = version(cluster, 2)
    assert (active, found["state"]) == (2, "active")
    assert "@" in found["forced"]["by"]
    told(cluster.sluice("collections", "rollback", "docs"))
    assert version(cluster, 1)[0] == 1
    told(cluster.sluice("collections", "rollback", "docs", "--to", "2"))
    assert version(cluster, 2)[0] == 2


async def one(text):
    yield Document("file:///note.md", text, version=1)


@pytest.mark.timeout(200)
def test_a_program_reads_what_it_wrote_by_the_token_of_the_acknowledgement(cluster):
    async def scenario():
        etcd = "etcd:///sluice/indexer"
        async with SluiceClient(etcd, coordinator=cluster.coordinator) as client:
            await client.create("docs")
            begun = await client.begin_version("docs", builder="a program", ttl_s=60)
            number, fence = begun.version.number, begun.fence
            writing = client.index_documents(one("Zymurgy."), collection="docs", version=number)
            (written,) = [acknowledged async for acknowledged in writing]
            query = SearchQuery("Zymurgy", "docs", at_least=written.consistency_token)
            with pytest.raises(DeadlineExceeded):
                await client.search(query, timeout_s=1)
            waiting = asyncio.create_task(client.search(query, timeout_s=30))
            assert (await client.verify("docs", version=number, fence=fence)).passed
            assert not waiting.done()
            await client.activate("docs", number, fence=fence)
            answer = await waiting
            assert (answer.index_version, len(answer.hits)) == (number, 1)
            await client.end_build("docs", number, fence)

    asyncio.run(scenario())
