"""No random argument, and no system that refuses, ends the process: calls answer with a status."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from rerank_zig.layout import Status

ROUNDS = 300_000
# Every status must come up, else the hammer misses a branch.
EXPECTED = set(Status)
MAX_STORES = 64


def run(module: str, *arguments: str) -> dict[str, Any]:
    outcome = subprocess.run(
        [sys.executable, "-m", f"tests.unit.rerank_zig.{module}", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    answer: dict[str, Any] = json.loads(outcome.stdout)
    return answer


def test_random_arguments_get_a_status() -> None:
    statuses = run("hammer", "1", str(ROUNDS))
    at_the_end = statuses.pop("open_store_at_the_end")
    assert at_the_end == {"OK": MAX_STORES}, "no place for a store was lost"
    assert sum(sum(counts.values()) for counts in statuses.values()) == ROUNDS
    assert {Status[name] for counts in statuses.values() for name in counts} >= EXPECTED
    for function, counts in statuses.items():
        assert counts["OK"] > sum(counts.values()) // 20, f"{function} is hardly ever right"


def test_a_process_that_gets_no_more_mappings_goes_on() -> None:
    statuses = run("limits")
    assert statuses["opened"] == [Status.OK] * 5
    assert statuses["at_limit"], "the system's limit of mappings was not met"
    assert statuses["close"] == [Status.OK]
    assert {statuses["again"], statuses["group"]} <= {Status.OK, Status.OUT_OF_MEMORY}
