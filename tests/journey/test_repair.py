"""A damaged index on a cluster: found, mended from the store, healed by the next ingest."""

from __future__ import annotations

import asyncio
import json

import pytest

from common.chroma import ChromaSettings, open_chroma
from tests.cluster import running_cluster, write_notes

FILES = 30


@pytest.fixture
def lake(tmp_path):
    return write_notes(tmp_path / "lake", FILES)


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    with running_cluster(folder, "indexer-1", "query-1") as running:
        etcd = {"target": "etcd:///sluice/indexer", "query_target": "etcd:///sluice/query"}
        running.configure(client=etcd)
        yield running


def chunks_of(records, name):
    return sorted(
        (
            chunk
            for chunk, (_, metadata) in records.items()
            if metadata["source_uri"].endswith(f"/{name}")
        ),
        key=lambda chunk: int(chunk.rpartition(":")[2]),
    )


def damage(cluster, records):
    """A document without its head, one without its last chunk, one with a chunk too many."""

    async def delete_and_write():
        chroma = open_chroma(ChromaSettings.model_validate(cluster.settings["chroma"]))
        try:
            opened = await chroma.collection("default.docs.v000001")
            await opened.delete(
                [chunks_of(records, "note-0003.md")[0], chunks_of(records, "note-0007.md")[-1]]
            )
            last = chunks_of(records, "note-0011.md")[-1]
            text, metadata = records[last]
            surplus = last.rpartition(":")[0] + ":999"
            found = await opened.get(ids=[last], include=["embeddings"])
            assert found.embeddings is not None
            await opened.upsert(
                ids=[surplus],
                embeddings=found.embeddings,
                documents=[text],
                metadatas=[metadata],
            )
        finally:
            await chroma.aclose()

    asyncio.run(delete_and_write())


def verified(cluster, *options):
    done = cluster.sluice("collections", "verify", "docs", *options)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.timeout(200)
def test_damage_is_named_mended_and_healed_by_the_next_ingest(cluster, lake):
    ingest = ("ingest", str(lake), "--collection", "docs")
    assert cluster.sluice(*ingest).returncode == 0
    assert verified(cluster)[0] == 0
    whole = cluster.records("docs")
    damage(cluster, whole)

    code, found = verified(cluster)
    kinds = {fault["source_uri"].rpartition("/")[2]: fault["kind"] for fault in found["faults"]}
    assert code == 1
    assert kinds == {
        "note-0003.md": "incomplete",
        "note-0007.md": "incomplete",
        "note-0011.md": "surplus",
    }
    code, found = verified(cluster, "--repair")
    assert code == 1
    left = {fault["source_uri"].rpartition("/")[2] for fault in found["faults"]}
    assert left == {"note-0007.md"}
    assert found["manifests"]["forgotten"] == 2
    mended = cluster.records("docs")
    assert chunks_of(mended, "note-0003.md") == []
    assert chunks_of(mended, "note-0007.md") == chunks_of(whole, "note-0007.md")[:-1]
    assert chunks_of(mended, "note-0011.md") == chunks_of(whole, "note-0011.md")

    healing = json.loads(cluster.sluice(*ingest).stdout)
    assert healing["files_opened"] == 2
    assert cluster.records("docs") == whole
    code, found = verified(cluster)
    assert (code, found["ok"], found["faults"]) == (0, True, [])
