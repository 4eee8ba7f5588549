"""SIGKILL at any moment, while files of many documents change, leaves no row behind (I1, I6)."""

import io
import json
import random
import shutil
import subprocess
import tarfile
import time

import pytest

from tests.installation import Installation, differences

KILLS = 6
ATTEMPTS = 14
SEED = 20_261_121
ROWS = 500
TABLES = [f"table-{number}.{kind}" for kind in ("jsonl", "csv") for number in range(3)]
ARCHIVES = ["notes.tar", "more.tar.gz"]
RULES = [
    {"match": f"*.{kind}", "format": kind, "id": "id", "text": ["text"], "metadata": ["word"]}
    for kind in ("jsonl", "csv")
]
# A quick embedder leaves the time to the rest; small batches and many checkpoints make more moments
# that differ.
ENVIRON = {
    "SLUICE_EMBEDDING__KIND": "hashing",
    "SLUICE_INGEST__FORMATS": json.dumps(RULES),
    "SLUICE_INGEST__CHECKPOINT_S": "0.2",
    "SLUICE_INGEST__STREAM__BATCH_DOCUMENTS": "64",
}


def write(folder, name, rng):
    """The file in a new state: some of its rows or members of before, and some others."""
    keys = rng.sample(range(ROWS), rng.randrange(ROWS // 5, ROWS))
    # Few words, so that many a row is as it was and others are not.
    rows = [(str(key), f"Row {key}, block {rng.randrange(3)}.") for key in sorted(keys)]
    path = folder / name
    if name.endswith(".jsonl"):
        lines = (json.dumps({"id": key, "text": text, "word": text[-2]}) for key, text in rows)
        path.write_text("\n".join(lines))
    elif name.endswith(".csv"):
        path.write_text("id,text,word\n" + "".join(f'{k},"{t}",{t[-2]}\n' for k, t in rows))
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            for key, text in rows[:60]:
                member = tarfile.TarInfo(f"notes/{key}.md")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))


def change(folder, rng):
    """Give the next run work of every kind: containers changed, removed and added."""
    for name in rng.sample(TABLES, 4):
        if (folder / name).exists() and rng.random() < 0.2:
            (folder / name).unlink()
        else:
            write(folder, name, rng)
    write(folder, rng.choice(ARCHIVES), rng)
    (folder / f"note-{rng.randrange(5)}.md").write_text(f"# A note\n\nNumber {rng.random()}.")


def documents(records):
    return {metadata["document_id"] for _, metadata in records.values()}


@pytest.mark.timeout(300)
def test_killed_runs_over_containers_end_in_the_index_of_a_clean_run(tmp_path):
    rng = random.Random(SEED)
    lake = tmp_path / "lake"
    lake.mkdir()
    for name in (*TABLES, *ARCHIVES):
        write(lake, name, rng)
    killed = Installation(tmp_path / "killed", ENVIRON)
    killed.start()
    started = time.monotonic()
    run_s = killed.ingest(lake)["duration_s"]
    start_s = time.monotonic() - started - run_s
    kills = 0
    for _ in range(ATTEMPTS):
        if kills == KILLS:
            break
        change(lake, rng)
        if killed.server is None:
            killed.start()
        with killed.begin_ingest(lake) as job:
            try:
                # The moment is the point: nothing is waited for.
                job.wait(timeout=start_s + rng.uniform(0, run_s))
            except subprocess.TimeoutExpired:
                kills += 1
                if rng.random() < 0.4:
                    killed.stop(9)
                job.kill()
            else:
                continue
        if kills == KILLS // 2:
            shutil.rmtree(killed.home / "state")
    assert kills == KILLS
    if killed.server is None:
        killed.start()
    last = killed.ingest(lake)
    unchanged = killed.ingest(lake)
    killed.stop()

    clean = Installation(tmp_path / "clean", ENVIRON)
    with clean.running():
        whole = clean.ingest(lake)
    expected = clean.records()
    assert len(documents(expected)) == whole["documents"] == whole["indexed"]
    assert differences(killed.records(), expected) == []
    assert (last["documents"], unchanged["files_opened"]) == (whole["documents"], 0)
