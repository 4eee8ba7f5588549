import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import fs

from common.errors import ConfigurationError, FailedPrecondition, InvalidArgument, NotFound
from ingestor.faults import Cause, Fault
from ingestor.filesystems import Location, _HdfsHandler, locate
from ingestor.settings import HdfsSettings
from ingestor.sources import FileEntry, ListingFault, PyArrowSource, open_source, order

HDFS = HdfsSettings()


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as running:
        yield running


async def walk(source, enters=lambda _: True):
    return [item async for item in source.walk(enters)]


async def listed(root: Path, executor) -> list[str]:
    source = await open_source(str(root), HDFS, executor)
    return [item.path for item in await walk(source)]


async def test_the_order_is_that_of_components(tmp_path, executor):
    names = ["b.txt", "b/c.txt", "b/a/z", "b!/x", "B", "a", "é", "b/a!"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    found = await listed(tmp_path, executor)
    assert found == sorted(names, key=order)
    assert found == sorted(names, key=lambda name: name.split("/"))


async def test_entries_tell_what_the_file_system_tells(tmp_path, executor):
    path = tmp_path / "new\nline 😀 100%.txt"
    path.write_text("text")
    source = await open_source(f"{tmp_path}/", HDFS, executor)
    (entry,) = await walk(source)
    modified_us = path.stat().st_mtime_ns // 1000
    assert entry == FileEntry(path.name, path.as_uri(), 4, modified_us)
    assert source.root_uri == f"{tmp_path.as_uri()}/"
    assert await source.stat(entry.path) == entry
    assert await source.stat("absent") is None
    assert await source.read(entry, 4) == b"text"


async def test_reading_is_bounded_and_tells_why_it_fails(tmp_path, executor):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    source = await open_source(str(tmp_path), HDFS, executor)
    (entry,) = await walk(source)
    too_large = await source.read(entry, 4)
    assert isinstance(too_large, Fault)
    assert too_large.cause == Cause.TOO_LARGE
    path.unlink()
    gone = await source.read(entry, 5)
    assert isinstance(gone, Fault)
    assert gone.cause == Cause.GONE


async def test_links_to_folders_are_not_followed(tmp_path, executor):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("x")
    (tmp_path / "d/loop").symlink_to("..")
    (tmp_path / "file-link").symlink_to("d/a")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert await listed(tmp_path, executor) == ["d/a", "file-link"]


async def test_what_is_no_file_is_a_fault(tmp_path, executor):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"bad\xff.txt")).write_text("x")
    (tmp_path / "z").write_text("x")
    source = await open_source(str(tmp_path), HDFS, executor)
    items = await walk(source)
    faults = {item.path: item.fault.cause for item in items if isinstance(item, ListingFault)}
    assert faults == {"pipe": Cause.NOT_A_FILE, "bad\ufffd.txt": Cause.UNDECODABLE_NAME}
    assert [item.path for item in items if isinstance(item, FileEntry)] == ["z"]


async def test_a_folder_that_fails_is_an_item_and_a_root_that_fails_an_error(executor):
    class Failing(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow ships no types
        def get_file_info_selector(self, selector):
            if selector.base_dir in denied:
                raise PermissionError(13, "Permission denied")
            if selector.base_dir == "/r/gone":
                raise FileNotFoundError(2, "No such file")
            return [fs.FileInfo(f"/r/{name}", fs.FileType.Directory) for name in ("a", "gone")]

        def get_type_name(self):
            return "failing"

    for name in fs.FileSystemHandler.__abstractmethods__ - set(vars(Failing)):
        setattr(Failing, name, lambda *_: None)
    Failing.__abstractmethods__ = frozenset()
    location = Location(fs.PyFileSystem(Failing()), "/r", "x://r")
    source = PyArrowSource(location, executor, is_file=False)
    denied = {"/r/a"}
    (item,) = await walk(source)
    assert isinstance(item, ListingFault)
    assert (item.path, item.uri, item.fault.cause) == ("a", "x://r/a", Cause.PERMISSION_DENIED)
    denied = {"/r"}
    with pytest.raises(FailedPrecondition, match="x://r/ cannot be listed"):
        await walk(source)


async def test_folders_not_entered_are_not_listed(tmp_path, executor):
    for name in ("a/x", "b/x"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    source = await open_source(str(tmp_path), HDFS, executor)
    assert [item.path for item in await walk(source, lambda folder: folder != "a")] == ["b/x"]


async def test_a_root_must_be_there(tmp_path, executor):
    with pytest.raises(NotFound, match="no such file or folder"):
        await open_source(str(tmp_path / "absent"), HDFS, executor)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FailedPrecondition, match="neither"):
        await open_source(str(tmp_path / "pipe"), HDFS, executor)


@pytest.mark.parametrize(
    ("given", "canonical", "path"),
    [
        ("/a/b/", "file:///a/b", "/a/b"),
        ("/a/./b/../c d", "file:///a/c%20d", "/a/c d"),
        ("file:///a/c%20d/", "file:///a/c%20d", "/a/c d"),
        ("/100%", "file:///100%25", "/100%"),
        ("/", "file://", "/"),
        ("hdfs://nn:8020/a//b/", "hdfs://nn:8020/a/b", "/a/b"),
        ("hdfs://nn:8020", "hdfs://nn:8020", "/"),
    ],
)
def test_canonical_uris(given, canonical, path):
    location = locate(given, HDFS)
    assert (location.uri, location.path) == (canonical, path)


def test_uris_that_cannot_be_opened_say_why():
    with pytest.raises(InvalidArgument, match="no file system opens it"):
        locate("gopher://x/y", HDFS)
    with pytest.raises(InvalidArgument, match="path or a URI"):
        locate("", HDFS)
    for malformed in ("hdfs://nn:port/x", "hdfs://[nn/x", "file://[x/"):
        with pytest.raises(InvalidArgument, match="malformed"):
            locate(malformed, HDFS)
    with pytest.raises(ConfigurationError, match="hdfs client native cannot start"):
        locate("hdfs://no-such-nameservice/x", HDFS)


class HdfsFileSystemDouble:
    """Answers as hdfs_native.fsspec does; the real one needs a cluster."""

    protocol = "hdfs"

    def __init__(self):
        self.moves = []

    def ls(self, path, detail):
        assert detail
        if path != "/d":
            raise FileNotFoundError(path)
        common = {"modification_time": 1_700_000_000_123}
        return [
            {"name": "/d/b", "size": 0, "type": "directory", **common},
            {"name": "/d/a.txt", "size": 3, "type": "file", **common},
        ]

    def mv(self, source, target, *, overwrite):
        self.moves.append((source, target, overwrite))


def test_hdfs_listings_bring_times_and_moves_replace():
    double = HdfsFileSystemDouble()
    filesystem = fs.PyFileSystem(_HdfsHandler(double))
    folder, file = filesystem.get_file_info(fs.FileSelector("/d"))
    assert (folder.type, folder.size) == (fs.FileType.Directory, None)
    assert (file.path, file.type, file.size) == ("/d/a.txt", fs.FileType.File, 3)
    assert file.mtime_ns // 1000 == 1_700_000_000_123_000
    assert filesystem.get_file_info(fs.FileSelector("/x", allow_not_found=True)) == []
    filesystem.move("/x", "/y")
    assert double.moves == [("/x", "/y", True)]
