"""Ingestion as a whole: roots into a collection, or a new version of it. The composition root.

Everything a job needs is opened here, in order, and closed in reverse. Roots are taken one after
the other; within one, the job works in parallel.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from common.errors import FailedPrecondition, InvalidArgument
from common.identity import check_collection, check_tenant
from common.rpc import open_channel
from ingestor.dead_letters import DeadLetter, DeadLetters, open_settled
from ingestor.extraction import DocumentExtractor
from ingestor.filesystems import locate
from ingestor.index_client import CollectionClient, IndexClient, IndexTarget
from ingestor.job import IngestJob
from ingestor.manifest import (
    Manifest,
    ManifestKey,
    only_job,
    root_folder,
    version_folder_name,
)
from ingestor.selection import Selection
from ingestor.sources import open_source
from ingestor.state_folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    import grpc

    from ingestor.settings import IngestorConfig, IngestSettings
    from ingestor.sources import Source
    from ingestor.summary import Counters, IngestSummary

    Show: TypeAlias = Callable[[Counters, str], AbstractAsyncContextManager[None]]

_STATE_THREADS = 2
_ADDED_UP = (
    *("listed", "unchanged", "skipped", "set_aside", "files_opened", "indexed", "updated"),
    *("superseded", "deleted", "dead_letters", "documents", "chunks", "bytes", "duration_s"),
)


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all roots.

    ``is_activated`` tells whether queries see the version: always, unless it was built beside the
    active one and left there. ``findings`` are what its verification found wrong.
    """

    target: IndexTarget
    roots: tuple[IngestSummary, ...]
    is_activated: bool
    findings: tuple[str, ...] = ()

    @property
    def dead_letters(self) -> int:
        """Files and folders that failed."""
        return sum(root.dead_letters for root in self.roots)

    def to_json(self) -> dict[str, Any]:
        """One object: the sums, the rates over all, and each root."""
        roots = [asdict(root) for root in self.roots]
        sums = {name: sum(root[name] for root in roots) for name in _ADDED_UP}
        duration_s = sums["duration_s"] or 1e-9
        sent = sums["indexed"] + sums["updated"]
        rates = {
            "documents_per_s": sent / duration_s,
            "chunks_per_s": sums["chunks"] / duration_s,
            "mb_per_s": sums["bytes"] / 1e6 / duration_s,
        }
        return {
            "tenant": self.target.tenant,
            "collection": self.target.collection,
            "index_version": self.target.version,
            "activated": self.is_activated,
            "findings": list(self.findings),
            **sums,
            **{name: round(rate, 3) for name, rate in rates.items()},
            "roots": roots,
        }


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
        channel: grpc.aio.Channel,
        readers: ThreadPoolExecutor,
        keepers: ThreadPoolExecutor,
    ) -> None:
        self._settings: IngestSettings = config.ingest
        self._timeout_s = config.client.timeout_s
        self._state = state
        self._channel = channel
        self._readers = readers
        self._keepers = keepers
        self._tenant = check_tenant(config.client.tenant)
        self._collections = CollectionClient(
            channel, config.ingest.stream, timeout_s=self._timeout_s
        )
        self.dead_letters = DeadLetters(
            state, self._tenant, keepers, max_attempts=config.ingest.max_attempts
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, config: IngestorConfig, environ: Mapping[str, str]
    ) -> AsyncIterator[Ingestion]:
        """Open state and connection; the server is called only when a job needs it."""
        async with AsyncExitStack() as stack:
            readers = stack.enter_context(ThreadPoolExecutor(config.ingest.readers, "sluice-read"))
            keepers = stack.enter_context(ThreadPoolExecutor(_STATE_THREADS, "sluice-state"))
            uri = config.ingest.state_uri or default_state_uri(environ)
            loop = asyncio.get_running_loop()
            location = await loop.run_in_executor(keepers, locate, uri, config.ingest.hdfs)
            channel = open_channel(config.client.target, config.client.channel)
            await stack.enter_async_context(channel)
            yield cls(config, StateFolder.at(location), channel, readers, keepers)

    async def ingest(
        self,
        uris: Sequence[str],
        collection: str,
        *,
        rebuild: bool,
        activate: bool,
        show: Show,
    ) -> IngestReport:
        """Bring a collection into line with the roots.

        Args:
            uris: paths or URIs of folders or files; none inside another.
            collection: is created if there is none.
            rebuild: build a new version from these roots alone, beside the active one.
            activate: let queries see the new version if it passes its verification.
            show: makes the context in which a job's counters are shown.

        Raises:
            SluiceError: as ``IngestJob.run``; or the roots overlap.
        """
        collection = check_collection(collection)
        selection = Selection(
            include=self._settings.include,
            exclude=self._settings.exclude,
            hidden=self._settings.hidden,
        )
        sources = [await open_source(uri, self._settings.hdfs, self._readers) for uri in uris]
        _check_apart(source.root_uri for source in sources)
        target = await self._collections.active(self._tenant, collection)
        if rebuild:
            target = await self._collections.begin_version(self._tenant, collection)
        summaries = []
        async with DocumentExtractor(self._settings.extraction, self._readers) as extractor:
            for source in sources:
                key = _key(target, source.root_uri)
                async with only_job(self._state, key, self._keepers):
                    manifest = await Manifest.open(self._state, key, self._keepers)
                    job = self._job(source, selection, extractor, target, manifest)
                    async with show(job.counters, source.root_uri):
                        summaries.append(await job.run())
        if not rebuild:
            return IngestReport(target, tuple(summaries), is_activated=True)
        expected = sum(summary.documents for summary in summaries)
        findings = await self._collections.verify(target, expected)
        if activate and not expected:
            findings = (*findings, "it holds no documents, so queries do not get to see it")
        await self._forget_versions(target, [source.root_uri for source in sources])
        if activate and not findings:
            await self._collections.activate(target)
        is_activated = activate and not findings
        return IngestReport(target, tuple(summaries), is_activated, findings)

    async def retry(self, letters: Sequence[DeadLetter], show: Show) -> list[IngestReport]:
        """Try the files of dead letters again, whatever their attempts; nothing else is touched.

        FailedPrecondition if the version they were meant for is no longer the active one.
        """
        reports = []
        selection = Selection(hidden=True)
        async with DocumentExtractor(self._settings.extraction, self._readers) as extractor:
            for key in await self.dead_letters.roots():
                paths = frozenset(
                    letter.path
                    for letter in letters
                    if (letter.collection, letter.root_uri) == (key.collection, key.root_uri)
                )
                if not paths:
                    continue
                target = await self._collections.active(self._tenant, key.collection)
                if _key(target, key.root_uri) != key:
                    raise FailedPrecondition(
                        f"collection {key.collection} has another active version since: run "
                        f"`sluice ingest` over {key.root_uri}, which tries every file"
                    )
                source = await open_source(key.root_uri, self._settings.hdfs, self._readers)
                async with only_job(self._state, key, self._keepers):
                    manifest = await open_settled(self._state, key, self._keepers)
                    job = self._job(source, selection, extractor, target, manifest, paths)
                    async with show(job.counters, key.root_uri):
                        summary = await job.run()
                reports.append(IngestReport(target, (summary,), is_activated=True))
        return reports

    async def _forget_versions(self, target: IndexTarget, roots: Sequence[str]) -> None:
        """Delete the manifests of versions that the collection keeps no longer."""
        kept = await self._collections.kept_versions(target.tenant, target.collection)
        names = {version_folder_name(version) for version in kept}

        def forget() -> None:
            for root_uri in roots:
                root = root_folder(self._state, target.tenant, target.collection, root_uri)
                for name in root.names():
                    if name not in names:
                        root.folder(name).delete_all()

        await asyncio.get_running_loop().run_in_executor(self._keepers, forget)

    def _job(
        self,
        source: Source,
        selection: Selection,
        extractor: DocumentExtractor,
        target: IndexTarget,
        manifest: Manifest,
        retry: frozenset[str] | None = None,
    ) -> IngestJob:
        return IngestJob(
            job_id=f"ingest-{secrets.token_hex(6)}",
            source=source,
            selection=selection,
            extractor=extractor,
            index=IndexClient(
                self._channel, target, self._settings.stream, timeout_s=self._timeout_s
            ),
            manifest=manifest,
            settings=self._settings,
            retry=retry,
        )


def _key(target: IndexTarget, root_uri: str) -> ManifestKey:
    return ManifestKey(
        target.tenant, target.collection, root_uri, target.version, target.created_at
    )


def _check_apart(roots: Iterable[str]) -> None:
    """Refuse a root within another: its files would be taken twice."""
    ascending = sorted(roots)
    for outer, inner in itertools.pairwise(ascending):
        if inner == outer or (outer.endswith("/") and inner.startswith(outer)):
            raise InvalidArgument(f"{inner} lies within {outer}: give one of them", field="uri")
