"""What a service is announced by: always an address to which another machine can connect."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from common.chroma import ChromaSettings
from common.coordination import (
    CoordinatorSettings,
    IndexRegistry,
    advertised,
    advertising,
    open_coordinator,
)
from common.embedding import EmbeddingSettings
from common.errors import ConfigurationError
from query.serve import QueryConfig, run
from query.settings import QueryServerSettings, QuerySettings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.etcd import Etcd

ETCD = CoordinatorSettings(kind="etcd", endpoints=("127.0.0.1:2379",))


def on_etcd(*endpoints: str) -> CoordinatorSettings:
    return CoordinatorSettings(kind="etcd", endpoints=endpoints)


@pytest.mark.parametrize("listening", ["10.1.2.3:50051", "indexer-0:50051", "unix:/run/sluice"])
def test_an_address_of_its_own_is_announced_as_it_is(listening: str) -> None:
    assert advertised("indexer", "", listening, ETCD) == listening


@pytest.mark.parametrize("listening", ["0.0.0.0:50051", "[::]:50051", "10.1.2.3:50051"])
def test_what_the_settings_say_goes_before_it(listening: str) -> None:
    assert advertised("indexer", "indexer-0.lake:443", listening, ETCD) == "indexer-0.lake:443"
    assert advertised("indexer", "[2001:db8::1]:1", listening, ETCD) == "[2001:db8::1]:1"


@pytest.mark.parametrize("wrong", ["indexer-0", ":50051", "indexer-0:", "indexer-0:0", "x:65536"])
def test_what_nobody_could_connect_to_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"query\.advertise: write HOST:PORT"):
        advertised("query", wrong, "127.0.0.1:50051", ETCD)


def test_every_address_becomes_the_one_towards_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advertised("indexer", "", "0.0.0.0:7", ETCD) == "127.0.0.1:7"
    assert advertised("indexer", "", "[::]:7", on_etcd("localhost:2379")) in {
        "127.0.0.1:7",
        "[::1]:7",
    }
    # As on a machine that reaches the first endpoint by loopback and the second by its network.
    monkeypatch.setattr(advertising, "_own_addresses", lambda *_: ["127.0.0.1", "10.1.2.3"])
    assert advertised("indexer", "", "0.0.0.0:7", ETCD) == "10.1.2.3:7"
    monkeypatch.setattr(advertising, "_own_addresses", lambda *_: ["::1", "2001:db8::1"])
    assert advertised("indexer", "", "[::]:7", ETCD) == "[2001:db8::1]:7"


def test_it_is_the_machine_s_own_address_on_the_way_there() -> None:
    """Where the machine has a network besides loopback; else only loopback can be looked at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        try:
            towards.connect(("192.0.2.1", 2379))
        except OSError:
            own = "127.0.0.1"
        else:
            own = towards.getsockname()[0]
    settings = on_etcd("127.0.0.1:2379", "192.0.2.1:2379")
    assert advertised("indexer", "", "0.0.0.0:7", settings) == f"{own}:7"


def test_the_embedded_coordinator_is_on_this_machine() -> None:
    assert advertised("indexer", "", "0.0.0.0:7", CoordinatorSettings()) == "127.0.0.1:7"
    assert advertised("indexer", "", "[::]:7", CoordinatorSettings()) == "[::1]:7"


def test_without_a_way_to_etcd_it_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"indexer\.advertise: set the HOST:PORT"):
        advertised("indexer", "", "0.0.0.0:7", on_etcd("no-such-host.invalid:2379"))


async def test_a_query_server_on_every_address_is_announced_by_one_that_answers(
    etcd: Etcd, tmp_path: Path
) -> None:
    shared = CoordinatorSettings(kind="etcd", endpoints=(etcd.endpoint,), prefix="/test/query")
    settings = QueryConfig(
        coordinator=shared,
        chroma=ChromaSettings(mode="embedded", path=tmp_path / "chroma"),
        embedding=EmbeddingSettings(kind="hashing"),
        query=QuerySettings(server=QueryServerSettings(listen="0.0.0.0:0")),
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(run(settings, stop=stop, on_ready=ready.set_result))
    coordinator = open_coordinator(shared)
    try:
        port = (await asyncio.wait_for(ready, 20)).rpartition(":")[2]
        (instance,) = await IndexRegistry(coordinator).instances("query")
        assert instance.address == f"127.0.0.1:{port}"
    finally:
        await coordinator.aclose()
        stop.set()
        await asyncio.wait_for(serving, 20)
