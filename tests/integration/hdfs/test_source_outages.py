"""What a source of HDFS does while name nodes and data nodes fail."""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hdfs_native import Client, WriteOptions

from common.errors import ConfigurationError, FailedPrecondition, Unavailable
from ingestor.faults import Fault
from ingestor.settings import HdfsSettings
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate
from ingestor.storage.sources import FileEntry, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.hdfs.minidfs import MiniDfs

FOLDERS, FILES = 8, 900
READ = 300  # every so many of them have content: a file with a block takes long to write


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as running:
        yield running


def filled(dfs: MiniDfs, folder: str, folders: int = FOLDERS, files: int = FILES) -> list[str]:
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    names = [f"d{of}/{number:04d}" for of in range(folders) for number in range(files)]
    options = WriteOptions(overwrite=True, create_parent=True)

    def write(name: str) -> None:
        with client.create(f"/{folder}/{name}", options) as file:
            if int(name[-4:]) % READ == 0:
                file.write(name.encode())

    with ThreadPoolExecutor(32) as writers:
        list(writers.map(write, names))
    return names


def settings(dfs: MiniDfs, **options) -> HdfsSettings:
    return HdfsSettings(conf_dir=dfs.conf_dir, **options)


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_a_failover_in_the_middle_of_a_walk_loses_nothing(ha_dfs, executor, tmp_path):
    names = filled(ha_dfs, tmp_path.name)
    source = await open_source(f"{ha_dfs.uri}/{tmp_path.name}", settings(ha_dfs), executor)
    found: list[str] = []
    async for batch in source.walk(lambda _: True):
        if not found:
            ha_dfs.command("failover")
        found += [entry.path for entry in batch]
    assert found == names


async def test_a_name_node_that_dies_under_a_walk_and_reads_loses_nothing(
    ha_dfs, executor, tmp_path
):
    names = filled(ha_dfs, tmp_path.name)
    source = await open_source(f"{ha_dfs.uri}/{tmp_path.name}", settings(ha_dfs), executor)
    killed = None
    read = []
    async for batch in source.walk(lambda _: True):
        if killed is None:
            killed = ha_dfs.command("active")
            ha_dfs.command("kill-namenode", killed)
            ha_dfs.command("failover")
        for entry in batch:
            if isinstance(entry, FileEntry) and entry.size:
                assert await source.read(entry, 100) == entry.path.encode()
        read += [entry.path for entry in batch]
    assert read == names
    assert killed is not None
    ha_dfs.command("restart-namenode", killed)


def test_a_state_folder_is_written_through_a_failover(ha_dfs, tmp_path):
    state = StateFolder.at(locate(f"{ha_dfs.uri}/{tmp_path.name}/state", settings(ha_dfs)))
    with state.replacing("manifest") as sink:
        sink.write(b"before")
    with state.replacing("manifest") as sink:
        sink.write(b"after ")
        ha_dfs.command("failover")
        sink.write(b"the failover")
    with state.open_input("manifest") as file:
        assert file.read() == b"after the failover"
    assert list(state.names()) == ["manifest"]


def test_a_state_folder_waits_for_an_active_name_node(ha_dfs, tmp_path, monkeypatch):
    state = StateFolder.at(locate(f"{ha_dfs.uri}/{tmp_path.name}/state", settings(ha_dfs)))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        if not waits:
            ha_dfs.command("failover")
        waits.append(seconds)

    monkeypatch.setattr("ingestor.storage.hdfs_client.time.sleep", wait)
    with state.replacing("manifest") as sink:
        sink.write(b"text")
        killed = ha_dfs.command("active")
        ha_dfs.command("kill-namenode", killed)
    ha_dfs.command("restart-namenode", killed)
    assert waits
    waits.clear()
    killed = ha_dfs.command("active")
    ha_dfs.command("kill-namenode", killed)
    assert list(state.names()) == ["manifest"]
    ha_dfs.command("restart-namenode", killed)
    assert waits
    with state.open_input("manifest") as file:
        assert file.read() == b"text"


def test_a_state_folder_waits_for_a_data_node(dfs, tmp_path, monkeypatch):
    state = StateFolder.at(locate(f"{dfs.uri}/{tmp_path.name}/state", settings(dfs)))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        if not waits:
            dfs.command("restart-datanodes")
        waits.append(seconds)

    monkeypatch.setattr("ingestor.state.state_folder.time.sleep", wait)
    with state.replacing("manifest") as sink:
        sink.write(b"text")
        dfs.command("kill-datanodes")
    with state.open_input("manifest") as file:
        assert file.read() == b"text"
    assert list(state.names()) == ["manifest"]
    assert waits


