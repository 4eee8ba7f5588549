"""What a source of HDFS does while name nodes and data nodes fail."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hdfs_native import Client, WriteOptions

from common.errors import ConfigurationError, FailedPrecondition, Unavailable
from ingestor.faults import Cause, Fault
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


async def test_data_nodes_that_come_back_are_waited_for_no_longer_than_needed(
    dfs, executor, tmp_path
):
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    options = WriteOptions(create_parent=True)
    with client.create(f"/{tmp_path.name}/0", options) as file:
        file.write(b"text")
    source = await open_source(f"{dfs.uri}/{tmp_path.name}", settings(dfs), executor)
    entry = await source.stat("0")
    assert isinstance(entry, FileEntry)
    dfs.command("kill-datanodes")
    try:
        began = time.monotonic()
        for _ in range(7):
            fault = await source.read(entry, 100)
            assert isinstance(fault, Fault)
            assert fault.cause == Cause.UNREADABLE
        with pytest.raises(Unavailable, match="8 files in a row could not be read"):
            await source.read(entry, 100)
        assert time.monotonic() - began < 20
    finally:
        dfs.command("restart-datanodes")
    opened = await source.open(entry)
    assert not isinstance(opened, Fault)
    assert await opened.read_at(0, 100) == b"text"


async def test_a_name_node_that_is_not_there_is_told_in_seconds(executor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"hdfs://127.0.0.1:{port}.*Connection refused"):
        await open_source(f"hdfs://127.0.0.1:{port}/x", HdfsSettings(), executor)
    assert time.monotonic() - began < 20


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
