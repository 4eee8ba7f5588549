"""Threads on the same stores, without an interpreter between them, under ThreadSanitizer."""

from __future__ import annotations

import json
import os
import subprocess

from rerank_zig.layout import Status
from tests.unit.rerank_zig.programs import program

ROUNDS = 10_000
RACE_STATUS = 66


def run(*arguments: str, options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("threads"), *arguments],
        capture_output=True,
        env={**os.environ, "TSAN_OPTIONS": options},
        text=True,
        timeout=110,
        check=False,
    )


def test_threads_share_stores_without_a_race() -> None:
    outcome = run(str(ROUNDS), options=f"exitcode={RACE_STATUS}")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    answer = json.loads(outcome.stdout)
    calls = answer["threads"] * answer["rounds"]
    assert calls >= 8 * ROUNDS
    statuses = answer["statuses"]
    for status in (Status.OK, Status.UNKNOWN_STORE):
        assert statuses[status] > calls / 10, "stores were hardly ever open, or closed"


def test_the_sanitizer_watches() -> None:
    outcome = run("0", options="help=1")
    assert "Available flags for ThreadSanitizer" in outcome.stdout + outcome.stderr