async def test_data_nodes_that_come_back_are_waited_for(dfs, executor, tmp_path):
    """In the middle of a large file, too."""
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    options = WriteOptions(create_parent=True)
    content = {"large": bytes(range(256)) * 2**17, "small": b"text"}
    for name, text in content.items():
        with client.create(f"/{tmp_path.name}/{name}", options) as file:
            file.write(text)
    source = await open_source(f"{dfs.uri}/{tmp_path.name}", settings(dfs), executor)
    large, small = [entry async for batch in source.walk(lambda _: True) for entry in batch]
    assert isinstance(large, FileEntry)
    assert isinstance(small, FileEntry)
    opened = await source.open(large)
    assert not isinstance(opened, Fault)
    assert await opened.read_at(0, 2**20) == content["large"][: 2**20]
    dfs.command("kill-datanodes")
    try:
        reading = asyncio.gather(
            source.read(large, large.size),
            source.read(small, small.size),
            opened.read_at(2**24 - 5, 10),
        )
        done, _ = await asyncio.wait((reading,), timeout=0.5)
        assert not done
    finally:
        dfs.command("restart-datanodes")
    assert [*await reading] == [*content.values(), content["large"][2**24 - 5 : 2**24 + 5]]


async def test_data_nodes_that_stay_away_end_the_job(dfs, executor, tmp_path):
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    for name in "ab":
        with client.create(f"/{tmp_path.name}/{name}", WriteOptions(create_parent=True)) as file:
            file.write(b"text")
    brief = settings(dfs, outage_s=1)
    source = await open_source(f"{dfs.uri}/{tmp_path.name}", brief, executor)
    files = [entry async for batch in source.walk(lambda _: True) for entry in batch]
    dfs.command("kill-datanodes")
    try:
        reads = (source.read(entry, 10) for entry in files if isinstance(entry, FileEntry))
        for ended in await asyncio.gather(*reads, return_exceptions=True):
            assert isinstance(ended, Unavailable)
            assert "no data node gave a block for 1 s" in ended.message
    finally:
        dfs.command("restart-datanodes")


