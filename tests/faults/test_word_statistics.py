"""After 1,000 random changes and kills at any moment, word statistics are what a recount gives."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest

from client.client import SluiceClient
from client.indexing import Document
from common.chroma import ChromaSettings, open_chroma
from common.coordination import open_coordinator
from common.errors import SluiceError
from common.identity import document_id
from tests.cluster import LEASED, running_cluster, until
from tests.word_recount import published, recounted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from client.indexing import Acknowledgement
    from tests.cluster import Cluster

CHANGES = 1_000
MOST_AT_ONCE = 30
NAMES = 150
MOMENTS = ("counting", "writing", "publishing")
KILLS = 5
SEED = 20_251_120
WORDS = [f"word{n}" for n in range(400)] + ["NN-HA-42", "java.io.IOException", "fooBar", "the"]


class Lake:
    """Documents as they should be, and random changes of them."""

    def __init__(self, rng: random.Random) -> None:
        self.documents: dict[str, Document] = {}
        self.changes = dict.fromkeys(("insert", "update", "delete"), 0)
        self._rng = rng
        self._version = 0

    def change(self, count: int) -> tuple[list[Document], list[str]]:
        """Documents to write and ids of those to delete, so many together."""
        names = self._rng.sample(range(NAMES), count)
        written, deleted = [], []
        for name in names:
            uri = f"file:///lake/{name}.md"
            known = uri in self.documents
            if known and self._rng.random() < 0.3:
                del self.documents[uri]
                deleted.append(document_id(uri))
                self.changes["delete"] += 1
                continue
            self._version += 1
            text = " ".join(self._rng.choices(WORDS, k=self._rng.randrange(20, 400)))
            title = self._rng.choice(["", "Title of fooBar", f"Report {name}"])
            self.documents[uri] = Document(uri, f"{text}.", self._version, title)
            written.append(self.documents[uri])
            self.changes["update" if known else "insert"] += 1
        return written, deleted


async def apply(client: SluiceClient, written: list[Document], deleted: list[str]) -> None:
    async def documents() -> AsyncIterator[Document]:
        for document in written:
            yield document

    if written:
        acknowledged = client.index_documents(documents(), collection="docs")
        async with aclosing(cast("AsyncGenerator[Acknowledgement]", acknowledged)) as stream:
            outcomes = [one.outcome async for one in stream]
        assert set(outcomes) <= {"indexed", "unchanged"}
        assert len(outcomes) == len(written)
    if deleted:
        await client.delete_documents(deleted, collection="docs")


class Killing:
    """An indexer that is killed now and then, and started again.

    Attributes:
        during: kills by what it was at, so far as that is known for certain.
    """

    def __init__(self, cluster: Cluster, ledgers: Path, rng: random.Random) -> None:
        self.during: list[str] = []
        self._cluster = cluster
        self._ledgers = ledgers
        self._rng = rng

    @property
    def counts(self) -> bool:
        """Whether a ledger is open; SQLite leaves this file to whoever is killed."""
        return any(self._ledgers.glob("*-wal"))

    async def kill(self, moment: str) -> None:
        """Kill it and start another."""
        indexer = self._cluster.services["indexer"]
        match moment:
            case "counting":
                await self._until(counts=False)  # what the one before it left is gone
                while True:
                    await self._until(counts=True)
                    await self._some_time(0.02)
                    indexer.freeze()
                    if self.counts:
                        break
                    indexer.thaw()
            case "publishing":  # or soon after
                for counts in (False, True, False):
                    await self._until(counts=counts)
                await self._some_time(0.1)
            case "writing":
                await self._some_time(0.3)
        indexer.kill()
        self.during.append(moment)
        await asyncio.to_thread(self._cluster.start, "indexer")

    async def _until(self, *, counts: bool) -> None:
        async with asyncio.timeout(20):
            while self.counts is not counts:  # noqa: ASYNC110 — another process makes the file
                await asyncio.sleep(0.001)

    async def _some_time(self, most_s: float) -> None:
        # Any moment is the point: nothing is waited for.
        await asyncio.sleep(self._rng.uniform(0, most_s))

    def client(self) -> SluiceClient:
        return SluiceClient(self._cluster.services["indexer"].address)


async def changed_under_kills(
    cluster: Cluster, ledgers: Path, rng: random.Random
) -> tuple[Lake, Killing]:
    lake, killing = Lake(rng), Killing(cluster, ledgers, rng)
    async with killing.client() as client:
        await client.create("docs")
    done, next_kill = 0, CHANGES // (KILLS + 1)
    while done < CHANGES:
        count = min(rng.randint(1, MOST_AT_ONCE), CHANGES - done)
        change = lake.change(count)
        done += count
        due = done >= next_kill and len(killing.during) < KILLS
        moment = MOMENTS[len(killing.during) % len(MOMENTS)] if due else ""
        if moment == "writing":
            async with killing.client() as client:
                failed, mistaken = await asyncio.gather(
                    apply(client, *change), killing.kill(moment), return_exceptions=True
                )
            assert mistaken is None, mistaken
            assert failed is None or isinstance(failed, SluiceError)
        async with killing.client() as client:  # again, where it was not acknowledged
            await apply(client, *change)
        if moment not in {"", "writing"}:
            await killing.kill(moment)
        if due:
            next_kill += CHANGES // (KILLS + 1)
    return lake, killing


@pytest.mark.timeout(400)
def test_statistics_survive_changes_and_kills(tmp_path):
    rng = random.Random(SEED)
    counts = {"folder": str(tmp_path / "ledgers"), "interval_s": 0.05, "audit_s": 2}
    with running_cluster(tmp_path, "indexer", indexer=LEASED | {"word_counts": counts}) as cluster:

        async def scenario() -> None:
            lake, killing = await changed_under_kills(cluster, tmp_path / "ledgers", rng)
            assert sum(lake.changes.values()) == CHANGES
            assert min(lake.changes.values()) > CHANGES // 10
            assert len(killing.during) == KILLS
            chroma = open_chroma(ChromaSettings.model_validate(cluster.settings["chroma"]))
            coordinator = open_coordinator(cluster.coordinator)
            try:
                recount = await recounted(chroma, 1)
                assert recount["chunks"] >= len(lake.documents) > 0

                async def exact() -> bool:
                    return await published(chroma, coordinator, 1) == recount

                await until(exact)
                store = await chroma.collection("default.docs.v000001")
                metadatas = (await store.get()).metadatas or []
                held = {str(metadata["source_uri"]) for metadata in metadatas}
                assert held == lake.documents.keys()
            finally:
                await coordinator.aclose()
                await chroma.aclose()

        asyncio.run(scenario())
