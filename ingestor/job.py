"""One ingest job: brings what an index version holds of one root into line with the root.

The listing is merged with the manifest; what is new or changed is read, extracted and streamed, in
parallel and within a budget of bytes; what is gone is deleted. A file that cannot be indexed
becomes a dead letter and the job goes on; what the index held of it stays, unless the file has no
text any more. A job that was killed is continued by the next one, which then also asks the index
what it holds, so that both end in the index of one clean run.

The job knows no gRPC and no file system: source, extractor, index client and manifest are given.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from common.errors import FailedPrecondition, SluiceError
from common.identity import document_id
from common.telemetry import Metric, Stage, count, span
from ingestor.byte_budget import ByteBudget, Lease
from ingestor.difference import Found, Unknown, Unlisted, Vanished, differences
from ingestor.documents import to_document
from ingestor.extraction import declared_type
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.file_records import (
    FileOutcome,
    FileRecord,
    dead_letter,
    is_same,
    listed,
    next_version,
)
from ingestor.index_client import MAX_DELETIONS
from ingestor.sources import FileEntry, ListingFault
from ingestor.summary import Counters, IngestSummary, summarize
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ingestor.difference import Difference
    from ingestor.extraction import Extractor
    from ingestor.index_client import IndexClient
    from ingestor.manifest import Manifest
    from ingestor.selection import Selection
    from ingestor.settings import IngestSettings
    from ingestor.sources import Source
    from ingestor.stream import IndexStream, Receipt

logger = logging.getLogger(__name__)

_DONE = (FileOutcome.INDEXED, FileOutcome.SUPERSEDED)
_SMALLEST_LEASE = 4096  # what a file costs besides its bytes


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file to be read, and the version its document will have."""

    entry: FileEntry
    record: FileRecord | None
    version: int


@dataclass(frozen=True, slots=True)
class _Sent:
    """What is kept of a document until it is acknowledged."""

    candidate: _Candidate
    digest: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class _Deletion:
    """A document to delete, and what the manifest says once it is deleted."""

    document_id: str
    version: int
    record: FileRecord


