"""HDFS over HTTP: encrypted, and where the server refuses."""

from __future__ import annotations

import getpass
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trustme
from hdfs_native import Client, WriteOptions

from common.errors import Unavailable
from ingestor.settings import HdfsSettings, WebHdfsSettings
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
        strict = HdfsSettings(outage_s=0)
        with pytest.raises(Unavailable, match=r"TLS: .*CERTIFICATE_VERIFY_FAILED"):
            await open_source(uri, strict, executor)


async def test_a_cluster_that_asks_who_one_is_says_so(kerberos_dfs, executor):
    uri = f"webhdfs://{kerberos_dfs.http_address}/"
    with pytest.raises(Unavailable, match=r"does not accept who this job is \(SaslException"):
        await open_source(uri, HdfsSettings(outage_s=0), executor)
    uri = kerberos_dfs.uri
    settings = HdfsSettings(outage_s=0, conf_dir=kerberos_dfs.conf_dir)
    with pytest.raises(Unavailable, match=r"does not accept who this job is \("):
        await open_source(uri, settings, executor)
