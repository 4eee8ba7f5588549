"""The clusters that the tests of this folder rely on do what their doors promise."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import hdfs_native
import pytest

from tests.integration.hdfs.minidfs import mini_dfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.hdfs.minidfs import MiniDfs

CONTENT = bytes(range(256)) * 64
WITHIN_S = 20
# whatever fails, fails at once: by default the client tries for three minutes
ONCE = {"dfs.client.failover.max.attempts": "0"}

RUN_AND_WAIT = """
import sys
from pathlib import Path
from tests.integration.hdfs.minidfs import mini_dfs
with mini_dfs("plain", Path(sys.argv[1])) as cluster:
    print(cluster._process.pid, flush=True)
    sys.stdin.read()
"""


def test_what_is_written_is_read_and_listed(dfs: MiniDfs, monkeypatch, request) -> None:
    client = _client(dfs, monkeypatch)
    folder = _folder(client, request)
    _write(client, f"{folder}/a.bin")
    assert _read(client, f"{folder}/a.bin") == CONTENT
    assert [(entry.path, entry.length) for entry in client.list_status(folder)] == [
        (f"{folder}/a.bin", len(CONTENT))
    ]


def test_a_user_is_refused_what_is_not_theirs(dfs: MiniDfs, monkeypatch, request) -> None:
    client = _client(dfs, monkeypatch)
    folder = _folder(client, request)
    dfs.command("chmod", "700", folder)
    dfs.command("chown", "hdfs", "supergroup", folder)
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    with pytest.raises(RuntimeError, match="Permission denied: user=alice"):
        list(_client(dfs, monkeypatch).list_status(folder))
    dfs.command("chmod", "755", folder)
    assert list(_client(dfs, monkeypatch).list_status(folder)) == []


def test_the_audit_log_has_each_operation_at_once(dfs: MiniDfs, monkeypatch, request) -> None:
    client = _client(dfs, monkeypatch)
    folder = _folder(client, request)
    _write(client, f"{folder}/a")
    _read(client, f"{folder}/a")
    operations = re.findall(rf"cmd=(\w+)\tsrc={folder}", dfs.audit_log.read_text())
    assert operations == ["mkdirs", "create", "open"]


def test_the_name_node_answers_over_http(dfs: MiniDfs, monkeypatch, request) -> None:
    folder = _folder(_client(dfs, monkeypatch), request)
    host, _, port = dfs.http_address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WITHIN_S)
    try:
        connection.request("GET", f"/webhdfs/v1{folder}?op=GETFILESTATUS")
        response = connection.getresponse()
        assert response.status == HTTPStatus.OK
        assert json.load(response)["FileStatus"]["type"] == "DIRECTORY"
    finally:
        connection.close()


def test_nodes_are_killed_and_come_back_with_what_they_held(
    dfs: MiniDfs, monkeypatch, request
) -> None:
    client = _client(dfs, monkeypatch, ONCE)
    folder = _folder(client, request)
    _write(client, f"{folder}/a")
    dfs.command("kill-datanodes")
    try:
        with pytest.raises(RuntimeError, match="All DataNodes failed"):
            _read(client, f"{folder}/a")
    finally:
        dfs.command("restart-datanodes")
    assert _read(client, f"{folder}/a") == CONTENT
    dfs.command("kill-namenode", "0")
    try:
        with pytest.raises(OSError, match="Connection refused"):
            _read(client, f"{folder}/a")
    finally:
        dfs.command("restart-namenode", "0")
    assert _read(client, f"{folder}/a") == CONTENT


def test_a_command_that_does_not_exist_is_an_error(dfs: MiniDfs) -> None:
    with pytest.raises(RuntimeError, match="no such command: dance"):
        dfs.command("dance")
    assert dfs.command("active") == "0"


def test_a_failover_on_command_is_passed_by_the_same_client(
    ha_dfs: MiniDfs, monkeypatch, request
) -> None:
    client = _client(ha_dfs, monkeypatch)
    folder = _folder(client, request)
    _write(client, f"{folder}/before")
    before = int(ha_dfs.command("active"))
    assert int(ha_dfs.command("failover")) == 1 - before
    _write(client, f"{folder}/after")
    assert _read(client, f"{folder}/before") == CONTENT
    assert [entry.path for entry in client.list_status(folder)] == [
        f"{folder}/after",
        f"{folder}/before",
    ]


def test_a_killed_active_name_node_is_replaced_on_command(
    ha_dfs: MiniDfs, monkeypatch, request
) -> None:
    client = _client(ha_dfs, monkeypatch)
    folder = _folder(client, request)
    _write(client, f"{folder}/a")
    killed = ha_dfs.command("active")
    ha_dfs.command("kill-namenode", killed)
    try:
        with pytest.raises(RuntimeError, match="no name node is active"):
            ha_dfs.command("active")
        assert ha_dfs.command("failover") != killed
        assert _read(client, f"{folder}/a") == CONTENT
        assert [entry.path for entry in client.list_status(folder)] == [f"{folder}/a"]
    finally:
        ha_dfs.command("restart-namenode", killed)
    assert ha_dfs.command("failover") == killed
    assert _read(client, f"{folder}/a") == CONTENT


def test_kerberos_wants_a_ticket(
    kerberos_dfs: MiniDfs, monkeypatch, request, tmp_path: Path
) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'none'}")
    with pytest.raises(RuntimeError, match="No Kerberos credentials available"):
        list(_client(kerberos_dfs, monkeypatch).list_status("/"))
    monkeypatch.setenv("KRB5CCNAME", kerberos_dfs.login(tmp_path / "cache")["KRB5CCNAME"])
    client = _client(kerberos_dfs, monkeypatch)
    folder = _folder(client, request)
    _write(client, f"{folder}/a")
    assert _read(client, f"{folder}/a") == CONTENT
    assert client.get_file_info(f"{folder}/a").owner == "sluice"


def test_a_ticket_ends_in_time(kerberos_dfs: MiniDfs, monkeypatch, tmp_path: Path) -> None:
    credentials = kerberos_dfs.login(tmp_path / "cache", lifetime_s=4)
    monkeypatch.setenv("KRB5CCNAME", credentials["KRB5CCNAME"])
    list(_client(kerberos_dfs, monkeypatch).list_status("/"))
    _until(lambda: not _is_valid(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match="expired"):
        list(_client(kerberos_dfs, monkeypatch).list_status("/"))


def test_a_further_principal_is_another_user(
    kerberos_dfs: MiniDfs, monkeypatch, tmp_path: Path
) -> None:
    keytab, cache = tmp_path / "alice.keytab", tmp_path / "cache"
    kerberos_dfs.command("add-principal", "alice", str(keytab))
    environ = {**os.environ, **kerberos_dfs.environ}
    login = ["kinit", "-c", str(cache), "-k", "-t", str(keytab), "alice"]
    subprocess.run(login, env=environ, check=True, timeout=WITHIN_S)
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{cache}")
    client = _client(kerberos_dfs, monkeypatch)
    client.mkdirs("/of-alice", 0o755, create_parent=True)
    assert client.get_file_info("/of-alice").owner == "alice"


def test_a_cluster_ends_when_its_test_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_AND_WAIT, str(tmp_path / "dfs")]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        cluster = Path("/proc", process.stdout.readline().strip())
        assert b"minidfs.Main" in (cluster / "cmdline").read_bytes()
        process.send_signal(signal.SIGKILL)
    _until(lambda: not cluster.exists())


def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "dfs").write_text("in the way")
    wanted = r"HDFS ended\nstderr.log:\n(.|\n)*IOException"
    with pytest.raises(RuntimeError, match=wanted), mini_dfs("plain", tmp_path):
        pass


def _client(
    cluster: MiniDfs, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str] | None = None
) -> hdfs_native.Client:
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)
    return hdfs_native.Client(cluster.uri, settings or {})


def _folder(client: hdfs_native.Client, request: pytest.FixtureRequest) -> str:
    folder = f"/{request.node.name}"
    client.mkdirs(folder, 0o755, create_parent=True)
    return folder


def _write(client: hdfs_native.Client, path: str) -> None:
    with client.create(path, hdfs_native.WriteOptions()) as file:
        file.write(CONTENT)


def _read(client: hdfs_native.Client, path: str) -> bytes:
    with client.read(path) as file:
        return bytes(file.read(-1))


def _is_valid(cache: Path) -> bool:
    command = ["klist", "-s", "-c", str(cache)]
    return subprocess.run(command, check=False, timeout=WITHIN_S).returncode == 0


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)  # nothing tells when
