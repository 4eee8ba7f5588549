"""Coordinators for the tests of this folder: both implementations, the real ones."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from common.coordination import CoordinatorSettings, open_coordinator
from common.embedding import EmbedderSpec
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from common.coordination import Coordinator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One etcd for all tests that leave it running; each test has a prefix of its own."""
    with Etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[Etcd]:
    """An etcd that the test may kill, compact or lock."""
    with Etcd(tmp_path / "etcd") as running:
        yield running


@pytest_asyncio.fixture(params=["embedded", "etcd"])
async def coordinator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coordinator]:
    """Each implementation in turn, empty."""
    if request.param == "embedded":
        settings = CoordinatorSettings(kind="embedded", path=tmp_path / "coordinator.db")
    else:
        endpoint = request.getfixturevalue("etcd").endpoint
        settings = CoordinatorSettings(
            kind="etcd", endpoints=(endpoint,), prefix=f"/test/{next(_numbers)}"
        )
    opened = open_coordinator(settings)
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture
async def on_own_etcd(own_etcd: Etcd) -> AsyncIterator[Coordinator]:
    """A coordinator on the etcd that the test may kill; its calls fail fast."""
    opened = open_coordinator(
        CoordinatorSettings(kind="etcd", endpoints=(own_etcd.endpoint,), timeout_ms=2000)
    )
    yield opened
    await opened.aclose()


@pytest.fixture
def embedder() -> EmbedderSpec:
    return EmbedderSpec(
        model="all-MiniLM-L6-v2",
        digest="ab" * 32,
        dimension=384,
        pooling="mean",
        max_tokens=256,
        variant="int8",
    )
