"""The nginx example as nginx itself takes it: searches go through it, call by call, over mTLS."""

import asyncio
import http.client
import os
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from client.answers import SearchQuery
from client.client import SluiceClient
from client.local_server import local_server
from common.errors import SluiceError
from common.rpc import ChannelSettings
from common.rpc.channel import IDEMPOTENT
from query.serve import QueryConfig
from tests.unit.deploy.rendering import DEPLOY, tool

CONFIGURATION = DEPLOY / "nginx/sluice.conf"
SECRETS = "/run/secrets/tls"
NAME = "sluice"
TEXT = "Replace a failed NameNode from its newest checkpoint."
START_S = 20
SEARCHES = 8


@dataclass(frozen=True)
class Secrets:
    """Files of one certificate, as a Secret of Kubernetes holds them."""

    folder: Path

    @classmethod
    def write(cls, folder):
        authority = trustme.CA()
        own = authority.issue_cert(NAME, "127.0.0.1")
        folder.mkdir()
        own.private_key_pem.write_to_path(str(folder / "tls.key"))
        for blob in own.cert_chain_pems:
            blob.write_to_path(str(folder / "tls.crt"), append=True)
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        return cls(folder)

    @property
    def channel(self):
        return ChannelSettings(
            tls_ca=self.folder / "ca.crt",
            tls_certificate=self.folder / "tls.crt",
            tls_key=self.folder / "tls.key",
            tls_server_name=NAME,
        )

    @property
    def environ(self):
        """Of a server on one port, and of the commands that call it."""
        return {
            **{name: value for name, value in os.environ.items() if name[:7] != "SLUICE_"},
            "SLUICE_EMBEDDING__KIND": "hashing",
            "SLUICE_UP__SERVER__TLS_CERTIFICATE": str(self.folder / "tls.crt"),
            "SLUICE_UP__SERVER__TLS_KEY": str(self.folder / "tls.key"),
            "SLUICE_UP__SERVER__TLS_CLIENT_CA": str(self.folder / "ca.crt"),
            "SLUICE_CLIENT__CHANNEL__TLS_CA": str(self.folder / "ca.crt"),
            "SLUICE_CLIENT__CHANNEL__TLS_CERTIFICATE": str(self.folder / "tls.crt"),
            "SLUICE_CLIENT__CHANNEL__TLS_KEY": str(self.folder / "tls.key"),
            "SLUICE_CLIENT__CHANNEL__TLS_SERVER_NAME": NAME,
        }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def written(folder, secrets, port, servers):
    """A configuration around the shipped file, with this test's addresses and certificate."""
    text = CONFIGURATION.read_text()
    changes = {
        f"{SECRETS}/": f"{secrets.folder}/",
        "listen 50052 ": f"listen 127.0.0.1:{port} ",
        **{f"query-{number}.example.org:50052": one for number, one in enumerate(servers, 1)},
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "sluice.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    whole = folder / "nginx.conf"
    whole.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}include {folder}/sluice.conf;\n}}\n"
    )
    return whole


def nginx():
    sbin = f"{os.environ['PATH']}:/usr/sbin"
    return tool("nginx", "on Debian it is in nginx-light", path=sbin)


@asynccontextmanager
async def proxy(folder, secrets, servers):
    """The address of a running nginx."""
    port = free_port()
    command = [nginx(), "-p", str(folder), "-c", str(written(folder, secrets, port, servers))]
    with running(command, folder / "nginx.log") as process:
        async with asyncio.timeout(START_S):
            while not connects(port):
                assert process.poll() is None, (folder / "nginx.log").read_text()
                await asyncio.sleep(0.02)  # a port cannot be awaited
        yield f"127.0.0.1:{port}"


@contextmanager
def running(command, log):
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START_S)


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def ingest(folder, address, environ):
    notes = folder / "notes"
    notes.mkdir()
    (notes / "namenode.md").write_text(TEXT)
    state = {"SLUICE_INGEST__STATE_URI": (folder / "state").as_uri()}
    command = [sys.executable, "-m", "client", "ingest", str(notes), "--collection", "docs"]
    done = subprocess.run(
        [*command, "--target", address, "--quiet"],
        check=False,
        capture_output=True,
        env=environ | state,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_nginx_takes_the_configuration(tmp_path):
    secrets = Secrets.write(tmp_path / "secrets")
    whole = written(tmp_path, secrets, 1, ["127.0.0.1:2", "127.0.0.1:3"])
    done = subprocess.run(
        [nginx(), "-t", "-p", str(tmp_path), "-c", str(whole)],
        check=False,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


async def test_searches_go_through_also_while_a_server_is_dead(tmp_path):
    nginx()
    secrets = Secrets.write(tmp_path / "secrets")
    (tmp_path / "server").mkdir()
    async with local_server(tmp_path / "server", environ=secrets.environ) as address:
        await asyncio.to_thread(ingest, tmp_path, address, secrets.environ)
        dead = f"127.0.0.1:{free_port()}"
        # What the client itself would repeat shall not hide what the proxy does not.
        once = secrets.channel.model_copy(update={"max_attempts": 1})
        async with (
            proxy(tmp_path, secrets, [dead, address]) as balanced,
            SluiceClient(balanced, once) as sluice,
        ):
            for _ in range(SEARCHES):
                answer = await sluice.search(SearchQuery("failed NameNode", "docs"))
                assert [hit.text for hit in answer.hits] == [TEXT]
            # What changes collections is not for those who only ask.
            with pytest.raises(SluiceError):
                await sluice.collections()


async def test_whoever_shows_no_certificate_is_refused(tmp_path):
    secrets = Secrets.write(tmp_path / "secrets")
    async with proxy(tmp_path, secrets, ["127.0.0.1:2", "127.0.0.1:3"]) as address:
        context = ssl.create_default_context(cafile=str(secrets.folder / "ca.crt"))
        port = int(address.rpartition(":")[2])
        asked = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        status = await asyncio.to_thread(status_of, asked)
    assert status == http.HTTPStatus.BAD_REQUEST


def status_of(connection):
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_what_is_safe_to_repeat_is_repeated():
    repeated = [
        block.partition("{")[0].split()[-1]
        for block in CONFIGURATION.read_text().split("location")[1:]
        if "non_idempotent" in block.partition("}")[0]
    ]
    assert repeated
    assert set(repeated) <= {f"/{service}/{method}" for service, method in IDEMPOTENT}


def test_a_search_is_not_cut_before_the_servers_own_deadline():
    block = CONFIGURATION.read_text().split("location = /sluice.query.v1.QueryService/Search")[1]
    reading = block.partition("grpc_read_timeout ")[2].partition("s;")[0]
    assert float(reading) > QueryConfig().query.deadline_s
