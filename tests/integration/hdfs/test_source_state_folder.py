"""A state folder on HDFS, by each client."""

from __future__ import annotations

import getpass
import time

import pytest
from pyarrow import fs

from ingestor.settings import HdfsSettings, WebHdfsSettings
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate


@pytest.fixture(params=["native", "webhdfs"])
def location(request, dfs, tmp_path):
    web = WebHdfsSettings(user=getpass.getuser())
    settings = HdfsSettings(conf_dir=dfs.conf_dir, web=web)
    root = f"webhdfs://{dfs.http_address}" if request.param == "webhdfs" else dfs.uri
    return locate(f"{root}/states/{tmp_path.name}/{request.param}", settings)


@pytest.fixture
def state(location):
    return StateFolder.at(location)


def read(state: StateFolder, name: str) -> bytes:
    with state.open_input(name) as file:
        return bytes(file.read())


def test_a_file_is_replaced_whole_or_not_at_all(state):
    assert state.names() == {}
    began_ns = time.time_ns()
    with state.replacing("manifest #1%") as sink:
        sink.write(b"old")
    large = b"0123456789abcdef" * 2**20
    with state.replacing("manifest #1%") as sink:
        for start in range(0, len(large), 100_000):
            sink.write(large[start : start + 100_000])
        assert read(state, "manifest #1%") == b"old"
    assert read(state, "manifest #1%") == large

    def fail() -> None:
        with state.replacing("manifest #1%") as sink:
            sink.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read(state, "manifest #1%") == large
    ((name, modified_ns),) = state.names().items()
    assert name == "manifest #1%"
    assert abs(modified_ns - began_ns) < 60e9
    state.delete("manifest #1%")
    state.delete("manifest #1%")
    with pytest.raises(FileNotFoundError):
        state.open_input("manifest #1%")
    with state.replacing("empty"):
        pass
    assert read(state, "empty") == b""


def test_folders_are_made_and_deleted_whole(state):
    deep = state.folder("tenant", "collection")
    with deep.replacing("a") as sink:
        sink.write(b"a")
    with deep.replacing(".unfinished-b") as sink:
        sink.write(b"b")
    deep.delete_unfinished()
    assert list(deep.names()) == ["a"]
    state.delete_all()
    state.delete_all()
    assert deep.names() == {}


def test_a_lock_there_holds_nothing(state):
    with state.locked(), state.locked():
        assert state.names() == {}


def test_the_file_system_says_what_pyarrow_expects(location):
    filesystem, root = location.filesystem, location.path
    filesystem.create_dir(f"{root}/d/e", recursive=True)
    with filesystem.open_output_stream(f"{root}/d/f") as sink:
        sink.write(b"12345")
    infos = filesystem.get_file_info([f"{root}/d", f"{root}/d/f", f"{root}/x", f"{root}/d/f/x"])
    kinds = [info.type for info in infos]
    folder, file, missing = fs.FileType.Directory, fs.FileType.File, fs.FileType.NotFound
    assert kinds == [folder, file, missing, missing]
    assert infos[1].size == 5
    found = filesystem.get_file_info(fs.FileSelector(f"{root}/d"))
    assert [info.base_name for info in found] == ["e", "f"]
    found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    assert sorted(info.path for info in found) == [f"{root}/d", f"{root}/d/e", f"{root}/d/f"]
    with pytest.raises(FileNotFoundError):
        filesystem.get_file_info(fs.FileSelector(f"{root}/absent"))
    with filesystem.open_input_file(f"{root}/d/f") as file:
        file.seek(1)
        assert (file.read(2), file.tell(), file.size()) == (b"23", 3, 5)
    filesystem.copy_file(f"{root}/d/f", f"{root}/d/g")
    filesystem.move(f"{root}/d/g", f"{root}/d/e/g")
    with pytest.raises(FileNotFoundError):
        filesystem.move(f"{root}/d/g", f"{root}/d/h")
    with pytest.raises(FileNotFoundError):
        filesystem.delete_file(f"{root}/d/g")
    filesystem.delete_dir_contents(f"{root}/d")
    assert filesystem.get_file_info(fs.FileSelector(root, recursive=True))[0].path == f"{root}/d"
    filesystem.delete_dir(f"{root}/d")
    assert filesystem.get_file_info(f"{root}/d").type is missing
