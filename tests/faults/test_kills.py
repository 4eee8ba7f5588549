"""SIGKILL at any moment, of the job or of the server, loses nothing and doubles nothing (I1)."""

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.installation import Installation, differences

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
KILLS_A_RUN = 10
ATTEMPTS_A_RUN = 30
SEED = 20_251_104


def change(folder: Path, rng: random.Random) -> None:
    """Give the next run work of every kind: files changed, removed and added."""
    texts = sorted(path for path in folder.rglob("*") if path.suffix in {".md", ".txt", ".log"})
    for path in rng.sample(texts, 6):
        lines = path.read_text().splitlines()
        cut = rng.randrange(len(lines))
        path.write_text("\n".join([*lines[cut:], f"Changed {rng.random()}.", *lines[:cut]]))
    doomed = rng.choice(texts)
    if len(texts) > 12:
        doomed.unlink()
    # The last job may have been killed while one of these was half written.
    for fresh in sorted(folder.glob("added-*")):
        if rng.random() < 0.5:
            fresh.unlink()
    for number in range(3):
        name = folder / f"added-{rng.randrange(10**9)}-{number}.md"
        name.write_text(f"# Added {rng.random()}\n\n" + "A block has three replicas. " * 200)


def kill_in_mid_run(
    installation: Installation, folder: Path, rng: random.Random, run_s: float
) -> bool:
    """Start a job, kill it or the server under it, and tell whether it was still at work."""
    if installation.server is None:
        installation.start()
    with installation.begin_ingest(folder) as job:
        try:
            # The moment is the point: nothing is waited for.
            job.wait(timeout=rng.uniform(0.3 * run_s, run_s))
        except subprocess.TimeoutExpired:
            at_work = True
        else:
            at_work = False
        if rng.random() < 0.5:
            installation.stop(9)
        job.kill()
    return at_work


@pytest.mark.timeout(900)
def test_killed_runs_end_in_the_index_of_a_clean_run(tmp_path):
    rng = random.Random(SEED)
    folder = tmp_path / "lake"
    shutil.copytree(SAMPLES, folder)
    # A few chunks at a time: a kill leaves many documents half written.
    killed = Installation(tmp_path / "killed", {"SLUICE_INDEXER__SLICE_CHUNKS": "4"})
    with killed.running():
        killed.ingest(folder)
        change(folder, rng)
        started = time.monotonic()
        killed.ingest(folder)
        run_s = time.monotonic() - started
    for run in (2, 3):
        kills = 0
        for _ in range(ATTEMPTS_A_RUN):
            if kills == KILLS_A_RUN:
                break
            change(folder, rng)
            kills += kill_in_mid_run(killed, folder, rng, run_s)
        assert kills == KILLS_A_RUN
        if killed.server is None:
            killed.start()
        killed.ingest(folder)
        killed.stop()
        clean = Installation(tmp_path / f"clean-{run}")
        with clean.running():
            clean.ingest(folder)
        expected = clean.records()
        assert len({metadata["document_id"] for _, metadata in expected.values()}) == sum(
            path.is_file() for path in folder.rglob("*")
        )
        assert differences(killed.records(), expected) == []
