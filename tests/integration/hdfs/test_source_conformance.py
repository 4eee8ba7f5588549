"""What every source promises, on the local file system and on HDFS by each of its clients."""

from __future__ import annotations

import getpass
import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hdfs_native import Client, WriteOptions

from common.errors import FailedPrecondition, NotFound
from ingestor.faults import Cause, Fault
from ingestor.settings import HdfsSettings, WebHdfsSettings
from ingestor.storage.sources import MAX_BATCH, FileEntry, ListingFault, open_source, order

if TYPE_CHECKING:
    from pathlib import Path

    from ingestor.storage.sources import StorageSource
    from tests.integration.hdfs.minidfs import MiniDfs

# The library and the Java classes are an administrator's to install.
HAS_LIBHDFS = "ARROW_LIBHDFS_DIR" in os.environ or "HADOOP_HOME" in os.environ
REMOTE = ["native", "webhdfs", *(["libhdfs"] if HAS_LIBHDFS else [])]
BLOCK_BYTES = 16 * 2**20  # of the cluster
NAMES = [
    "B",
    "a",
    "b!/x",
    "b.txt",
    "b/a!",
    "b/a/z",
    "b/c.txt",
    "d/#.md",
    "d/%41 100%.md",
    "d/;=&+ x.md",
    "d/?.md",
    "d/back\\slash.md",
    "d/new\nline 😀.md",
    "é",
    "\uffee",  # after the next one, if names were compared as UTF-16
    "😀",
]


class LocalPlace:
    """A folder to fill beside what reads it."""

    client_name = "local"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = folder.as_uri()
        self.settings = HdfsSettings()

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()

    def modified_us(self, name: str) -> int:
        return (self.folder / name).stat().st_mtime_ns // 1000


class HdfsPlace:
    def __init__(self, dfs: MiniDfs, client: str, folder: str) -> None:
        self.dfs = dfs
        self.client_name = client
        self.path = f"/conformance/{folder}"
        self.client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
        self.client.mkdirs(self.path, create_parent=True)
        if client == "webhdfs":
            self.uri = f"webhdfs://{dfs.http_address}{self.path}"
        else:
            self.uri = dfs.uri + self.path
        self.settings = HdfsSettings(
            client="libhdfs" if client == "libhdfs" else "native",
            conf_dir=dfs.conf_dir,
            web=WebHdfsSettings(user=getpass.getuser()),
        )

    def write(self, name: str, content: bytes) -> None:
        options = WriteOptions(overwrite=True, create_parent=True)
        with self.client.create(f"{self.path}/{name}", options) as file:
            file.write(content)

    def delete(self, name: str) -> None:
        assert self.client.delete(f"{self.path}/{name}")

    def modified_us(self, name: str) -> int:
        modified_us = self.client.get_file_info(f"{self.path}/{name}").modification_time * 1000
        # libhdfs tells whole seconds
        return modified_us - modified_us % (1_000_000 if self.client_name == "libhdfs" else 1)

    def deny(self, name: str) -> None:
        """From everybody but the superuser, whom the tests are not."""
        self.dfs.command("chmod", "000", f"{self.path}/{name}".rstrip("/"))


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as running:
        yield running


@pytest.fixture(params=["local", *REMOTE])
def place(request, tmp_path):
    if request.param == "local":
        return LocalPlace(tmp_path)
    return HdfsPlace(request.getfixturevalue("dfs"), request.param, tmp_path.name)


@pytest.fixture(params=REMOTE)
def remote_place(request, tmp_path, dfs):
    return HdfsPlace(dfs, request.param, tmp_path.name)


async def walked(source: StorageSource) -> list[Any]:
    return [item async for batch in source.walk(lambda _: True) for item in batch]


def write_all(place: LocalPlace | HdfsPlace, files: dict[str, bytes]) -> None:
    """Many at a time: the first block of a file takes long to write."""
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(place.write, files, files.values()))


async def test_files_come_in_order_as_they_are(place, executor):
    # Java hands over what is beyond U+FFFF in an encoding of its own.
    names = [name for name in NAMES if place.client_name != "libhdfs" or max(name) <= "\uffff"]
    write_all(place, {name: name.encode() for name in names})
    source = await open_source(place.uri, place.settings, executor)
    entries = await walked(source)
    assert [entry.path for entry in entries] == sorted(names, key=order)
    assert source.root_uri == f"{place.uri}/"
    for entry in entries:
        assert isinstance(entry, FileEntry)
        assert entry.uri == source.root_uri + quote(entry.path)
        assert entry.size == len(entry.path.encode())
        assert entry.modified_us == place.modified_us(entry.path)
        assert await source.stat(entry.path) == entry
        assert await source.read(entry, entry.size) == entry.path.encode()


async def test_an_opened_file_is_read_at_any_place(place, executor):
    content = os.urandom(BLOCK_BYTES + 5_000_000)
    place.write("big", content)
    source = await open_source(place.uri, place.settings, executor)
    (entry,) = await walked(source)
    file = await source.open(entry)
    assert not isinstance(file, Fault)
    assert file.size == len(content)
    for offset, length in [
        (0, 1),
        (BLOCK_BYTES - 10, 20),
        (1_000, 9_000_000),
        (len(content) - 3, 100),
        (len(content), 1),
        (len(content) + 7, 1),
        (5, 0),
    ]:
        assert await file.read_at(offset, length) == content[offset : offset + length]
    await file.aclose()
    assert await source.read(entry, len(content)) == content


