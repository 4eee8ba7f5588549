"""The programs of rerank_zig/fuzz/ for the tests that run them. Building them is make's work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import rerank_zig

BIN = Path(rerank_zig.__file__).parent / "zig-out" / "bin"
CORPUS = Path(rerank_zig.__file__).parent / "fuzz" / "corpus"
BUILD_COMMAND = (
    "python -m ziglang build fuzz --build-file rerank_zig/build.zig --prefix rerank_zig/zig-out"
)
IS_CI = os.environ.get("CI") == "true"


def program(name: str) -> Path:
    path = BIN / name
    if not path.is_file():
        pytest.fail(f"There is no {path}. Build it from the repository root with `{BUILD_COMMAND}`")
    return path


def tool(name: str, package: str) -> str:
    """The path of an installed tool; without it the test fails in CI and is skipped elsewhere."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed: on Debian it is in {package}"
        if IS_CI:
            pytest.fail(missing)
        pytest.skip(missing)
    return path
