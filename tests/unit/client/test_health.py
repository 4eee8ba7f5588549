"""`sluice health` asks a real server, and its exit code is what a supervisor may rely on."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time

import pytest
import trustme

from common.rpc import GrpcServer, HealthCondition, ServerSettings, ServiceBinding

SERVICE = "sluice.query.v1.QueryService"


async def health(*arguments, **environ):
    """The exit code, stdout and stderr of the command, as a supervisor runs it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", "health", *arguments),
        env=own | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def served(condition=None, **settings):
    conditions = {"disk": condition} if condition else {}
    binding = ServiceBinding(SERVICE, lambda _: None, conditions)
    return GrpcServer.open(ServerSettings(listen="127.0.0.1:0", drain_s=0, **settings), [binding])


async def test_a_server_that_serves_is_0_and_one_that_stops_is_1():
    async with served() as server:
        assert await health(server.address) == (0, f"{server.address} says SERVING\n", "")
        whole, one = await asyncio.gather(
            health("--json", SLUICE_CLIENT__TARGET=server.address),
            health(server.address, "--service", SERVICE),
        )
        assert (whole[0], one[0]) == (0, 0)
        assert json.loads(whole[1]) == {
            "serving": True,
            "servers": [{"address": server.address, "status": "SERVING"}],
        }
        server._health.stop()
        told = f"error: {server.address} says NOT_SERVING\n"
        assert await health(server.address) == (1, "", told)


async def test_a_service_is_asked_for_by_its_name():
    async with served(HealthCondition(holds=False)) as server:
        failing, unknown = await asyncio.gather(
            health(server.address, "--service", "disk"),
            health(server.address, "--service", "disc", "--json"),
        )
    assert failing == (1, "", f"error: {server.address} says NOT_SERVING\n")
    assert unknown[0] == 1
    assert json.loads(unknown[1])["servers"][0]["status"] == "NOT_OFFERED"
    assert unknown[2] == f"error: {server.address} does not offer disc\n"


async def test_where_nobody_listens_is_said_in_one_line():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        code, out, err = await health(address)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: no server answers at {address}: ")
    assert "Connection refused" in err
    assert err.count("\n") == 1


async def test_a_server_that_says_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began_s = time.monotonic()
        code, _, err = await health(address, "--timeout", "0.5")
    assert (code, err) == (1, f"error: {address} did not answer within 0.5 s\n")
    # The rest is the start of the interpreter, on a machine that is busy.
    assert time.monotonic() - began_s < 15


async def test_tls_is_spoken_as_the_client_is_set(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    (tmp_path / "cert.pem").write_bytes(chain)
    config = tmp_path / "sluice.yaml"
    config.write_text(json.dumps({"client": {"channel": {"tls_ca": str(tmp_path / "ca.pem")}}}))
    files = {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    async with served(**files) as server:
        target = f"localhost:{server.address.rpartition(':')[2]}"
        trusting, plain = await asyncio.gather(
            health(target, "--config", str(config)), health(target)
        )
    assert trusting == (0, f"{target} says SERVING\n", "")
    assert (plain[0], plain[1]) == (1, "")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
async def test_a_bound_that_is_none_is_wrong_usage(seconds):
    assert (await health("127.0.0.1:1", "--timeout", seconds))[0] == 2


async def test_nothing_heavy_is_imported_for_it():
    async with served() as server:
        code = (
            "import sys, client.cli\n"
            "try: client.cli.main(['health', sys.argv[1]])\n"
            "except SystemExit as ended: assert ended.code == 0, ended.code\n"
            "heavy = {'chromadb', 'llama_index', 'numpy', 'pyarrow', 'onnxruntime', 'rich.table',\n"
            "         'opentelemetry.sdk', 'aetcd', 'sqlite3', 'indexer', 'query', 'ingestor'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, server.address, stderr=subprocess.PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")
