"""What every server does besides answering: health, reflection, bounds, an orderly stop, TLS."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import ValidationError

from common.errors import ConfigurationError
from common.rpc import ChannelSettings, ServerSettings, open_channel, serve, stop_on_signals
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "sluice.query.v1.QueryService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def _search(channel: grpc.aio.Channel, **options: Any) -> query_pb2.SearchResponse:
    stub = query_pb2_grpc.QueryServiceStub(channel)
    return await stub.Search(query_pb2.SearchRequest(), timeout=10, **options)


async def test_health_by_service_and_as_a_whole(running):
    async with running() as server, open_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", QUERY):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_stop_tells_not_serving_then_lets_work_finish(running):
    begun, finish = asyncio.Event(), asyncio.Event()

    async def search(_request, _context):
        begun.set()
        await finish.wait()
        return query_pb2.SearchResponse(index_version=3)

    async with asyncio.timeout(20):
        async with running(search, drain_s=60.0) as server:
            channel = open_channel(server.address)
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=QUERY))
            assert (await watch.read()).status == SERVING
            searching = asyncio.create_task(_search(channel))
            await begun.wait()

            async def finish_once_not_serving() -> bool:
                told = (await watch.read()).status == NOT_SERVING
                unfinished = not searching.done()
                finish.set()
                return told and unfinished

            finishing = asyncio.create_task(finish_once_not_serving())
        # The server has stopped: long before drain_s, although a watch was open.
        assert await finishing
        assert (await searching).index_version == 3
        assert await watch.read() is grpc.aio.EOF
        await channel.close()


async def test_stop_cuts_what_outlasts_the_drain(running):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def search(_request, _context):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asyncio.timeout(20):
        async with running(search, drain_s=0.05) as server:
            channel = open_channel(server.address, ChannelSettings(max_attempts=1))
            searching = asyncio.create_task(_search(channel))
            await begun.wait()
        await cancelled.wait()
        with pytest.raises(grpc.aio.AioRpcError):
            await searching
        await channel.close()


async def test_reflection_lists_every_service(running):
    async with running() as server, open_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {
        QUERY,
        "sluice.index.v1.IndexService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } <= names


async def test_a_taken_port_is_an_error_that_names_it(running):
    async with running() as server:
        with pytest.raises(ConfigurationError) as caught:
            async with running(listen=server.address):
                pass
        assert server.address in caught.value.message
        assert "another process holds it" in caught.value.message


@pytest.mark.parametrize("listen", ["", "50051", "host:", "host:65536", "unix:"])
def test_an_address_without_a_port_is_refused(listen: str):
    with pytest.raises(ValidationError):
        ServerSettings(listen=listen)


async def test_unix_socket(running, tmp_path: Path):
    address = f"unix:{tmp_path}/s"
    async with running(listen=address) as server:
        assert server.address == address
        async with open_channel(server.address) as channel:
            assert (await _search(channel)).index_version == 7


async def test_more_rpcs_than_allowed_are_refused(running):
    begun, finish = asyncio.Event(), asyncio.Event()

    async def search(_request, _context):
        begun.set()
        await finish.wait()
        return query_pb2.SearchResponse()

    once = ChannelSettings(max_attempts=1)
    async with (
        running(search, max_concurrent_rpcs=1) as server,
        open_channel(server.address, once) as channel,
    ):
        first = asyncio.create_task(_search(channel))
        await asyncio.wait_for(begun.wait(), 10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _search(channel)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        finish.set()
        await first


async def test_a_message_over_the_bound_is_refused(running):
    async with (
        running(max_message_bytes=2048) as server,
        open_channel(server.address) as channel,
    ):
        stub = query_pb2_grpc.QueryServiceStub(channel)
        await stub.Search(query_pb2.SearchRequest(text="x" * 1024), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Search(query_pb2.SearchRequest(text="x" * 4096), timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_sigterm_ends_serve():
    stop, addresses = asyncio.Event(), []
    stop_on_signals(stop)
    loop = asyncio.get_running_loop()
    try:
        settings = ServerSettings(listen="127.0.0.1:0", drain_s=1.0)

        def ready(address: str) -> None:
            addresses.append(address)
            os.kill(os.getpid(), signal.SIGTERM)

        await asyncio.wait_for(serve(settings, [], stop=stop, on_ready=ready), 20)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)
    assert not addresses[0].endswith(":0")


@dataclass(frozen=True)
class Certificate:
    """A certificate for localhost, its key, and the authority that signed it."""

    chain: Path
    key: Path
    ca: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(made.chain)
    issued.private_key_pem.write_to_path(made.key)
    authority.cert_pem.write_to_path(made.ca)
    return made


async def test_mutual_tls(running, certificate: Certificate):
    chain, key, ca = certificate.chain, certificate.key, certificate.ca
    async with running(tls_certificate=chain, tls_key=key, tls_client_ca=ca, drain_s=1.0) as server:
        known = ChannelSettings(tls_ca=ca, tls_certificate=chain, tls_key=key)
        async with open_channel(server.address, known) as channel:
            assert (await _search(channel)).index_version == 7
        for stranger in (ChannelSettings(tls_ca=ca, max_attempts=1), ChannelSettings()):
            async with open_channel(server.address, stranger) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await _search(channel)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_half_a_certificate_is_refused(running, certificate: Certificate):
    chain = certificate.chain
    for half in ({"tls_certificate": chain}, {"tls_client_ca": chain}):
        with pytest.raises(ConfigurationError, match="tls_key"):
            async with running(**half):
                pass
    with pytest.raises(ConfigurationError, match="cannot read"):
        open_channel("localhost:1", ChannelSettings(tls_ca=chain.with_name("absent.pem")))


def test_a_second_sigterm_ends_the_process_at_once():
    program = (
        "import asyncio, os, signal\n"
        "from common.rpc import stop_on_signals\n"
        "async def main():\n"
        "    stop = asyncio.Event()\n"
        "    stop_on_signals(stop)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await stop.wait()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await asyncio.sleep(30)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
    assert done.returncode == -signal.SIGTERM