class IngestJob:
    """One run over one root; ``run`` it once.

    Args:
        retry: only try these dead letters again, whatever their attempts: paths relative to the
            root, or all of them if it is empty; the manifest must not be doubtful. None runs over
            the whole root.
    """

    def __init__(
        self,
        *,
        job_id: str,
        source: Source,
        selection: Selection,
        extractor: Extractor,
        index: IndexClient,
        manifest: Manifest,
        settings: IngestSettings,
        retry: frozenset[str] | None = None,
    ) -> None:
        self._job_id = job_id
        self._source = source
        self._selection = selection
        self._extractor = extractor
        self._index = index
        self._manifest = manifest
        self._settings = settings
        self._retry = retry
        self._budget = ByteBudget(settings.max_bytes_in_flight)
        self._candidates: asyncio.Queue[_Candidate | None] = asyncio.Queue(
            settings.max_files_listed_ahead
        )
        self._deletions: list[_Deletion] = []
        self._held: dict[str, int] = {}  # by URI: versions in the index not yet met in the listing
        self._unlisted: list[str] = []
        self._over = asyncio.Event()
        self._stream: IndexStream[_Sent] = index.stream(job_id, self._on_receipt)
        self.counters = Counters()

    async def run(self) -> IngestSummary:
        """Run to the end.

        Raises:
            SluiceError: the root cannot be listed, or the index cannot be reached or refuses the
                job. What was acknowledged until then is recorded; start the job again.
        """
        with span(Stage.INGEST_JOB, job_id=self._job_id) as active:
            try:
                await self._run()
            except BaseExceptionGroup as group:
                ours, others = group.split(SluiceError)
                if ours is None or others is not None:
                    raise
                raise _first(ours) from None
            finally:
                await self._manifest.checkpoint()
            summary = summarize(
                self.counters, self._source.root_uri, self._manifest.key.index_version
            )
            active.set("documents", summary.indexed + summary.updated)
            active.set("dead_letters", summary.dead_letters)
        return summary

    async def _run(self) -> None:
        recovering = self._manifest.doubtful and self._retry is None
        if recovering:
            await self._ask_index()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._stream.run())
            saving = group.create_task(self._save())
            readers = [group.create_task(self._read()) for _ in range(self._settings.readers)]
            await (self._list() if self._retry is None else self._list_letters(self._retry))
            self.counters.is_listing_done = True
            for _ in readers:
                await self._candidates.put(None)
            await asyncio.gather(*readers)
            self._stream.close()
            await sending
            self._over.set()
            await saving
        if recovering:
            self._delete_unknown()
        await self._delete()
        await self._manifest.finish()

    async def _ask_index(self) -> None:
        """What the version holds of this root: the manifest may not tell."""
        root = self._source.root_uri
        held = await self._index.documents(root)
        # The URI of a single file is also the beginning of others.
        self._held = held if root.endswith("/") else {root: held[root]} if root in held else {}

    # Listing

    async def _list(self) -> None:
        with span(Stage.INGEST_LIST) as active:
            async with aclosing(self._differences()) as items:
                async for item in items:
                    match item:
                        case Found():
                            await self._consider(item.entry, item.record)
                        case Unlisted():
                            self._unlisted.append(f"{item.fault.uri}/")
                            folder = FileEntry(item.fault.path, item.fault.uri, 0, 0)
                            self._fail(folder, item.record, item.fault.fault)
                        case Vanished():
                            self._vanish(item.record)
                        case Unknown():
                            self._keep(item.record)
                    if len(self._deletions) >= MAX_DELETIONS:
                        await self._delete()
            active.set("files", self.counters.listed)

    async def _differences(self) -> AsyncGenerator[Difference, None]:
        listing = self._admitted()
        records = self._manifest.rows()
        async with aclosing(listing), aclosing(records):
            first = await anext(listing, None)
            if first is None and not self._settings.allow_empty:
                await self._refuse_to_empty()
            async for difference in differences(_chained(first, listing), records):
                yield difference

    async def _refuse_to_empty(self) -> None:
        """A root without files is more often a mount that is gone than a wish to delete all."""
        held = bool(self._held)
        async with aclosing(self._manifest.rows()) as records:
            async for record in records:
                held = held or bool(record.version)
        if held:
            raise FailedPrecondition(
                f"{self._source.root_uri} has no file to index, but the index holds documents of "
                "it; nothing was deleted. Check the mount and the globs; if all of them shall go, "
                "run again with --allow-empty"
            )

    async def _admitted(self) -> AsyncGenerator[FileEntry | ListingFault, None]:
        async with aclosing(self._source.walk(self._selection.enters)) as listing:
            async for item in listing:
                self.counters.listed += isinstance(item, FileEntry)
                # Globs for files say nothing of a folder that could not be listed.
                unseen = isinstance(item, ListingFault) and item.may_be_folder
                takes = self._selection.enters if unseen else self._selection.admits
                if takes(item.path):
                    yield item
                else:
                    self.counters.skipped += 1

    async def _list_letters(self, paths: frozenset[str]) -> None:
        async with aclosing(self._manifest.rows()) as records:
            async for record in records:
                letter = record.outcome == FileOutcome.DEAD_LETTER
                if not letter or record.stage == FaultStage.LIST:
                    continue
                if paths and record.path not in paths:
                    continue
                self.counters.listed += 1
                entry = await self._source.stat(record.path)
                if entry is None:
                    self._vanish(record)
                elif isinstance(entry, Fault):
                    known = FileEntry(record.path, record.uri, record.size, record.modified_us)
                    self._fail(known, record, entry)
                else:
                    await self._take(entry, record)

    async def _consider(self, entry: FileEntry, record: FileRecord | None) -> None:
        """Decide what to do with a file of the listing."""
        state_known = not self._manifest.doubtful or entry.uri in self._held
        if record is None or not is_same(entry, record):
            await self._take(entry, record)
        elif record.outcome in _DONE and state_known:
            self.counters.unchanged += 1
            self._keep(record)
        elif record.outcome == FileOutcome.DROPPED:
            self.counters.skipped += 1
            self._keep(record)
        elif record.outcome == FileOutcome.DEAD_LETTER and (
            record.attempts >= self._settings.max_attempts
        ):
            self.counters.set_aside += 1
            self._keep(record)
        else:
            await self._take(entry, record)

    async def _take(self, entry: FileEntry, record: FileRecord | None) -> None:
        """Let a file be read, unless what the listing tells rules it out."""
        fault = None
        media_type = declared_type(entry.path.rpartition("/")[2])
        if entry.size > self._settings.max_file_bytes:
            message = f"over {self._settings.max_file_bytes} bytes: raise --max-file-size"
            fault = Fault(FaultStage.READ, Cause.TOO_LARGE, message)
        elif isinstance(media_type, Fault):
            fault = media_type
        elif not entry.size:
            fault = Fault(FaultStage.READ, Cause.NO_TEXT, "it is empty")
        if fault is not None:
            self._fail(entry, record, fault)
            return
        self.counters.files_due += 1
        self.counters.bytes_due += entry.size
        version = next_version(entry, record, self._held.get(entry.uri, 0))
        await self._candidates.put(_Candidate(entry, record, version))

    def _keep(self, record: FileRecord) -> None:
        self._held.pop(record.uri, None)
        if record.version:
            self.counters.documents_held += 1

    # Reading, extracting, sending

    async def _read(self) -> None:
        while (candidate := await self._candidates.get()) is not None:
            lease = await self._budget.take(max(candidate.entry.size, _SMALLEST_LEASE))
            sent = False
            try:
                sent = await self._process(candidate, lease)
            finally:
                if not sent:
                    self._budget.give_back(lease)
            if len(self._deletions) >= MAX_DELETIONS:
                await self._delete()

    async def _process(self, candidate: _Candidate, lease: Lease) -> bool:
        """Read, extract and submit one file; whether its document is on the way."""
        entry = candidate.entry
        self.counters.files_opened += 1
        with span(Stage.INGEST_READ, bytes=entry.size):
            content = await self._source.read(entry, self._settings.max_file_bytes)
        if isinstance(content, Fault):
            self._settle(entry)
            if content.cause == Cause.GONE:
                gone = candidate.record or listed(entry, FileOutcome.REMOVED)
                self._vanish(gone)
            else:
                self._fail(entry, candidate.record, content)
            return False
        self.counters.bytes_read += len(content)
        count(Metric.BYTES_READ, len(content))
        name = entry.path.rpartition("/")[2]
        media_type = declared_type(name)
        assert not isinstance(media_type, Fault)  # noqa: S101 — ruled out before it was queued
        with span(Stage.INGEST_EXTRACT, bytes=len(content)):
            extracted = await self._extractor.extract(name, media_type, content)
        if isinstance(extracted, Fault):
            self._settle(entry)
            self._fail(entry, candidate.record, extracted)
            return False
        digest = hashlib.blake2b(content, digest_size=32).hexdigest()
        del content
        document = to_document(entry, candidate.version, extracted)
        self._budget.resize(lease, max(document.ByteSize(), _SMALLEST_LEASE))
        await self._manifest.begin()
        await self._stream.submit(document, _Sent(candidate, digest, lease))
        return True

    def _on_receipt(self, sent: _Sent, receipt: Receipt) -> None:
        entry, record = sent.candidate.entry, sent.candidate.record
        self._budget.give_back(sent.lease)
        self._settle(entry)
        if receipt.fault is not None:
            self._fail(entry, record, receipt.fault)
            return
        known = bool(record and record.version)
        held = entry.uri in self._held if self._manifest.doubtful else known
        outcome = FileOutcome.INDEXED
        match receipt.outcome:
            case index_pb2.OUTCOME_INDEXED:
                self.counters.updated += held
                self.counters.indexed += not held
                self.counters.chunks += receipt.chunk_count
            case index_pb2.OUTCOME_SUPERSEDED:
                self.counters.superseded += 1
                outcome = FileOutcome.SUPERSEDED
            case _:
                self.counters.unchanged += 1
        count(Metric.DOCUMENTS, 1, outcome=index_pb2.Outcome.Name(receipt.outcome)[8:].lower())
        done = listed(entry, outcome)
        done = replace(done, version=sent.candidate.version, digest=sent.digest)
        self._manifest.record(done)
        self._keep(done)

    def _settle(self, entry: FileEntry) -> None:
        self.counters.files_done += 1
        self.counters.bytes_done += entry.size

    # Dead letters and deletions

    def _fail(self, entry: FileEntry, record: FileRecord | None, fault: Fault) -> None:
        """Make the file a dead letter; the index keeps what it held unless the text is gone."""
        self.counters.dead_letters += 1
        count(Metric.DOCUMENTS, 1, outcome="dead_letter")
        logger.info(
            "a file became a dead letter",
            extra={"stage": fault.stage.value, "cause": str(fault.cause)},
        )
        version = max(record.version if record else 0, self._held.get(entry.uri, 0))
        letter = dead_letter(entry, record, fault, version)
        if fault.cause == Cause.NO_TEXT and version:
            self._held.pop(entry.uri, None)
            emptied = replace(letter, version=0)
            self._deletions.append(_Deletion(document_id(entry.uri), version, emptied))
            return
        self._manifest.record(letter)
        self._keep(letter)

    def _vanish(self, record: FileRecord) -> None:
        version = max(record.version, self._held.pop(record.uri, 0))
        removed = replace(record, outcome=FileOutcome.REMOVED)
        if version:
            self._deletions.append(_Deletion(document_id(record.uri), version, removed))
        else:
            self._manifest.record(removed)

    def _delete_unknown(self) -> None:
        """Delete what the index holds of this root and neither listing nor manifest knows.

        What is beneath folders that could not be listed is remembered instead, so that a later job
        finds out what became of it. What this selection leaves out is left alone: another job over
        a part of this root may have put it there.
        """
        root = self._source.root_uri
        for uri, version in self._held.items():
            path = unquote(uri.removeprefix(root))
            if path and not self._selection.admits(path):
                continue
            if any(uri.startswith(folder) for folder in self._unlisted):
                # Of no size that a file has, so that it will not pass for unchanged.
                known = FileRecord(path, uri, -1, 0, FileOutcome.INDEXED, version=version)
                self._manifest.record(known)
                self.counters.documents_held += 1
            else:
                gone = FileRecord(path, uri, 0, 0, FileOutcome.REMOVED)
                self._deletions.append(_Deletion(document_id(uri), version, gone))

    async def _delete(self) -> None:
        """Delete what is waiting for it; only then the manifest forgets it."""
        while self._deletions:
            group = self._deletions[:MAX_DELETIONS]
            self._deletions = self._deletions[MAX_DELETIONS:]
            await self._manifest.begin()
            self.counters.deleted += await self._index.delete(
                [(deletion.document_id, deletion.version) for deletion in group]
            )
            for deletion in group:
                self._manifest.record(deletion.record)

    async def _save(self) -> None:
        """Make the manifest durable from time to time."""
        saved = time.monotonic()
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(0.5, self._settings.checkpoint_s)):
                    await self._over.wait()
            is_time = time.monotonic() - saved >= self._settings.checkpoint_s
            if is_time or self._manifest.is_checkpoint_due:
                await self._manifest.checkpoint()
                saved = time.monotonic()


async def _chained(
    first: FileEntry | ListingFault | None, rest: AsyncIterator[FileEntry | ListingFault]
) -> AsyncGenerator[FileEntry | ListingFault, None]:
    if first is not None:
        yield first
    async for item in rest:
        yield item


def _first(group: BaseExceptionGroup[SluiceError]) -> SluiceError:
    """The first failure: what failed after it, failed because of it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
