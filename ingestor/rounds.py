"""Runs over the same roots, one after the other, each into whichever index version is then active.

Roots are opened and locked once and stay so until the end; a manifest is locked as long as its
version is the one that is written. Where a lock is lost nothing more is written.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from common.errors import FailedPrecondition
from ingestor.job.job import IngestJob
from ingestor.report import IngestReport
from ingestor.sending.index_client import CollectionClient, IndexClient, IndexTarget
from ingestor.state.dead_letters import open_settled
from ingestor.state.manifest import Manifest, ManifestKey, only_job
from ingestor.state.root_locks import RootLocks, hold_roots, lost_lock
from ingestor.stopping import unless

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from common.coordination import Coordinator
    from ingestor.extraction.extractor import Extractor
    from ingestor.job.summary import Counters, IngestSummary
    from ingestor.selection import Selection
    from ingestor.sending.indexers import Indexers
    from ingestor.settings import IngestSettings
    from ingestor.state.state_folder import StateFolder
    from ingestor.storage.sources import Source

    Show: TypeAlias = Callable[[Counters, str], AbstractAsyncContextManager[None]]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shop:
    """What all jobs of one command share.

    Attributes:
        tenant: whose collections.
        timeout_s: deadline of a call to an indexer, in seconds.
        settings: of a job.
        indexers: that there are.
        coordinator: keeps the locks on roots; None for none.
        collections: of the index service.
        extractor: makes text of files.
        state: where the manifests lie.
        keepers: runs the calls to them.
    """

    tenant: str
    timeout_s: float
    settings: IngestSettings
    indexers: Indexers
    coordinator: Coordinator | None
    collections: CollectionClient
    extractor: Extractor
    state: StateFolder
    keepers: Executor


class Rounds:
    """Rounds over some roots; a context in which locks are held.

    Args:
        shop: what they need.
        open_sources: opens the roots, once.
        collection: they are brought into.
        selection: which files are taken.
        show: makes the context in which a job's counters are shown.
        stop: once set, files in hand are finished and no more are taken.
    """

    def __init__(
        self,
        shop: Shop,
        open_sources: Callable[[], Awaitable[Sequence[Source]]],
        collection: str,
        selection: Selection,
        show: Show,
        stop: asyncio.Event,
    ) -> None:
        self._shop = shop
        self._open_sources = open_sources
        self._collection = collection
        self._selection = selection
        self._show = show
        self._stop = stop
        self._sources: Sequence[Source] = ()
        self._locks: RootLocks | None = None
        self._target: IndexTarget | None = None
        self._root_stack = AsyncExitStack()
        self._folder_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._folder_stack.aclose()
        finally:
            await self._root_stack.aclose()

    @property
    def is_lock_lost(self) -> bool:
        """Whether nothing may be written any more."""
        return self._locks is not None and self._locks.lost.is_set()

    @property
    def root_uris(self) -> list[str]:
        """The roots, once they are open."""
        return [source.root_uri for source in self._sources]

    async def run(
        self, *, begin: Callable[[], Awaitable[IndexTarget]] | None = None
    ) -> IngestReport:
        """One round.

        Args:
            begin: begins a version to be written instead of the active one. Nobody else knows its
                number, so that its roots are not locked: a job may go on over them meanwhile.

        Raises:
            CalledOffError: it was stopped before a job began.
            SluiceError: as ``IngestJob.run``; or a lock is held by another, or was lost.
        """
        target = await unless(self._stop, self._prepared(begin))
        summaries = [
            await self._run_job(source, target, None)
            for source in self._sources
            if not self._stop.is_set()
        ]
        stopped = self._stop.is_set()
        return IngestReport(
            target, tuple(summaries), is_activated=begin is None, is_stopped=stopped
        )

    async def retry(self, key: ManifestKey, paths: frozenset[str]) -> IngestReport:
        """Try these dead letters of the one root again, whatever their attempts.

        Raises:
            CalledOffError: as ``run``.
            SluiceError: as ``run``; FailedPrecondition if the version that they were meant for is
                no longer the active one, or if only a whole job can tell what became of its files.
        """
        target = await unless(self._stop, self._prepared(None))
        if manifest_key(target, key.root_uri) != key:
            raise FailedPrecondition(
                f"collection {key.collection} has another active version since: run "
                f"`sluice ingest` over {key.root_uri}, which tries every file"
            )
        (source,) = self._sources
        summary = await self._run_job(source, target, paths)
        return IngestReport(target, (summary,), is_activated=True, is_stopped=self._stop.is_set())

    async def _run_job(
        self, source: Source, target: IndexTarget, retry: frozenset[str] | None
    ) -> IngestSummary:
        shop, key = self._shop, manifest_key(target, source.root_uri)
        opening = Manifest.open if retry is None else open_settled
        manifest = await opening(shop.state, key, shop.keepers)
        index = IndexClient(shop.indexers, target, shop.settings.stream, timeout_s=shop.timeout_s)
        job = IngestJob(
            job_id=f"ingest-{secrets.token_hex(6)}",
            source=source,
            selection=self._selection,
            extractor=shop.extractor,
            index=index,
            manifest=manifest,
            settings=shop.settings,
            stop=self._stop,
            retry=retry,
        )
        assert self._locks is not None  # noqa: S101 — locked before any job
        async with self._show(job.counters, source.root_uri):
            return await self._locks.guard(job.run(), manifest.abandon)

    async def _prepared(self, begin: Callable[[], Awaitable[IndexTarget]] | None) -> IndexTarget:
        if not self._sources:
            self._sources = await self._open_sources()
        collections, tenant = self._shop.collections, self._shop.tenant
        target = await collections.active(tenant, self._collection)
        if begin is not None:
            target = await begin()
        await self._lock(target, beside=begin is not None)
        return target

    async def _lock(self, target: IndexTarget, *, beside: bool) -> None:
        shop = self._shop
        if self._locks is None:
            coordinator = None if beside else shop.coordinator
            if coordinator is None and not (beside or shop.state.has_locks):
                logger.warning(
                    "no lock is held: the storage of ingest.state_uri has none and no coordinator "
                    "is configured (coordinator.kind: etcd): see that one job at a time runs over "
                    "a root"
                )
            holding = hold_roots(coordinator, shop.tenant, self._collection, self.root_uris)
            self._locks = await self._root_stack.enter_async_context(holding)
        if self.is_lock_lost:
            raise lost_lock()
        if target != self._target:
            await self._folder_stack.aclose()
            self._target = None
            for root_uri in self.root_uris:
                lock = only_job(shop.state, manifest_key(target, root_uri), shop.keepers)
                await self._folder_stack.enter_async_context(lock)
            self._target = target


def manifest_key(target: IndexTarget, root_uri: str) -> ManifestKey:
    """The manifest of a root in an index version."""
    return ManifestKey(
        target.tenant, target.collection, root_uri, target.version, target.created_at
    )
