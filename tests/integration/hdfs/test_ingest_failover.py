"""The active name node changes, or dies, in the middle of a job: nothing is lost or begun again."""

import json
import time

import pytest

from tests.installation import Installation
from tests.integration.hdfs.lake import Lake
from tests.integration.hdfs.texts import small_files

FILES = 400
WAIT_S = 120


def wait_for_reads(lake: Lake, count: int) -> None:
    """Wait until the job has opened so many files."""
    deadline = time.monotonic() + WAIT_S
    while len(lake.opened()) < count:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.05)  # a log cannot be awaited


@pytest.mark.timeout(400)
@pytest.mark.parametrize("dies", [False, True], ids=["failover", "the active one dies"])
def test_a_failover_in_the_middle_of_a_job(ha_dfs, tmp_path, dies):
    lake = Lake(ha_dfs)
    files = small_files(FILES)
    lake.write_all(files)
    installation = Installation(tmp_path / "sluice", ha_dfs.environ)
    # Reading keeps pace with the indexer, so that most of it comes after the failover.
    installation.environ["SLUICE_INGEST__STREAM__MAX_UNACKNOWLEDGED_DOCUMENTS"] = "16"
    with installation.running():
        with installation.begin_ingest(lake.uri) as job:
            wait_for_reads(lake, FILES // 5)
            active = ha_dfs.command("active")
            if dies:
                ha_dfs.command("kill-namenode", active)
            assert ha_dfs.command("failover") != active
            read_before = len(lake.opened())
            out, _ = job.communicate(timeout=WAIT_S)
        if dies:
            ha_dfs.command("restart-namenode", active)
        assert job.returncode == 0, (installation.home / "ingest.log").read_text()[-4_000:]
        summary = json.loads(out)

    assert read_before < FILES * 4 // 5
    assert (summary["indexed"], summary["dead_letters"]) == (FILES, 0)
    records = installation.records().values()
    assert {metadata["source_uri"] for _, metadata in records} == {
        f"{lake.uri}/{name}" for name in files
    }
    assert len(lake.opened()) == FILES
