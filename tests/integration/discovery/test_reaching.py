"""What a client is told about etcd and the servers: TLS, installations, the command line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING

import pytest
import trustme

from client import doctor
from client.client import SluiceClient
from client.settings import Connection
from client.verification import Exam
from common.connection import ConnectionSettings
from common.coordination import CoordinatorSettings, IndexRegistry, open_coordinator
from common.errors import CoordinatorUnavailable, FailedPrecondition, Unavailable
from common.golden import GoldenCase
from common.rpc import ChannelSettings
from indexer.query_client import QueryClient
from indexer.serve import IndexerConfig
from indexer.serve import run as run_indexer
from ingestor.sending.indexers import Indexers
from tests.integration.discovery.conftest import QUERY
from tests.integration.discovery.query_node import SERVICE, QueryNode
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from pathlib import Path


async def test_tls_to_etcd_and_to_the_servers(tmp_path: Path):
    chain, key, ca = (tmp_path / name for name in ("chain.pem", "key.pem", "ca.pem"))
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    node, secure = QueryNode(1), ChannelSettings(tls_ca=ca)
    with Etcd(tmp_path / "etcd", tls=True) as etcd:
        target = f"etcd://{etcd.endpoint}/sluice/query"
        known = CoordinatorSettings(ca_file=etcd.ca_file, timeout_ms=2000)
        coordinator = open_coordinator(
            known.model_copy(update={"kind": "etcd", "endpoints": (etcd.endpoint,)})
        )
        async with node.serving(coordinator, tls_certificate=chain, tls_key=key):
            async with SluiceClient(target, secure, coordinator=known) as client:
                assert (await client.search(QUERY)).index_version == 1
            async with SluiceClient(target, coordinator=known) as client:
                with pytest.raises(Unavailable):
                    await client.search(QUERY)
            async with SluiceClient(target, secure) as client:
                with pytest.raises(CoordinatorUnavailable):
                    await client.search(QUERY)
        await coordinator.aclose()
    assert node.calls == 1


async def test_installations_on_one_etcd_never_meet(etcd: Etcd, coordinator):
    other = open_coordinator(
        CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), prefix="/acme/v1")
    )
    async with QueryNode(1).serving(coordinator), QueryNode(2).serving(other):
        for installation, number in (("sluice", 1), ("acme", 2)):
            async with SluiceClient(f"etcd://{etcd.endpoint}/{installation}/query") as client:
                for _ in range(4):
                    assert (await client.search(QUERY)).index_version == number
    await other.aclose()


async def test_a_job_shares_its_coordinator_only_with_what_is_announced_there(
    coordinator, settings: CoordinatorSettings
):
    registry = IndexRegistry(coordinator)
    async with registry.register("indexer", "127.0.0.1:3", ttl_s=60):
        for target, found in (
            ("127.0.0.1:1", ("127.0.0.1:3",)),
            ("etcd:///sluice/indexer", ("127.0.0.1:3",)),
            ("etcd:///acme/indexer", None),
        ):
            client = ConnectionSettings(target=target)
            async with Indexers.open(client, coordinator, settings) as indexers:
                assert (indexers._coordinator is coordinator) is (found is not None)
                if found is not None:
                    assert await indexers.addresses() == found
                    continue
                with pytest.raises(Unavailable, match="under /acme/v1/instances/indexer/ of etcd"):
                    await indexers.addresses()
    # A job without etcd of its own finds those of a target all the same.
    async with (
        registry.register("indexer", "127.0.0.1:3", ttl_s=60),
        Indexers.open(
            ConnectionSettings(target=f"etcd://{settings.endpoints[0]}/sluice/indexer"),
            None,
            CoordinatorSettings(),
        ) as indexers,
    ):
        assert await indexers.addresses() == ("127.0.0.1:3",)


@pytest.mark.parametrize("names_endpoint", [True, False])
async def test_golden_queries_are_asked_of_the_installation_that_is_named(
    etcd: Etcd, coordinator, settings: CoordinatorSettings, *, names_endpoint: bool
):
    other = open_coordinator(settings.model_copy(update={"prefix": "/acme/v1"}))
    own = CoordinatorSettings() if names_endpoint else settings
    endpoint, named = etcd.endpoint if names_endpoint else "", QueryNode(2)
    async with QueryNode(1).serving(coordinator), named.serving(other):
        for installation, number in (("sluice", 1), ("acme", 2)):
            async with QueryClient.open(
                f"etcd://{endpoint}/{installation}/query", ChannelSettings(), coordinator, own
            ) as ask:
                for _ in range(4):
                    assert await ask("", "docs", number, "why", 1) == []
        address = named.address  # others are announced, but this one is meant
        async with QueryClient.open(address, ChannelSettings(), coordinator, own) as ask:
            for _ in range(4):
                assert await ask("", "docs", 2, "why", 1) == []
    await other.aclose()


async def test_an_indexer_asks_the_query_servers_of_the_installation_it_is_told(
    etcd: Etcd, coordinator, tmp_path: Path
):
    config = IndexerConfig.model_validate(
        {
            "coordinator": {"kind": "etcd", "endpoints": [etcd.endpoint]},
            "chroma": {"mode": "embedded", "path": tmp_path / "chroma"},
            "embedding": {"kind": "hashing"},
            "indexer": {
                "server": {"listen": "127.0.0.1:0", "drain_s": 0},
                "query_target": "etcd:///acme/query",
            },
        }
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    own = QueryNode(1)  # of the indexer's own installation
    async with own.serving(coordinator), asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(run_indexer(config, stop=stop, on_ready=ready.set_result))
        try:
            async with SluiceClient(await ready) as client:
                await client.create("docs")
                exam = Exam((GoldenCase("why", ("x",)),))
                with pytest.raises(FailedPrecondition, match="under /acme/v1/instances/query/"):
                    await client.verify("docs", golden=exam)
        finally:
            stop.set()
    assert own.calls == 0


@pytest.mark.parametrize(
    "arguments", [[], ["--target", "etcd:///sluice/indexer"]], ids=["settings", "flag"]
)
async def test_the_command_line_finds_the_servers(
    etcd: Etcd, coordinator, tmp_path: Path, arguments: list[str]
):
    file = tmp_path / "sluice.yaml"
    target = "127.0.0.1:1" if arguments else "etcd:///sluice/indexer"
    file.write_text(
        f"""
