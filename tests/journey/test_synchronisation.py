"""A folder and its index stay in line: changed, removed and unchanged files, by real processes.

Writes are counted where they end: each one Chroma takes gets the next number in its log.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.installation import Installation

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    made = Installation(tmp_path_factory.mktemp("installation"))
    with made.running():
        yield made


@pytest.fixture
def lake(tmp_path):
    folder = tmp_path / "lake"
    shutil.copytree(SAMPLES / "runbooks", folder)
    return folder


# The last number of a write to documents: that of words, counted behind them, goes elsewhere.
LAST_WRITE = """
    WITH own AS (SELECT id FROM collections WHERE name NOT LIKE '%.words')
    SELECT max(seq_id) FROM (
        SELECT seq_id FROM embeddings_queue JOIN own ON topic LIKE '%' || own.id
        UNION ALL
        SELECT seq_id FROM max_seq_id JOIN segments ON segment_id = segments.id
            JOIN own ON collection = own.id
    )
"""


def writes(installation: Installation) -> int:
    """Number of the last write of documents, deletions included."""
    path = installation.data / "chroma" / "chroma.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return database.execute(LAST_WRITE).fetchone()[0] or 0


def sources(installation: Installation, question: str) -> list[str]:
    done = installation.sluice(
        "search", question, "--collection", "docs", "-k", "100", "--candidates", "500", "--json"
    )
    assert done.returncode == 0, done.stderr
    return [hit["source_uri"] for hit in json.loads(done.stdout)["hits"]]


def test_a_folder_and_its_index_stay_in_line(installation, lake):
    first = installation.ingest(lake)
    files = len(list(lake.iterdir()))
    assert (first["indexed"], first["listed"]) == (files, files)
    count = writes(installation)
    assert count >= first["chunks"] > 0

    unchanged = installation.ingest(lake)
    assert (unchanged["unchanged"], unchanged["files_opened"]) == (files, 0)
    assert writes(installation) == count

    changed = lake / "namenode-failover.md"
    changed.write_text("# Zymurgy\n\nThe zymurgy of NameNodes is a short chapter.")
    updated = installation.ingest(lake)
    assert (updated["updated"], updated["indexed"], updated["files_opened"]) == (1, 0, 1)
    assert sources(installation, "zymurgy")[0] == changed.as_uri()
    assert sources(installation, "zymurgy").count(changed.as_uri()) == 1  # old chunks are gone

    changed.unlink()
    removed = installation.ingest(lake)
    assert (removed["deleted"], removed["files_opened"]) == (1, 0)
    assert changed.as_uri() not in sources(installation, "zymurgy")


def test_touching_a_file_embeds_nothing(installation, lake):
    installation.ingest(lake)
    (lake / "rebalance-disks.md").touch()
    touched = installation.ingest(lake)
    assert (touched["files_opened"], touched["updated"], touched["indexed"]) == (1, 0, 0)


def test_a_lost_manifest_costs_reading_and_writes_nothing(installation, lake):
    installation.ingest(lake)
    count = writes(installation)
    removed = lake / "rebalance-disks.md"
    removed.unlink()
    shutil.rmtree(installation.home / "state")
    again = installation.ingest(lake)
    assert again["files_opened"] == len(list(lake.iterdir()))
    assert (again["indexed"], again["updated"], again["deleted"]) == (0, 0, 1)
    assert writes(installation) > count  # the deletion, and nothing else
    assert removed.as_uri() not in sources(installation, "rebalancing disks")


def test_a_file_that_cannot_be_read_as_text_is_a_dead_letter(installation, lake):
    (lake / "broken.pdf").write_bytes(b"%PDF-1.7\nnot a document")
    summary = installation.ingest(lake, expect=3)
    assert summary["dead_letters"] == 1
    listed = installation.sluice("dead-letters", "list", "--collection", "docs", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "broken.pdf" in listed.stdout
