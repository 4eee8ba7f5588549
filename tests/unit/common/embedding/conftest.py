"""A converted tiny model and a running embedding server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from common.embedding import convert_model
from tests.unit.common.embedding.embedding_server import EmbeddingServer
from tests.unit.common.embedding.tiny_bert import write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="session")
def tiny_models(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models_dir = tmp_path_factory.mktemp("models")
    convert_model(tiny_source, models_dir)
    return models_dir


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    running = EmbeddingServer()
    yield running
    running.close()
