"""Queries without pause on a collection whose answers tell which index version they came from.

The collection has two versions with the same documents; in the metadata of each document stands
the number of the version that it was written into, so an answer that mixes versions shows. It must
never slow down for a server: who asks waits for the answer alone.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.answers import SearchQuery
from client.indexing import Document
from common.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from client.answers import SearchResponse
    from client.client import SluiceClient

COLLECTION = "bench"
DOCUMENTS = 400
CLIENTS = 4
HITS = 10
BUILD_TTL_S = 60
QUERY_TIMEOUT_S = 10.0
MOST_FAILURES = 20
WORDS = (
    *("name", "node", "block", "replica", "lease", "pipeline", "checkpoint", "journal", "quorum"),
    *("standby", "failover", "rack", "fence", "snapshot", "quota", "erasure", "token", "ticket"),
    *("balancer", "decommission", "heartbeat", "report", "edit", "log", "image"),
)


@dataclass(slots=True)
class Seen:
    """What the clients have seen so far.

    Attributes:
        failed: queries that ended with an error or found nothing.
        failures: what the first of them ended with.
        mixed: answers with a document of another version than the one they name.
        went_back: answers of an earlier generation than the same client had from the same server.
        stale: answers that say that the coordinator does not answer.
        seconds: how long each answered query took.
        moved: notified whenever a query has ended.
    """

    failed: int = 0
    failures: list[str] = field(default_factory=list)
    mixed: int = 0
    went_back: int = 0
    stale: int = 0
    seconds: array[float] = field(default_factory=lambda: array("d"))
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def queries(self) -> int:
        """All that ended."""
        return self.failed + len(self.seconds)

    def fail(self, failure: str) -> None:
        """One query ended without an answer."""
        self.failed += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(failure)

    def take(self, answer: SearchResponse, seconds: float) -> None:
        """One query was answered."""
        if len(answer.hits) != HITS:
            self.fail(f"{len(answer.hits)} hits of version {answer.index_version}")
            return
        self.seconds.append(seconds)
        self.mixed += {hit.metadata["version"] for hit in answer.hits} != {answer.index_version}
        self.stale += "stale_route" in answer.degraded

    async def more(self, queries: int) -> None:
        """Wait until so many more queries have ended, which each does within its deadline."""
        wanted = self.queries + queries
        async with self.moved:
            await self.moved.wait_for(lambda: self.queries >= wanted)


async def build_two_versions(sluice: SluiceClient) -> None:
    """Make the collection with versions 1 and 2, of which 2 is active in the end."""
    await sluice.create(COLLECTION)
    await _write(sluice, 1)
    begun = await sluice.begin_version(COLLECTION, builder="bench", ttl_s=BUILD_TTL_S)
    number, fence = begun.version.number, begun.fence
    await _write(sluice, number)
    verified = await sluice.verify(
        COLLECTION, version=number, expected_documents=DOCUMENTS, fence=fence
    )
    if number != 2 or not verified.passed:  # noqa: PLR2004 — as promised
        raise RuntimeError(f"version {number} did not come out right: {verified.findings}")
    await sluice.activate(COLLECTION, number, fence=fence)
    await sluice.end_build(COLLECTION, number, fence)


@asynccontextmanager
async def querying(
    servers: Sequence[SluiceClient], *, clients: int = CLIENTS
) -> AsyncIterator[Seen]:
    """Let so many clients ask without pause while the block runs.

    Args:
        servers: asked in turn by every client.
        clients: how many ask at the same time.
    """
    seen, stop = Seen(), asyncio.Event()
    tasks = [asyncio.create_task(_ask(number, servers, seen, stop)) for number in range(clients)]
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _ask(turn: int, servers: Sequence[SluiceClient], seen: Seen, stop: asyncio.Event) -> None:
    generations = [0] * len(servers)
    while not stop.is_set():
        server = turn % len(servers)
        query = SearchQuery(f"{_word(turn)} {_word(turn * 7)}", COLLECTION, top_k=HITS)
        began = time.perf_counter()
        try:
            answer = await servers[server].search(query, timeout_s=QUERY_TIMEOUT_S)
        except SluiceError as error:
            seen.fail(f"{type(error).__name__}: {error.message}")
        else:
            seen.take(answer, time.perf_counter() - began)
            seen.went_back += answer.generation < generations[server]
            generations[server] = answer.generation
        async with seen.moved:
            seen.moved.notify_all()
        turn += 1


async def _write(sluice: SluiceClient, version: int) -> None:
    async def documents() -> AsyncIterator[Document]:
        for number in range(DOCUMENTS):
            text = " ".join(_word(number * step) for step in range(1, 60))
            yield Document(
                f"bench:///{number}", f"Note {number}. {text}.", 1, metadata={"version": version}
            )

    stream = sluice.index_documents(documents(), collection=COLLECTION, version=version)
    outcomes = [acknowledged.outcome async for acknowledged in stream]
    if outcomes != ["indexed"] * DOCUMENTS:
        raise RuntimeError(f"version {version} did not take all documents: {set(outcomes)}")


def _word(number: int) -> str:
    return WORDS[number % len(WORDS)]
