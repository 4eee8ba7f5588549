"""What `sluice up` says of a place it cannot use."""

import asyncio

import pytest

from common.embedding import EmbeddingSettings
from common.errors import ConfigurationError
from common.rpc import ServerSettings
from indexer.settings import IndexerSettings, WordCountSettings
from standalone.serve import UpConfig, UpSettings, run


async def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    config = UpConfig(up=UpSettings(data_dir=tmp_path / "file" / "data"))
    with pytest.raises(ConfigurationError, match=r"up\.data_dir: cannot make .*/file/data \("):
        await run(config, stop=asyncio.Event())


@pytest.mark.parametrize("folder", [None, "elsewhere"])
async def test_what_was_counted_is_kept_in_the_data_directory_unless_told_otherwise(
    tmp_path, folder
):
    told = tmp_path / folder if folder else None
    config = UpConfig(
        embedding=EmbeddingSettings(kind="hashing"),
        indexer=IndexerSettings(word_counts=WordCountSettings(folder=told)),
        up=UpSettings(data_dir=tmp_path / "data", server=ServerSettings(listen="127.0.0.1:0")),
    )
    stop = asyncio.Event()
    await run(config, stop=stop, on_ready=lambda _: stop.set())
    assert (told or tmp_path / "data" / "word_counts").is_dir()
