"""Runs over the same roots, one after the other, each into whichever index version is then active.

Roots are opened and locked once and stay so until the end; a manifest is locked as long as its
version is the one that is written. Where a lock is lost nothing more is written. Where another
version becomes the active one meanwhile, another round brings that one into line.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from common.errors import FailedPrecondition, NotFound
from ingestor.job.job import IngestJob
from ingestor.report import IngestReport
from ingestor.sending.collection_client import Progress
from ingestor.sending.index_client import IndexClient, IndexTarget
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
    from ingestor.sending.build_lock import BuildLock
    from ingestor.sending.collection_client import CollectionClient
    from ingestor.sending.indexers import Indexers
    from ingestor.settings import IngestSettings
    from ingestor.state.state_folder import StateFolder
    from ingestor.storage.sources import Source

    Show: TypeAlias = Callable[[Counters, str], AbstractAsyncContextManager[None]]

logger = logging.getLogger(__name__)

_MOST_ROUNDS = 3


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
        self._active: IndexTarget | None = None
        self._build: BuildLock | None = None
        self._counters: list[Counters] = []
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

    @property
    def active(self) -> IndexTarget | None:
        """The version that was the active one when it was last asked for."""
        return self._active

    @property
    def progress(self) -> Progress:
        """What was acknowledged in this round, over all roots."""
        return Progress(
            documents=sum(counters.documents_sent for counters in self._counters),
            chunks=sum(counters.chunks for counters in self._counters),
        )

    async def run(self) -> IngestReport:
        """Bring the active version into line; again where another is the active one at the end.

        Raises:
            CalledOffError: it was stopped before a job began.
            SluiceError: as ``IngestJob.run``; or a lock is held by another, or was lost;
                FailedPrecondition also if another version was activated in each of some rounds.
        """

        async def run() -> IngestReport:
            target = await unless(self._stop, self._prepared(None))
            return await self._run_jobs(target)

        return await self._until_settled(run)

    async def build(self, begin: Callable[[], Awaitable[BuildLock]]) -> IngestReport:
        """One round into a version of its own, begun once the roots are open.

        Nobody else knows its number, so that its roots are not locked: a job may go on over them
        meanwhile.

        Raises:
            CalledOffError: as ``run``.
            SluiceError: as ``run``; FailedPrecondition if the build lock was lost.
        """
        target = await unless(self._stop, self._prepared(begin))
        return replace(await self._run_jobs(target), is_activated=False, is_built=True)

    async def retry(self, key: ManifestKey, paths: frozenset[str]) -> IngestReport:
        """Try these dead letters of the one root again, whatever their attempts.

        Raises:
            CalledOffError: as ``run``.
            SluiceError: as ``run``; FailedPrecondition if the version that they were meant for is
                no longer the active one, or if only a whole job can tell what became of its files.
        """
        target = await unless(self._stop, self._prepared(None))
        if manifest_key(target, key.root_uri) != key:
            raise _meant_for_another(key)

        async def run() -> IngestReport:
            target = await unless(self._stop, self._prepared(None))
            return await self._run_jobs(target, paths)

        return await self._until_settled(run)

    async def _until_settled(self, run: Callable[[], Awaitable[IngestReport]]) -> IngestReport:
        for number in range(1, _MOST_ROUNDS + 1):
            try:
                report = await run()
            except (FailedPrecondition, NotFound):
                if self.is_lock_lost or self._target is None or not await self._has_moved():
                    raise
            else:
                if report.is_stopped or not await self._has_moved():
                    return replace(report, rounds=number)
            if number < _MOST_ROUNDS:
                logger.warning(
                    "another version of %s was activated: the next round brings that one into line",
                    self._collection,
                )
        raise FailedPrecondition(
            f"another version of {self._collection} was activated in each of {_MOST_ROUNDS} "
            "rounds; start the job again when the swaps are over"
        )

    async def _has_moved(self) -> bool:
        """Whether another version than the one that was written is the active one now."""
        assert self._target is not None  # noqa: S101 — asked after a round
        try:
            now = await self._shop.collections.standing(self._shop.tenant, self._collection)
        except NotFound:  # it was deleted: nobody wants it made again
            return False
        return now.active not in {0, self._target.version}

    async def _run_jobs(
        self, target: IndexTarget, retry: frozenset[str] | None = None
    ) -> IngestReport:
        self._counters.clear()
        summaries = [
            await self._run_job(source, target, retry)
            for source in self._sources
            if not self._stop.is_set()
        ]
        stopped = self._stop.is_set()
        return IngestReport(target, tuple(summaries), is_activated=True, is_stopped=stopped)

    async def _run_job(
        self, source: Source, target: IndexTarget, retry: frozenset[str] | None
    ) -> IngestSummary:
        shop, key = self._shop, manifest_key(target, source.root_uri)
        opening = Manifest.open if retry is None else open_settled
        manifest = await opening(shop.state, key, shop.keepers)
        if retry is not None and manifest.doubtful:
            raise _meant_for_another(key)
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
        self._counters.append(job.counters)
        title = source.root_uri
        if self._build is not None:
            title = f"{title}, building version {target.version}"
        async with self._show(job.counters, title):
            try:
                return await self._guarded(job, manifest)
            except FailedPrecondition as error:
                if job.was_refused and self._build is None:
                    raise _shaped_otherwise(error, self._collection) from None
                raise

    async def _guarded(self, job: IngestJob, manifest: Manifest) -> IngestSummary:
        """Run it as long as the locks are held."""
        assert self._locks is not None  # noqa: S101 — locked before any job
        work = self._locks.guard(job.run(), manifest.abandon)
        if self._build is None:
            return await work
        return await self._build.guard(work, manifest.abandon)

    async def _prepared(self, begin: Callable[[], Awaitable[BuildLock]] | None) -> IndexTarget:
        if not self._sources:
            self._sources = await self._open_sources()
        collections, tenant = self._shop.collections, self._shop.tenant
        target = self._active = await collections.active(tenant, self._collection)
        if begin is not None:
            self._build = await begin()
            target = self._build.target
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
            self._target = None  # until all are held
            for root_uri in self.root_uris:
                lock = only_job(shop.state, manifest_key(target, root_uri), shop.keepers)
                await self._folder_stack.enter_async_context(lock)
            self._target = target


def manifest_key(target: IndexTarget, root_uri: str) -> ManifestKey:
    """The manifest of a root in an index version."""
    return ManifestKey(
        target.tenant, target.collection, root_uri, target.version, target.created_at
    )


def _meant_for_another(key: ManifestKey) -> FailedPrecondition:
    return FailedPrecondition(
        f"collection {key.collection} has another active version since: run "
        f"`sluice ingest` over {key.root_uri}, which tries every file"
    )


def _shaped_otherwise(error: FailedPrecondition, collection: str) -> FailedPrecondition:
    """The error of indexers that write no more to a version as it was begun: what to do."""
    if "--rebuild" in error.message:
        return error
    return FailedPrecondition(
        f"{error.message}. To index all anew with what the indexers are set to now: "
        f"`sluice ingest URI... --collection {collection} --rebuild --activate`"
    )
