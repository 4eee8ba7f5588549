"""What `sluice up` says of a place it cannot use."""

import asyncio

import pytest

from common.errors import ConfigurationError
from standalone.serve import UpConfig, UpSettings, run


async def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    config = UpConfig(up=UpSettings(data_dir=tmp_path / "file" / "data"))
    with pytest.raises(ConfigurationError, match=r"up\.data_dir: cannot make .*/file/data \("):
        await run(config, stop=asyncio.Event())
