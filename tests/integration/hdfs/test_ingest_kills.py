"""A job over HDFS, killed again and again, ends in the index of one clean run (I1, I6)."""

import random
import subprocess
from collections import Counter

import pytest

from tests.installation import Installation, differences
from tests.integration.hdfs.lake import Lake
from tests.integration.hdfs.texts import small_files

FILES = 3_000
KILLS = 10
SEED = 20_261_120
START_S = 2.0  # about what a job needs before it lists


@pytest.mark.timeout(900)
def test_ten_kills_cost_no_document_and_few_reads(dfs, tmp_path):
    rng = random.Random(SEED)
    lake = Lake(dfs)
    lake.write_all(small_files(FILES))
    # What a vector means does not matter here, and a quick one leaves the time to the rest.
    environ = dfs.environ | {"SLUICE_EMBEDDING__KIND": "hashing"}
    clean = Installation(tmp_path / "clean", environ)
    killed = Installation(tmp_path / "killed", environ)

    with clean.running():
        whole = clean.ingest(lake.uri)
        assert whole["indexed"] == FILES
    doomed = [f"part-03/note-{number:05d}.md" for number in (23, 43, 63)]
    with killed.running():
        mark = lake.mark()
        for kill in range(KILLS):
            with killed.begin_ingest(lake.uri) as job:
                # The moment is the point: nothing is waited for. Ten are less than a run.
                with pytest.raises(subprocess.TimeoutExpired):
                    job.wait(timeout=START_S + rng.uniform(0, 0.15) * whole["duration_s"])
                job.kill()
            if kill == KILLS // 2:
                lake.delete(doomed)
        killed.ingest(lake.uri)
        reads = Counter(lake.opened(mark))
        again = lake.mark()
        unchanged = killed.ingest(lake.uri)

    assert max(reads.values()) <= KILLS + 1
    assert set(reads) <= set(small_files(FILES))
    assert lake.opened(again) == []
    assert (unchanged["files_opened"], unchanged["unchanged"]) == (0, FILES - len(doomed))
    gone = {f"{lake.uri}/{name}" for name in doomed}
    expected = {
        chunk: (text, metadata)
        for chunk, (text, metadata) in clean.records().items()
        if metadata["source_uri"] not in gone
    }
    assert len({metadata["document_id"] for _, metadata in expected.values()}) == FILES - len(gone)
    assert differences(killed.records(), expected) == []