async def test_reading_is_bounded_and_says_what_is_gone(place, executor):
    place.write("a", b"12345")
    place.write("empty", b"")
    source = await open_source(place.uri, place.settings, executor)
    entry, empty = await walked(source)
    assert await source.read(empty, 0) == b""
    opened = await source.open(empty)
    assert not isinstance(opened, Fault)
    assert await opened.read_at(0, 10) == b""
    too_large = await source.read(entry, 4)
    assert isinstance(too_large, Fault)
    assert too_large.cause == Cause.TOO_LARGE
    place.delete("a")
    for gone in (await source.read(entry, 5), await source.open(entry)):
        assert isinstance(gone, Fault)
        assert gone.cause == Cause.GONE
    assert await source.stat("a") is None
    assert await source.stat("a/b") is None


async def test_a_compressed_file_is_read_as_it_is(place, executor):
    packed = gzip.compress(b"A block has three replicas.\n" * 100)
    place.write("a.txt.gz", packed)
    source = await open_source(place.uri, place.settings, executor)
    (entry,) = await walked(source)
    assert await source.read(entry, len(packed)) == packed


async def test_a_single_file_is_a_root_too(place, executor):
    place.write("d/one #1.md", b"text")
    uri = f"{place.uri}/d/one%20%231.md"
    source = await open_source(uri, place.settings, executor)
    (entry,) = await walked(source)
    assert (source.root_uri, entry.uri, entry.path) == (uri, uri, "one #1.md")
    assert await source.stat(entry.path) == entry
    assert await source.read(entry, 4) == b"text"
    place.delete("d/one #1.md")
    assert await walked(source) == []


async def test_a_root_must_be_there(place, executor):
    with pytest.raises(NotFound, match="no such file or folder"):
        await open_source(f"{place.uri}/absent", place.settings, executor)


async def test_a_large_folder_comes_in_bounded_batches(place, executor):
    names = [f"many/{number:04d}" for number in range(2_500)]
    write_all(place, dict.fromkeys(names, b""))
    source = await open_source(place.uri, place.settings, executor)
    batches = [batch async for batch in source.walk(lambda _: True)]
    assert [entry.path for batch in batches for entry in batch] == names
    assert all(0 < len(batch) <= MAX_BATCH for batch in batches)
    entered = [batch async for batch in source.walk(lambda folder: folder != "many")]
    assert entered == []


async def test_a_large_folder_of_many_alphabets_comes_in_order(remote_place, executor):
    """A name node lists what is beyond ASCII first."""
    beyond = [f"{first}{number:04d}" for first in ("a é", "文") for number in range(MAX_BATCH)]
    names = sorted(beyond + [f"a {number}" for number in range(300)] + ["~"])
    write_all(remote_place, dict.fromkeys(names, b""))
    source = await open_source(remote_place.uri, remote_place.settings, executor)
    assert [entry.path for entry in await walked(source)] == names


async def test_a_file_that_is_being_written_is_read_as_far_as_it_is_listed(dfs, executor, tmp_path):
    place = HdfsPlace(dfs, "native", tmp_path.name)
    content = os.urandom(BLOCK_BYTES + 100_000)
    open_files = []  # or they would be closed
    for name, written in (("begun", b"x"), ("half", content)):
        open_files.append(place.client.create(f"{place.path}/{name}", WriteOptions()))
        open_files[-1].write(written)
    place.write("whole", b"whole")
    appended = place.client.append(f"{place.path}/whole")
    appended.write(b", and more")
    source = await open_source(place.uri, place.settings, executor)
    begun, half, whole = await walked(source)
    assert (begun.size, await source.read(begun, 10)) == (0, b"")
    assert half.size == BLOCK_BYTES
    assert await source.read(half, len(content)) == content[:BLOCK_BYTES]
    # Its last block cannot be seen. Taken for an empty file, its text would leave the index.
    for fault in (await source.read(whole, 100), await source.open(whole)):
        assert isinstance(fault, Fault)
        assert (fault.cause, fault.message) == (
            Cause.UNREADABLE,
            "it is being written: 0 of 5 bytes can be read",
        )
    for file in (*open_files, appended):
        file.close()
    assert await source.read(whole, 100) == b"whole, and more"
    place.write("whole", b"cut")
    assert await source.read(whole, 100) == b"cut"


async def test_what_may_not_be_seen_is_a_fault_of_its_own(remote_place, executor):
    place = remote_place
    for name in ("a", "d/x", "z"):
        place.write(name, b"x")
    place.deny("d")
    place.deny("z")
    source = await open_source(place.uri, place.settings, executor)
    first, denied, last = await walked(source)
    assert isinstance(denied, ListingFault)
    assert (first.path, denied.path, last.path) == ("a", "d", "z")
    assert (denied.fault.cause, denied.may_be_folder) == (Cause.PERMISSION_DENIED, True)
    assert isinstance(last, FileEntry)
    for fault in (await source.read(last, 1), await source.stat("d/x")):
        assert isinstance(fault, Fault)
        assert fault.cause == Cause.PERMISSION_DENIED
    place.deny("")
    with pytest.raises(FailedPrecondition, match=r"cannot be listed: this user may not read it"):
        await walked(source)


async def test_a_walk_asks_for_no_file_by_itself(remote_place, executor):
    place = remote_place
    write_all(place, {f"d{number % 3}/{number}": b"" for number in range(30)})
    source = await open_source(place.uri, place.settings, executor)
    before = place.dfs.audit_log.stat().st_size
    assert len(await walked(source)) == 30
    with place.dfs.audit_log.open(encoding="utf-8") as log:
        log.seek(before)
        commands = [line.partition("\tcmd=")[2].partition("\t")[0] for line in log]
    assert commands.count("listStatus") == 4
    # pyarrow looks twice at a folder before it lists it through libhdfs
    assert len(commands) == (12 if place.client_name == "libhdfs" else 4)
