"""Ingestion as a whole: roots into a collection, or a new version of it. The composition root.

Everything a job needs is opened here, in order, and closed in reverse. Roots are taken one after
the other; within one, the job works in parallel.
"""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.coordination import open_coordinator
from common.errors import InvalidArgument
from common.identity import check_collection, check_tenant
from ingestor.extraction.extractor import DocumentExtractor
from ingestor.kerberos.login import logged_in
from ingestor.rebuilding import rebuild
from ingestor.rounds import Rounds, Shop
from ingestor.selection import Selection
from ingestor.sending.collection_client import CollectionClient
from ingestor.sending.indexers import Indexers
from ingestor.state.dead_letters import DeadLetter, DeadLetters, paths_of
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate
from ingestor.storage.sources import open_source
from ingestor.watching import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, MutableMapping, Sequence

    from common.coordination import Coordinator
    from ingestor.rebuilding import Rebuild
    from ingestor.report import IngestReport
    from ingestor.rounds import Show
    from ingestor.settings import IngestorConfig
    from ingestor.storage.sources import Source

_STATE_THREADS = 2


def default_state_uri(environ: Mapping[str, str]) -> str:
    """The user's data folder (XDG Base Directory Specification)."""
    home = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(home) / "sluice" / "state")


class Ingestion:
    """What all jobs of one command share; made by ``open``."""

    def __init__(
        self,
        config: IngestorConfig,
        state: StateFolder,
        readers: ThreadPoolExecutor,
        keepers: ThreadPoolExecutor,
    ) -> None:
        self._config = config
        self._settings = config.ingest
        self._state = state
        self._readers = readers
        self._keepers = keepers
        self._tenant = check_tenant(config.client.tenant)
        self.dead_letters = DeadLetters(
            state, self._tenant, keepers, max_attempts=config.ingest.max_attempts
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, config: IngestorConfig, environ: MutableMapping[str, str]
    ) -> AsyncIterator[Ingestion]:
        """Log in where the settings say so and open the state; no indexer is called before a job.

        Args:
            config: of the command.
            environ: ``os.environ``, where the clients of a Kerberized cluster look for tickets.
        """
        settings = config.ingest
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(logged_in(settings.hdfs.kerberos, environ))
            readers = stack.enter_context(ThreadPoolExecutor(settings.readers, "sluice-read"))
            keepers = stack.enter_context(ThreadPoolExecutor(_STATE_THREADS, "sluice-state"))
            uri = settings.state_uri or default_state_uri(environ)
            loop = asyncio.get_running_loop()
            location = await loop.run_in_executor(keepers, locate, uri, settings.hdfs)
            yield cls(config, StateFolder.at(location), readers, keepers)

    async def ingest(
        self,
        uris: Sequence[str],
        collection: str,
        *,
        show: Show,
        plan: Rebuild | None = None,
        stop: asyncio.Event | None = None,
    ) -> IngestReport:
        """Bring a collection into line with the roots.

        Args:
            uris: paths or URIs of folders or files; none inside another.
            collection: is created if there is none.
            show: makes the context in which a job's counters are shown.
            plan: build a new version from these roots alone, beside the active one, and what
                becomes of it; None brings the active one into line.
            stop: once set, the files in hand are the last.

        Raises:
            CalledOffError: it was stopped where nothing was in hand.
            SluiceError: as ``Rounds.run`` or ``rebuild``; or the roots overlap.
        """
        stop = stop or asyncio.Event()
        async with self.open_shop() as shop:
            rounds = self._rounds(shop, uris, collection, show, stop)
            if plan is not None:
                return await rebuild(shop, rounds, collection, plan, stop)
            async with rounds:
                return await rounds.run()

    async def watch(
        self,
        uris: Sequence[str],
        collection: str,
        *,
        every_s: float,
        show: Show,
        told: Callable[[IngestReport], None],
        stop: asyncio.Event,
    ) -> None:
        """Bring a collection into line with the roots again and again, until it is stopped.

        Args:
            uris: as ``ingest``; so are the next and ``show``.
            collection: as above.
            every_s: pause between two rounds.
            show: as above.
            told: is called with what each round did.
            stop: ends it.

        Raises:
            SluiceError: what does not pass by waiting.
        """
        async with (
            self.open_shop() as shop,
            self._rounds(shop, uris, collection, show, stop) as rounds,
        ):
            await watch(rounds, self._settings.stream, every_s=every_s, told=told, stop=stop)

    async def retry(
        self, letters: Sequence[DeadLetter], show: Show, stop: asyncio.Event | None = None
    ) -> list[IngestReport]:
        """Try the files of dead letters again, whatever their attempts; nothing else is touched.

        Raises:
            CalledOffError: as ``ingest``.
            SluiceError: as ``Rounds.retry``.
        """
        stop = stop or asyncio.Event()
        reports: list[IngestReport] = []
        async with self.open_shop() as shop:
            for key in await self.dead_letters.roots():
                paths = paths_of(letters, key)
                if not paths or stop.is_set():
                    continue
                rounds = self._rounds(
                    shop, [key.root_uri], key.collection, show, stop, Selection(hidden=True)
                )
                async with rounds:
                    reports.append(await rounds.retry(key, paths))
        return reports

    async def drop(self, letters: Sequence[DeadLetter]) -> int:
        """Forget dead letters; as ``DeadLetters.drop``, under the locks of their roots."""
        async with self._open_coordinator() as coordinator:
            return await self.dead_letters.drop(letters, coordinator)

    @asynccontextmanager
    async def _open_coordinator(self) -> AsyncIterator[Coordinator | None]:
        """The one that jobs on other machines share; None where there is none."""
        if self._config.coordinator.kind != "etcd":
            yield None
            return
        async with aclosing(open_coordinator(self._config.coordinator)) as coordinator:
            yield coordinator

    @asynccontextmanager
    async def open_shop(self) -> AsyncIterator[Shop]:
        """What all jobs of the command share; no indexer is called before it is asked for."""
        config = self._config
        async with AsyncExitStack() as stack:
            coordinator = await stack.enter_async_context(self._open_coordinator())
            indexers = await stack.enter_async_context(
                Indexers.open(config.client, coordinator, config.coordinator)
            )
            extractor = await stack.enter_async_context(
                DocumentExtractor(self._settings.extraction, self._settings.formats, self._readers)
            )
            timeout_s = config.client.timeout_s
            yield Shop(
                tenant=self._tenant,
                timeout_s=timeout_s,
                settings=self._settings,
                indexers=indexers,
                coordinator=coordinator,
                collections=CollectionClient(indexers, self._settings.stream, timeout_s=timeout_s),
                extractor=extractor,
                state=self._state,
                keepers=self._keepers,
            )

    def _rounds(
        self,
        shop: Shop,
        uris: Sequence[str],
        collection: str,
        show: Show,
        stop: asyncio.Event,
        selection: Selection | None = None,
    ) -> Rounds:
        settings = self._settings
        selection = selection or Selection(
            include=settings.include, exclude=settings.exclude, hidden=settings.hidden
        )

        async def open_sources() -> list[Source]:
            sources: list[Source] = [
                await open_source(uri, settings.hdfs, self._readers) for uri in uris
            ]
            _check_apart(source.root_uri for source in sources)
            return sources

        return Rounds(shop, open_sources, check_collection(collection), selection, show, stop)


def _check_apart(roots: Iterable[str]) -> None:
    """Refuse a root within another: its files would be taken twice."""
    ascending = sorted(roots)
    for outer, inner in itertools.pairwise(ascending):
        if inner == outer or (outer.endswith("/") and inner.startswith(outer)):
            raise InvalidArgument(f"{inner} lies within {outer}: give one of them", field="uri")
