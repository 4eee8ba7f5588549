"""The built library for every test of this folder. Building it is make's work, not the tests'."""

from __future__ import annotations

import pytest

from rerank_zig import RerankLibrary


@pytest.fixture(scope="session")
def library() -> RerankLibrary:
    return RerankLibrary.load()