coordinator: {{kind: etcd, endpoints: ["{etcd.endpoint}"]}}
client: {{target: "{target}"}}
"""
    )
    async with QueryNode(5).serving(coordinator), asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "client", "search", "why", "--collection", "docs", "--json"),
            *("--config", str(file), *arguments),
            stdout=PIPE,
            stderr=PIPE,
            env=os.environ,
        )
        printed, said = await process.communicate()
    assert process.returncode == 0, said
    assert json.loads(printed)["index_version"] == 5


async def test_the_doctor_asks_each_server(coordinator, settings, monkeypatch):
    monkeypatch.setattr(doctor, "SERVICES", (("query", "sluice.query.v1.QueryService"),))
    connection = Connection(target="etcd:///sluice/indexer", coordinator=settings)
    (fault,) = await doctor.probe_servers(connection)
    assert not fault.ok
    assert "no query server is announced under /sluice/v1/instances/query/" in fault.detail
    node, nowhere = QueryNode(1), "127.0.0.1:1"
    registry = IndexRegistry(coordinator)
    async with node.serving(coordinator), registry.register(SERVICE, nowhere, ttl_s=60):
        found = await doctor.probe_servers(connection)
    assert {(check.ok, check.detail) for check in found} == {
        (True, f"{node.address} is serving"),
        (False, f"no server answers at {nowhere}"),
    }
