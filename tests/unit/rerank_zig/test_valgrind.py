"""valgrind sees no wrong read, no wrong write and no leak behind the C ABI.

It watches a shared library that takes its memory from malloc, over the kept inputs and some
thousand more; every argument of a call is a block of malloc's too, exactly as long as it says.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

from tests.unit.rerank_zig.programs import CORPUS, program, tool

if TYPE_CHECKING:
    from pathlib import Path

EXECUTIONS = 20_000
ERROR_STATUS = 99


def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    command = [
        tool("valgrind", "valgrind"),
        f"--error-exitcode={ERROR_STATUS}",
        "--leak-check=full",
        "--show-leak-kinds=all",
        "--errors-for-leak-kinds=all",
        *(str(program("fuzz-checked")), "--executions", str(EXECUTIONS), "--corpus", str(CORPUS)),
    ]
    outcome = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["executions"] >= EXECUTIONS
    assert "ERROR SUMMARY: 0 errors" in outcome.stderr
    assert "All heap blocks were freed -- no leaks are possible" in outcome.stderr
    usage = re.search(r"total heap usage: ([\d,]+) allocs", outcome.stderr)
    assert usage is not None
    blocks = int(usage[1].replace(",", ""))
    assert blocks > 2 * EXECUTIONS, "the calls' memory was not watched"
