"""One real `sluice up` for all tests here; it embeds by hashing, so it starts in seconds."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.client import SluiceClient
from client.local_server import local_server
from tests.integration.client.small_collection import documents, unused_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

    from client.indexing import Acknowledgement


@pytest.fixture(scope="session")
def environ() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
    return {**kept, "SLUICE_EMBEDDING__KIND": "hashing"}


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> Iterator[str]:
    with asyncio.Runner() as runner:
        server = local_server(tmp_path_factory.mktemp("server"), environ=environ)
        yield runner.run(server.__aenter__())
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture
def collection(address: str) -> str:
    """A collection of its own with three documents."""
    name = unused_name()

    async def fill() -> list[Acknowledgement]:
        async with SluiceClient(address) as client:
            await client.create(name)
            return [a async for a in client.index_documents(documents(), collection=name)]

    assert [a.outcome for a in asyncio.run(fill())] == ["indexed"] * 3
    return name


@pytest.fixture
def sluice(address: str) -> Callable[..., Result]:
    """Runs a command in this process against the server."""
    return lambda *args: CliRunner().invoke(app, [*args, "--target", address])