@contextmanager
def cutting(dfs: MiniDfs, request: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A port before a name node that cuts the first connection on which this is asked for.

    The request goes through; its answer does not.
    """
    name_node = urlsplit(dfs.uri)
    assert name_node.hostname is not None
    assert name_node.port is not None
    cut: list[bytes] = []

    def forward(client: socket.socket) -> None:
        with client, socket.create_connection((name_node.hostname, name_node.port), 10) as server:
            is_cut = False
            while True:
                for readable in select.select((client, server), (), ())[0]:
                    block = readable.recv(2**16)
                    if not block or (is_cut and readable is server):
                        return
                    if readable is client and request in block and not cut:
                        is_cut = True
                        cut.append(block)
                    (server if readable is client else client).sendall(block)

    def accept() -> None:
        while True:
            try:
                client = listening.accept()[0]
            except OSError:  # closed
                return
            threading.Thread(target=forward, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listening.getsockname()[1], cut
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()


@pytest.mark.parametrize("request_name", [b"rename2", b"create", b"complete", b"delete", b"mkdirs"])
def test_a_state_file_is_replaced_though_an_answer_is_lost(dfs, tmp_path, request_name):
    with cutting(dfs, request_name) as (port, cut):
        uri = f"hdfs://127.0.0.1:{port}/{tmp_path.name}"
        state = StateFolder.at(locate(uri, settings(dfs)))
        for text in (b"old", b"new"):
            with state.replacing("manifest") as sink:
                sink.write(text)
            with state.open_input("manifest") as file:
                assert file.read() == text
        state.delete("other")
        assert list(state.names()) == ["manifest"]
        assert cut


def test_who_may_not_write_the_state_is_told_so(dfs, tmp_path, monkeypatch):
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    client.mkdirs(f"/{tmp_path.name}", 0o755, create_parent=True)
    dfs.command("chown", "hdfs", "supergroup", f"/{tmp_path.name}")
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    state = StateFolder.at(locate(f"{dfs.uri}/{tmp_path.name}/state", settings(dfs)))
    denied = "Permission denied: user=alice, access=WRITE, inode=."
    with pytest.raises(PermissionError, match=denied), state.replacing("manifest"):
        pass


def test_a_process_ends_although_its_calls_never_return():
    """Neither a hung read nor a hung look at the state holds it."""
    program = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from ingestor.settings import HdfsSettings
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate
from ingestor.storage.sources import open_source

async def main(uri, hdfs):
    with ThreadPoolExecutor(2) as executor:
        loop = asyncio.get_running_loop()
        names = loop.run_in_executor(executor, StateFolder.at(locate(uri, hdfs)).names)
        source = open_source(uri, hdfs, executor)
        ended = await asyncio.gather(source, names, return_exceptions=True)
        print(*map(str, ended), sep="\\n")

asyncio.run(main(sys.argv[1], HdfsSettings(timeout_s=0.5, outage_s=1)))
"""
    with silent() as port:
        done = subprocess.run(
            [sys.executable, "-c", program, f"hdfs://127.0.0.1:{port}/x"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("no answer within 0.5 s") == 2


async def test_a_name_node_that_is_not_there_is_told_in_seconds(executor, monkeypatch):
    monkeypatch.setattr("ingestor.storage.sources._OUTAGE_AT_START_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"hdfs://127.0.0.1:{port}.*Connection refused"):
        await open_source(f"hdfs://127.0.0.1:{port}/x", HdfsSettings(), executor)
    assert time.monotonic() - began < 10


async def test_a_name_node_that_does_not_answer_is_told_in_time(executor):
    with silent() as port:
        patient = HdfsSettings(timeout_s=0.5, outage_s=1)
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer within 0.5 s"):
            await open_source(f"hdfs://127.0.0.1:{port}/x", patient, executor)
        assert time.monotonic() - began < 10


async def test_the_next_name_node_is_asked_when_one_does_not_answer(ha_dfs, executor, tmp_path):
    names = filled(ha_dfs, tmp_path.name, folders=1, files=3)
    active = int(ha_dfs.command("active"))
    with silent() as port:
        options = {}
        for index, name in enumerate(("nn0", "nn1")):
            key = f"dfs.namenode.rpc-address.minicluster.{name}"
            options[key] = "" if index == active else f"127.0.0.1:{port}"
        options = {key: value for key, value in options.items() if value}
        order = ("nn1", "nn0") if active == 0 else ("nn0", "nn1")
        options["dfs.ha.namenodes.minicluster"] = ",".join(order)
        hung = settings(ha_dfs, options=options, timeout_s=1)
        source = await open_source(f"{ha_dfs.uri}/{tmp_path.name}", hung, executor)
        found = [entry.path async for batch in source.walk(lambda _: True) for entry in batch]
    assert found == names


async def test_no_active_name_node_ends_the_job_within_its_bound(ha_dfs, executor, tmp_path):
    filled(ha_dfs, tmp_path.name, folders=1, files=1)
    brief = settings(ha_dfs, outage_s=1)
    source = await open_source(f"{ha_dfs.uri}/{tmp_path.name}", brief, executor)
    killed = ha_dfs.command("active")
    ha_dfs.command("kill-namenode", killed)  # the other stays a standby
    try:
        with pytest.raises(Unavailable, match=r"out of reach for 1 s .*StandbyException"):
            await source.stat("d0/0000")
    finally:
        ha_dfs.command("failover")
        ha_dfs.command("restart-namenode", killed)
    assert isinstance(await source.stat("d0/0000"), FileEntry)


def test_a_nameservice_that_nobody_knows_is_a_wrong_configuration(ha_dfs):
    with pytest.raises(ConfigurationError, match=r"if nowhere is a nameservice"):
        locate("hdfs://nowhere/x", settings(ha_dfs))
    missing = HdfsSettings(conf_dir=ha_dfs.conf_dir / "absent")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        locate(f"{ha_dfs.uri}/x", missing)


def test_a_uri_without_a_cluster_means_the_default_one(ha_dfs):
    location = locate("hdfs:///a/b", settings(ha_dfs))
    assert (location.uri, location.path) == ("hdfs://minicluster/a/b", "/a/b")


async def test_who_may_not_open_a_root_is_told_so(dfs, executor, monkeypatch):
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    client.mkdirs("/closed/inner", create_parent=True)
    dfs.command("chmod", "700", "/closed")
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    with pytest.raises(FailedPrecondition, match="this user may not read it"):
        await open_source(f"{dfs.uri}/closed/inner", settings(dfs), executor)
