"""Swaps under query load, also while etcd is killed again and again."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import pytest

from bench.load import COLLECTION, build_two_versions, querying
from bench.swap import connected, followed, swap, swap_under_load
from common.coordination import IndexRegistry, VersionState, open_coordinator
from common.errors import Contended, CoordinatorUnavailable, DeadlineExceeded, Unavailable
from tests.cluster import running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.client import SluiceClient
    from common.coordination import CollectionState
    from tests.cluster import Cluster

SWAPS = 30
KILLS = 20
WAIT_S = 20.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    async def build() -> None:
        async with connected(running) as (indexer, _):
            await build_two_versions(indexer)

    home = tmp_path_factory.mktemp("cluster")
    with running_cluster(home, "indexer", "query-1", "query-2", "query-3") as running:
        asyncio.run(build())
        yield running


async def test_no_query_fails_or_mixes_versions_while_they_are_swapped(cluster):
    async with connected(cluster) as (indexer, servers):
        figures = await swap_under_load(cluster, indexer, servers, SWAPS)
        last = await indexer.describe(COLLECTION)
    problems = {name: figures[name] for name in ("failures", "mixed_responses", "went_back")}
    assert problems == {"failures": [], "mixed_responses": 0, "went_back": 0}
    assert figures["swaps"] == SWAPS
    assert figures["queries"] >= SWAPS * figures["clients"]
    assert last.active is not None
    served = [version for version, _ in await followed(cluster, last.active.generation)]
    assert served == [last.active.version] * len(servers)


class Swapper:
    """Activates one version after the other, whatever becomes of etcd.

    Attributes:
        generations: those it was told of, in order.
    """

    def __init__(self, indexer: SluiceClient) -> None:
        self.generations: list[int] = []
        self._indexer = indexer
        self._made = asyncio.Condition()
        self._ended = False

    async def run(self) -> None:
        number = 1
        while not self._ended:
            # Without an answer it is unknown whether the swap was made: it is asked for again.
            with suppress(Unavailable, Contended, DeadlineExceeded):
                pointer, _ = await self._indexer.activate(COLLECTION, number)
                number = 3 - number
                async with self._made:
                    self.generations.append(pointer.generation)
                    self._made.notify_all()

    async def made(self, more: int) -> None:
        """Wait until so many more swaps were acknowledged."""
        wanted = len(self.generations) + more
        async with asyncio.timeout(WAIT_S), self._made:
            await self._made.wait_for(lambda: len(self.generations) >= wanted)

    def end(self) -> None:
        self._ended = True


async def test_etcd_killed_again_and_again_during_swaps_loses_no_swap_and_no_watch(cluster):
    async with (
        aclosing(open_coordinator(cluster.coordinator)) as coordinator,
        connected(cluster) as (indexer, servers),
        querying(servers) as seen,
    ):
        registry = IndexRegistry(coordinator)
        swapper = Swapper(indexer)
        swapping = asyncio.create_task(swapper.run())
        for kill in range(KILLS):
            await swapper.made(1 + kill % 3)
            await asyncio.to_thread(cluster.etcd.kill)
            acknowledged = swapper.generations[-1]
            await asyncio.to_thread(cluster.etcd.start)
            assert consistent_generation(await read(registry)) >= acknowledged
        await swapper.made(1)
        swapper.end()
        await swapping
        assert swapper.generations == sorted(set(swapper.generations))

        state = await read(registry)
        assert state.active is not None
        served = [version for version, _ in await followed(cluster, state.active.generation)]
        assert served == [state.active.version] * len(servers)
        await swap(cluster, indexer, 3 - state.active.version)
    assert (seen.failures, seen.mixed, seen.went_back) == ([], 0, 0)


def consistent_generation(state: CollectionState) -> int:
    """Of the pointer, to which the only active record must fit."""
    active = [one.number for one in state.versions if one.state is VersionState.ACTIVE]
    assert state.active is not None
    assert active == [state.active.version]
    return state.active.generation


async def read(registry: IndexRegistry) -> CollectionState:
    """All of the collection at one revision, once etcd answers."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return await registry.collection("default", COLLECTION)
        except CoordinatorUnavailable:
            assert time.monotonic() < deadline
