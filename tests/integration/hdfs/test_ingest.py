"""`sluice ingest` over a real HDFS: only what changed is read, and nothing is lost on the way."""

from pathlib import Path

import pytest

from tests.installation import Installation
from tests.integration.hdfs.lake import Lake
from tests.integration.hdfs.texts import small_files

SAMPLES = Path(__file__).resolve().parents[3] / "samples"


@pytest.fixture
def installation(dfs, tmp_path):
    installation = Installation(tmp_path / "sluice", dfs.environ)
    with installation.running():
        yield installation


def source_uris(installation: Installation) -> set[str]:
    return {metadata["source_uri"] for _, metadata in installation.records().values()}


@pytest.mark.timeout(300)
def test_samples_are_indexed_and_found(dfs, installation):
    lake = Lake(dfs)
    names = lake.copy(SAMPLES)
    # The state lies in HDFS, too: nothing is kept on this machine.
    installation.environ["SLUICE_INGEST__STATE_URI"] = f"{dfs.uri}/state-of-samples"

    first = installation.ingest(lake.uri)
    assert (first["indexed"], first["dead_letters"]) == (len(names), 0)
    answer = installation.sluice(
        *("search", "how do I replace a failed NameNode", "--collection", "docs", "--json"),
        *("--target", installation.environ["SLUICE_CLIENT__TARGET"]),
    )
    assert f"{lake.uri}/runbooks/" in answer.stdout
    mark = lake.mark()
    again = installation.ingest(lake.uri)
    assert (again["unchanged"], again["files_opened"]) == (len(names), 0)
    assert lake.opened(mark) == []

    installation.stop()
    assert source_uris(installation) == {f"{lake.uri}/{name}" for name in names}


@pytest.mark.timeout(300)
def test_a_second_run_reads_exactly_what_changed(dfs, installation):
    lake = Lake(dfs)
    files = small_files(200)
    lake.write_all(files)
    assert installation.ingest(lake.uri)["indexed"] == len(files)

    names = sorted(files)
    changed = {name: f"# Changed\n\nNow it says something else: {name}\n" for name in names[:10]}
    added = {f"new/added-{number}.md": f"# Added {number}\n\nA new file.\n" for number in range(3)}
    removed = names[10:15]
    mark = lake.mark()
    lake.write_all(changed | added)
    lake.delete(removed)
    summary = installation.ingest(lake.uri)

    assert sorted(lake.opened(mark)) == sorted([*changed, *added])
    assert {key: summary[key] for key in ("indexed", "updated", "deleted", "unchanged")} == {
        "indexed": 3,
        "updated": 10,
        "deleted": 5,
        "unchanged": 185,
    }
    installation.stop()
    expected = (set(files) | set(added)) - set(removed)
    assert source_uris(installation) == {f"{lake.uri}/{name}" for name in expected}
