"""Random arguments never end the process: every call answers with a status."""

from __future__ import annotations

import json
import subprocess
import sys

from rerank_zig.layout import Status

ROUNDS = 4000
# Every status must come up, else the hammer misses a branch; only memory does not run out.
EXPECTED = set(Status) - {Status.OUT_OF_MEMORY}


def test_random_arguments_get_a_status() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.unit.rerank_zig.hammer", "1", str(ROUNDS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    statuses = json.loads(outcome.stdout)
    assert sum(statuses.values()) == ROUNDS
    assert {Status[name] for name in statuses} >= EXPECTED
    assert statuses["OK"] > ROUNDS // 4
