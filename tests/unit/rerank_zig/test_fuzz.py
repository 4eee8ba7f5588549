"""Millions of inputs of the C ABI, each held against what the header promises, and none that ends
the process. In CI ten million; elsewhere a tenth, which takes seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from rerank_zig.layout import Status
from tests.unit.rerank_zig.programs import CORPUS, IS_CI, program

if TYPE_CHECKING:
    from pathlib import Path

EXECUTIONS = 10_000_000 if IS_CI else 1_000_000
PROCESSES = 2
FEW_EXECUTIONS = 20_000
TIMEOUT_S = 900


def start(name: str, folder: Path, seed: int, executions: int) -> subprocess.Popen[str]:
    command = [program(name), "--seed", seed, "--executions", executions, "--corpus", CORPUS]
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.mark.timeout(TIMEOUT_S)
def test_millions_of_inputs_break_no_promise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        processes = []
        for seed in range(1, PROCESSES + 1):
            started = start("fuzz", tmp_path, seed, EXECUTIONS // PROCESSES)
            processes.append(stack.enter_context(started))
            stack.callback(started.kill)
        results = [result(process) for process in processes]
    executions = sum(found["executions"] for found in results)
    calls = sum(found["calls"] for found in results)
    seconds = max(found["seconds"] for found in results)
    with capfd.disabled():
        sys.stderr.write(f"\nfuzzed {executions:,} inputs, {calls:,} calls, in {seconds} s\n")
    assert executions >= EXECUTIONS
    # Every branch that refuses was taken, and the library was asked for its work all the same.
    for status in Status:
        assert all(found["statuses"][status] > 0 for found in results), status.name
    assert sum(found["statuses"][Status.OK] for found in results) > calls / 2


def test_the_kept_inputs_go_through_most_of_the_library(tmp_path: Path) -> None:
    with start("fuzz-guided", tmp_path, 1, 0) as process:
        kept = result(process)
    assert kept["executions"] == len(list(CORPUS.iterdir())), "no more than the kept inputs"
    # The others are checks that never fail, and what only greater inputs reach.
    assert kept["edges"] > 0.7 * kept["all_edges"]


def test_a_run_is_the_same_again(tmp_path: Path) -> None:
    """What a seed makes of the kept inputs is what it made before: a finding can be met again."""
    calls = []
    for _ in range(2):
        with start("fuzz", tmp_path, 3, FEW_EXECUTIONS) as process:
            calls.append(result(process)["calls"])
    assert calls[0] == calls[1]


def test_an_input_is_run_again(tmp_path: Path) -> None:
    kept = min(CORPUS.iterdir())
    again = subprocess.run(
        [program("fuzz"), "--reproduce", kept],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["executions"] > 1
    assert list(tmp_path.iterdir()) == []
