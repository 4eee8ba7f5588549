import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import (
    ConfigurationError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from ingestor.faults import Cause, Fault
from ingestor.settings import HdfsSettings, WebHdfsSettings
from ingestor.storage.daemon_threads import DaemonThreads
from ingestor.storage.filesystems import locate
from ingestor.storage.hadoop_configuration import configuration, with_port
from ingestor.storage.hdfs_errors import BlockError, UnauthenticatedError
from ingestor.storage.listing import MAX_BATCH
from ingestor.storage.sources import FileEntry, ListingFault, StorageSource, open_source, order
from ingestor.storage.storage_calls import RemoteCalls
from ingestor.storage.storages import Chunk

HDFS = HdfsSettings()


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as running:
        yield running


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    monkeypatch.setattr("ingestor.storage.outage._FIRST_S", 0.01)


async def walk(source, enters=lambda _: True):
    return [item async for batch in source.walk(enters) for item in batch]


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


class ScriptedStorage:
    """Folders of given names, whose listing fails as told; the real failures need a cluster."""

    file_name = None
    root_uri = "x://r/"

    def __init__(self, folders, failures=(), chunk=2):
        self.folders = folders
        self.failures = list(failures)
        self.chunk = chunk
        self.generation = 0
        self.listed = []

    def renew(self, generation):
        self.generation = generation + 1

    def chunks(self, folder):
        self.listed.append(folder)
        names = self.folders[folder]
        for start in range(0, len(names), self.chunk):
            self.fail((folder, start))
            part = names[start : start + self.chunk]
            folders = [place for place, path in enumerate(part) if path in self.folders]
            ones = [1] * len(part)
            yield Chunk(part, ones, [*ones], [(place, None) for place in folders])
        self.fail((folder, len(names)))

    def fail(self, place):
        for failure in self.failures:
            if failure[0] == place:
                self.failures.remove(failure)
                raise failure[1]


def scripted(storage, outage_s=5.0, timeout_s=5.0, threads=4):
    calls = RemoteCalls(
        DaemonThreads(threads), timeout_s=timeout_s, outage_s=outage_s, refused_s=0.2
    )
    return StorageSource(storage, calls, outage_s)


TREE = {"": ["a", "b", "c", "d"], "b": ["b/1", "b/2", "b/3", "b/4", "b/5"], "d": ["d/1"]}
FILES = ["a", "b/1", "b/2", "b/3", "b/4", "b/5", "c", "d/1"]


async def test_a_folder_that_fails_is_an_item_and_a_root_that_fails_an_error():
    denied = PermissionError(13, "Permission denied")
    source = scripted(ScriptedStorage(TREE, [(("b", 0), denied)]))
    items = await walk(source)
    assert [item.path for item in items] == ["a", "b", "c", "d/1"]
    fault = items[1]
    assert isinstance(fault, ListingFault)
    assert (fault.uri, fault.fault.cause) == ("x://r/b", Cause.PERMISSION_DENIED)
    assert fault.may_be_folder
    with pytest.raises(FailedPrecondition, match="x://r/ cannot be listed"):
        await walk(scripted(ScriptedStorage(TREE, [(("", 0), denied)])))
    gone = FileNotFoundError(2, "No such file")
    items = await walk(scripted(ScriptedStorage(TREE, [(("b", 0), gone)])))
    assert [item.path for item in items] == ["a", "c", "d/1"]


async def test_a_folder_that_fails_half_way_ends_the_walk():
    denied = PermissionError(13, "Permission denied")
    source = scripted(ScriptedStorage(TREE, [(("b", 2), denied)]))
    with pytest.raises(FailedPrecondition, match="x://r/b could be listed only in part"):
        await walk(source)


@pytest.mark.parametrize("failing", [("", 0), ("", 2), ("", 4), ("b", 0), ("b", 4), ("d", 1)])
async def test_a_walk_goes_on_where_an_outage_ended(failing, monkeypatch):
    monkeypatch.setattr("ingestor.storage.walk._ENOUGH", 1)
    down = [(failing, ConnectionResetError(104, "reset"))] * 3
    storage = ScriptedStorage(TREE, down)
    assert [item.path for item in await walk(scripted(storage, outage_s=60))] == FILES
    assert storage.failures == []


async def test_a_folder_that_could_not_be_listed_is_not_tried_again_after_an_outage():
    denied = PermissionError(13, "Permission denied")
    down = ConnectionResetError(104, "reset")
    source = scripted(ScriptedStorage(TREE, [(("b", 0), denied), (("", 2), down)]))
    assert [item.path for item in await walk(source)] == ["a", "b", "c", "d/1"]


async def test_a_listing_that_hangs_is_left_behind_and_begun_again(monkeypatch):
    monkeypatch.setattr("ingestor.storage.walk._ENOUGH", 1)
    released = threading.Event()

    class Hanging(ScriptedStorage):
        def fail(self, place):
            if place == ("b", 2) and not self.generation:
                released.wait(30)
            super().fail(place)

    storage = Hanging(TREE)
    source = scripted(storage, timeout_s=0.2)
    try:
        assert [item.path for item in await walk(source)] == FILES
        assert storage.generation == 1
    finally:
        released.set()


async def test_a_read_that_hangs_or_fails_is_repeated_on_the_file_opened_anew():
    released = threading.Event()

    class Opened:
        size = 4

        def __init__(self, read):
            self.read = read

        def read_at(self, *_):
            return self.read()

        def close(self):
            """Nothing to close."""

    def broken():
        raise BlockError(5, "no replica")

    class Reopening(ScriptedStorage):
        reads = (lambda: released.wait(30), broken, lambda: b"text")
        opened = 0

        def open(self, _):
            self.opened += 1
            return Opened(self.reads[self.opened - 1])

    storage = Reopening(TREE)
    source = scripted(storage, timeout_s=0.2)
    try:
        file = await source.open(FileEntry("a", "x://r/a", 4, 1))
        assert not isinstance(file, Fault)
        assert await file.read_at(0, 4) == b"text"
        assert (storage.opened, storage.generation) == (3, 1)
        await file.aclose()
    finally:
        released.set()


async def test_an_outage_without_end_ends_the_job_and_is_no_fault_of_a_file():
    class Down(ScriptedStorage):
        def down(self, *_):
            raise ConnectionRefusedError(111, "Connection refused")

        chunks = read = stat = open = down

    source = scripted(Down(TREE), outage_s=0.1)
    entry = FileEntry("a", "x://r/a", 1, 1)
    for attempt in (
        walk(source),
        source.read(entry, 10),
        source.open(entry),
        source.stat("a"),
    ):
        with pytest.raises(Unavailable, match=r"out of reach for 0.1 s \(Connection refused\)"):
            await attempt


async def test_a_storage_that_refuses_this_job_is_not_waited_for_like_an_outage():
    class Refusing(ScriptedStorage):
        def refuse(self, *_):
            raise UnauthenticatedError(13, "Ticket expired")

        chunks = read = stat = open = refuse

    source = scripted(Refusing(TREE), outage_s=600)
    entry = FileEntry("a", "x://r/a", 1, 1)
    for attempt in (walk(source), source.read(entry, 10), source.open(entry), source.stat("a")):
        with pytest.raises(
            FailedPrecondition, match=r"cannot be entered \(Ticket expired\).*kinit"
        ):
            await attempt


class Blocks(ScriptedStorage):
    """Files of which some have no block that anybody gives."""

    def __init__(self, *broken):
        super().__init__(TREE)
        self.broken = set(broken)
        self.refused = 0

    def read(self, path, _):
        if path in self.broken:
            self.refused += 1
            raise BlockError(5, "no replica")
        return b"x"


def file(path, size=1):
    return FileEntry(path, f"x://r/{path}", size, 1)


async def test_a_block_that_nobody_gives_is_the_files_fault_if_others_are_read_meanwhile():
    storage = Blocks("a")
    source = scripted(storage, outage_s=600)
    reading = asyncio.create_task(source.read(file("a"), 10))
    while not reading.done():
        # An empty file asks no data node, nor does a status.
        assert await source.read(file("b"), 10) == b"x"
    fault = await reading
    assert isinstance(fault, Fault)
    assert (fault.cause, fault.message) == (Cause.UNREADABLE, "no replica")


async def test_data_nodes_that_are_away_are_waited_for():
    storage = Blocks("a", "b")
    source = scripted(storage, outage_s=600)
    reading = asyncio.gather(*(source.read(file(path), 10) for path in "ab"))
    while storage.refused < 8 and not reading.done():
        assert await source.read(file("empty", 0), 10) == b"x"
        await asyncio.sleep(0)
    assert not reading.done()
    storage.broken.clear()
    assert await reading == [b"x", b"x"]


async def test_data_nodes_that_stay_away_end_the_job_and_a_single_file_does_not():
    source = scripted(Blocks("a"), outage_s=0.1)
    assert isinstance(await source.read(file("a"), 10), Fault)
    source = scripted(Blocks("a", "b"), outage_s=0.1)
    read = (source.read(file(path), 10) for path in "ab")
    for ended in await asyncio.gather(*read, return_exceptions=True):
        assert isinstance(ended, Unavailable)
        assert "no data node gave a block for 0.1 s (no replica)" in ended.message


async def test_a_storage_that_breaks_its_order_is_sorted_while_nothing_was_given():
    names = {"": ["c", "a", "b", "d"], "b": ["b/2", "b/1"]}
    items = await walk(scripted(ScriptedStorage(names)))
    assert [item.path for item in items] == ["a", "b/1", "b/2", "c", "d"]
    late = ScriptedStorage({"": ["a", "b", "c", "d", "bb"]})
    with pytest.raises(FailedPrecondition, match="out of order"):
        await walk(scripted(late))


async def test_batches_are_bounded_and_a_long_walk_keeps_no_folder_in_memory():
    many = {"": [f"d{place:03}" for place in range(50)]}
    many |= {folder: [f"{folder}/{place:04}" for place in range(150)] for folder in many[""]}
    source = scripted(ScriptedStorage(many, chunk=1000))
    sizes = [len(batch) async for batch in source.walk(lambda _: True)]
    assert sum(sizes) == 50 * 150
    assert max(sizes) <= MAX_BATCH
    assert len(sizes) < 20  # small folders share a batch


async def test_a_walk_is_at_most_a_few_folders_ahead_of_its_reader():
    many = {"": [f"d{place:03}" for place in range(500)]}
    many |= {folder: [f"{folder}/{place:04}" for place in range(1000)] for folder in many[""]}
    storage = ScriptedStorage(many, chunk=1000)
    listing = scripted(storage).walk(lambda _: True)
    assert len(await anext(listing)) == MAX_BATCH
    await listing.aclose()
    assert len(storage.listed) <= 8


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
        ("hdfs://nn:8020/a#b?c=1;d", "hdfs://nn:8020/a%23b%3Fc%3D1%3Bd", "/a#b?c=1;d"),
        ("HDFS://nn:8020/.x/..y/", "hdfs://nn:8020/.x/..y", "/.x/..y"),
        ("webhdfs://Host/a%20b", "webhdfs://Host/a%20b", "/a b"),
        ("swebhdfs://host:1234", "swebhdfs://host:1234", "/"),
        ("s3://bucket/a/c/?region=eu-west-1", "s3://bucket/a/c", "bucket/a/c"),
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
    for nowhere in ("hdfs:///x", "webhdfs:///x"):
        with pytest.raises(InvalidArgument, match="it names no"):
            locate(nowhere, HDFS)
    for malformed in ("hdfs://nn:port/x", "hdfs://[nn/x", "file://[x/", "webhdfs://h:p/x"):
        with pytest.raises(InvalidArgument, match="malformed"):
            locate(malformed, HDFS)
    with pytest.raises(ConfigurationError, match="hdfs client native cannot start"):
        locate("hdfs://no-such-nameservice/x", HDFS)
    token = HdfsSettings(web=WebHdfsSettings(token_file=Path("/absent")))
    with pytest.raises(ConfigurationError, match="token_file: /absent cannot be read"):
        locate("webhdfs://host/x", token)


def test_a_host_without_a_port_has_hadoops():
    assert with_port("localhost", {}) == "localhost:8020"
    assert with_port("[::1]", {}) == "[::1]:8020"
    assert with_port("localhost:9000", {}) == "localhost:9000"
    assert with_port("localhost", {"dfs.ha.namenodes.localhost": "a,b"}) == "localhost"
    assert with_port("no-such-nameservice", {}) == "no-such-nameservice"
    assert locate("hdfs://localhost/x", HDFS).uri == "hdfs://localhost/x"


def test_hadoop_is_configured_by_files_and_options_over_them(tmp_path, monkeypatch):
    core, hdfs = tmp_path / "core-site.xml", tmp_path / "hdfs-site.xml"
    form = "<configuration>{}</configuration>"
    field = "<property><name>{}</name><value>{}</value></property>"
    core.write_text(
        form.format(field.format("fs.defaultFS", "hdfs://core:1") + field.format("a", 1))
    )
    hdfs.write_text(form.format(field.format("a", 2) + field.format("b", 3)))
    given = HdfsSettings(conf_dir=tmp_path, options={"b": "4"})
    assert configuration(given) == {"fs.defaultFS": "hdfs://core:1", "a": "2", "b": "4"}
    assert configuration(HdfsSettings()) == {}
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert configuration(HdfsSettings())["a"] == "2"
    assert locate("hdfs:///x", HDFS).uri == "hdfs://core:1/x"
    hdfs.write_text("<configuration>")
    with pytest.raises(ConfigurationError, match=r"hdfs-site\.xml cannot be read"):
        configuration(given)
