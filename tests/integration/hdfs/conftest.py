"""One cluster a session and mode, started when the first test asks for it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.hdfs.minidfs import MiniDfs, MissingToolError, mini_dfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.hdfs.minidfs import Mode


@pytest.fixture(scope="session")
def dfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniDfs]:
    with _running("plain", tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ha_dfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniDfs]:
    with _running("ha", tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kerberos_dfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniDfs]:
    with _running("kerberos", tmp_path_factory) as cluster:
        yield cluster


@contextmanager
def _running(mode: Mode, folders: pytest.TempPathFactory) -> Iterator[MiniDfs]:
    try:
        with mini_dfs(mode, folders.mktemp(mode)) as cluster:
            yield cluster
    except MissingToolError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(f"no HDFS to test against: {missing}")
