"""HDFS over HTTP, encrypted; and clusters that refuse who asks."""

from __future__ import annotations

import getpass
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trustme
from hdfs_native import Client, WriteOptions

from common.errors import FailedPrecondition
from ingestor.settings import HdfsSettings, WebHdfsSettings
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate
from ingestor.storage.sources import FileEntry, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as running:
        yield running


@contextmanager
def encrypted(address: str, authority: trustme.CA) -> Iterator[int]:
    """A port that speaks TLS and passes everything on to an HTTP server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    host, _, port = address.rpartition(":")

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65_536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)

    def serve(server: socket.socket) -> None:
        while True:
            try:
                accepted, _ = server.accept()
            except OSError:  # closed
                return
            with suppress(OSError):  # a client that does not trust the certificate
                near = context.wrap_socket(accepted, server_side=True)
                far = socket.create_connection((host, int(port)))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


async def test_a_cluster_is_read_over_tls_if_its_certificate_is_trusted(dfs, executor, tmp_path):
    client = Client(dfs.uri, config_dir=str(dfs.conf_dir))
    with client.create(f"/{tmp_path.name}/a", WriteOptions(create_parent=True)) as file:
        file.write(b"text")
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with encrypted(dfs.http_address, authority) as port:
        uri = f"swebhdfs://localhost:{port}/{tmp_path.name}"
        web = WebHdfsSettings(user=getpass.getuser(), ca_file=ca_file)
        source = await open_source(uri, HdfsSettings(web=web), executor)
        (entry,) = [entry async for batch in source.walk(lambda _: True) for entry in batch]
        assert isinstance(entry, FileEntry)
        assert entry.uri == f"{uri}/a"
        assert await source.read(entry, 10) == b"text"
        with pytest.raises(FailedPrecondition, match=r"TLS: .*CERTIFICATE_VERIFY_FAILED.*ca_file"):
            await open_source(uri, HdfsSettings(), executor)
    plain = f"swebhdfs://{dfs.http_address}/{tmp_path.name}"
    with pytest.raises(FailedPrecondition, match=r"TLS: .*the port is right"):
        await open_source(plain, HdfsSettings(), executor)


async def test_a_cluster_that_asks_who_one_is_says_so(
    kerberos_dfs, executor, tmp_path, monkeypatch
):
    monkeypatch.setenv("KRB5_CONFIG", str(kerberos_dfs.krb5_conf))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")
    settings = HdfsSettings(conf_dir=kerberos_dfs.conf_dir)
    began = time.monotonic()
    uri = f"webhdfs://{kerberos_dfs.http_address}/"
    with pytest.raises(FailedPrecondition, match=r"cannot be entered \(SaslException.*log in"):
        await open_source(uri, settings, executor)
    told = r"cannot be entered \(.*No Kerberos credentials available .*/none\)\): log in by kinit"
    with pytest.raises(FailedPrecondition, match=told):
        await open_source(kerberos_dfs.uri, settings, executor)
    assert time.monotonic() - began < 8


def test_who_has_no_ticket_is_told_so_soon_where_the_state_is_kept(
    kerberos_dfs, tmp_path, monkeypatch
):
    monkeypatch.setenv("KRB5_CONFIG", str(kerberos_dfs.krb5_conf))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")
    monkeypatch.setattr("ingestor.storage.outage._REFUSED_S", 0.5)
    settings = HdfsSettings(conf_dir=kerberos_dfs.conf_dir)
    state = StateFolder.at(locate(f"{kerberos_dfs.uri}/state", settings))
    began = time.monotonic()
    with pytest.raises(OSError, match=r"No Kerberos credentials available .* log in by kinit"):
        state.names()
    assert time.monotonic() - began < 5
