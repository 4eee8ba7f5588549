"""`make demo` answers its three questions from the right files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = [
    "samples/runbooks/kerberos-long-running-jobs.md",
    "samples/planning/capacity-review-2026.pdf",
    "samples/policies/data-classification.docx",
]


@pytest.mark.timeout(300)
def test_the_three_answers_come_from_the_right_files():
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    questions = re.split(r"^\$ sluice search ", done.stdout, flags=re.MULTILINE)[1:]
    first = [re.search(r"^ *1\. .*\n +(samples/\S+)", answer, re.MULTILINE) for answer in questions]
    assert [match and match[1] for match in first] == ANSWERS
    assert all("index version 1" in answer for answer in questions)
    assert re.search(r"capacity-review-2026\.pdf · p\. 3", questions[1])
