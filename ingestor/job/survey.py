"""What is to be done with each file: the listing set beside the manifest, and beside the index.

The survey streams: it holds some batches of listing and manifest, never all of either. Files that
stay as they are cost a few comparisons; what has to be read goes to ``take``, what is gone or fails
before it is read to the job's books. A survey that is stopped has decided nothing of the files it
did not meet: they are neither read nor deleted.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

from common.errors import FailedPrecondition
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.job.candidate import Candidate
from ingestor.job.difference import Found, Same, Unknown, Unlisted, Vanished, differences
from ingestor.state.file_records import (
    FileOutcome,
    FileRecord,
    Holding,
    Kinds,
    confirms,
    is_same,
    next_version,
    unread,
)
from ingestor.storage.listing import FileBatch, FileEntry, ListingFault

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from ingestor.extraction.extractor import Extractor, Plan
    from ingestor.job.difference import Difference
    from ingestor.job.outcomes import Outcomes
    from ingestor.job.summary import Counters
    from ingestor.selection import Selection
    from ingestor.settings import IngestSettings
    from ingestor.state.held import HeldFiles
    from ingestor.state.manifest import Manifest
    from ingestor.storage.listing import Batch
    from ingestor.storage.sources import Source

    Take: TypeAlias = Callable[[Candidate], Awaitable[None]]

_DONE = (FileOutcome.INDEXED, FileOutcome.SUPERSEDED)


class Survey:
    """One pass over one root.

    Args:
        held: what the index says it holds, where the manifest may not be believed; else None.
        since_us: files older than this, in µs since 1970, are left as they are; None for none.
        stop: is set when no more files are to be taken.
    """

    def __init__(
        self,
        *,
        source: Source,
        selection: Selection,
        extractor: Extractor,
        manifest: Manifest,
        outcomes: Outcomes,
        counters: Counters,
        settings: IngestSettings,
        held: HeldFiles | None,
        since_us: int | None,
        stop: asyncio.Event,
    ) -> None:
        self._source = source
        self._selection = selection
        self._extractor = extractor
        self._manifest = manifest
        self._outcomes = outcomes
        self._counters = counters
        self._settings = settings
        self._held = held
        self._since_us = since_us
        self._stop = stop
        self._unlisted: tuple[str, ...] = ()

    async def run(self, take: Take) -> None:
        """Decide on every file; ``take`` waits where enough are ahead."""
        async with aclosing(self._differences()) as groups:
            async for group in groups:
                if self._stop.is_set():
                    return
                for candidate in await self._decide(group):
                    await take(candidate)
                await self._relieve()

    async def run_letters(self, paths: frozenset[str], take: Take) -> None:
        """Decide only on dead letters, whatever their attempts: these, or all if none is named."""
        async with aclosing(self._manifest.rows()) as batches:
            async for rows in batches:
                for record in rows.records(FileOutcome.DEAD_LETTER):
                    if self._stop.is_set():
                        return
                    if record.stage == FaultStage.LIST or (paths and record.path not in paths):
                        continue
                    candidate = await self._retried(record)
                    if candidate is not None:
                        await take(candidate)

    async def settle_unmet(self) -> None:
        """Delete what the index holds of this root and neither listing nor manifest knows.

        What is beneath folders that could not be listed is remembered instead, so that a later job
        finds out what became of it. What this selection leaves out is left alone: another job over
        a part of this root may have put it there.
        """
        assert self._held is not None  # noqa: S101 — asked only where the index was
        async with aclosing(self._held.unmet()) as batches:
            async for files in batches:
                for uri, holding in files.items():
                    path = unquote(uri.removeprefix(self._source.root_uri))
                    if path and not self._selection.admits(path):
                        continue
                    if uri.startswith(self._unlisted):
                        self._outcomes.keep_unread(path, uri, holding)
                    else:
                        self._outcomes.vanish(unread(path, uri, Holding()), holding)
                await self._relieve()

    async def _relieve(self) -> None:
        """Do what waits, if it is much: the job's books must not grow with the root."""
        if self._outcomes.is_deletion_due:
            await self._outcomes.delete_waiting()
        if self._manifest.is_checkpoint_due:
            await self._manifest.checkpoint()

    # The listing

    async def _differences(self) -> AsyncGenerator[list[Difference], None]:
        listing = self._admitted()
        rows = self._manifest.rows()
        async with aclosing(listing), aclosing(rows):
            first = await anext(listing, None)
            if first is None and not (self._settings.allow_empty or self._stop.is_set()):
                await self._refuse_to_empty()
            # Without rules every recipe is empty.
            recipe_of = self._recipe_of if self._settings.formats else None
            async with aclosing(differences(_chained(first, listing), rows, recipe_of)) as groups:
                async for group in groups:
                    yield group

    def _recipe_of(self, path: str) -> str:
        plan = self._extractor.plan(path)
        return "" if isinstance(plan, Fault) else plan.recipe

    async def _refuse_to_empty(self) -> None:
        """A root without files is more often a mount that is gone than a wish to delete all."""
        holds = self._held is not None and not await self._held.is_empty()
        async with aclosing(self._manifest.rows()) as batches:
            async for rows in batches:
                holds = holds or rows.documents(0, len(rows)) > 0
        if holds:
            raise FailedPrecondition(
                f"{self._source.root_uri} has no file to index, but the index holds documents of "
                "it; nothing was deleted. Check the mount and the globs; if all of them shall go, "
                "run again with --allow-empty"
            )

    async def _admitted(self) -> AsyncGenerator[Batch, None]:
        async with aclosing(self._source.walk(self._selection.enters)) as listing:
            async for batch in listing:
                if self._stop.is_set():  # where all is left out, nobody else would see it
                    return
                admitted = self._admit(batch)
                self._counters.skipped += len(batch) - len(admitted)
                if admitted:
                    yield admitted

    def _admit(self, batch: Batch) -> Batch:
        admits = self._selection.admits
        if isinstance(batch, FileBatch):
            self._counters.listed += len(batch)
            if self._selection.admits_all(batch.paths):
                return batch
            taken = [admits(path) for path in batch.paths]
            return FileBatch(
                batch.root_uri,
                list(compress(batch.paths, taken)),
                list(compress(batch.sizes, taken)),
                list(compress(batch.modified_us, taken)),
            )
        admitted: list[FileEntry | ListingFault] = []
        for item in batch:
            self._counters.listed += isinstance(item, FileEntry)
            # Globs for files say nothing of a folder that could not be listed.
            unseen = isinstance(item, ListingFault) and item.may_be_folder
            if (self._selection.enters if unseen else admits)(item.path):
                admitted.append(item)
        return admitted

    # The decisions

    async def _decide(self, group: Sequence[Difference]) -> list[Candidate]:
        """Settle what can be settled without reading; the rest is to be read."""
        held = await self._meet(group)
        candidates: list[Candidate | None] = []
        for item in group:
            match item:
                case Same():
                    candidates += self._same(item, held)
                case Found():
                    known = held.get(item.entry.uri)
                    candidates.append(self._found(item.entry, item.record, known))
                case Unlisted():
                    self._fail_listing(item.fault, item.record, held.get(item.fault.uri))
                case Vanished():
                    holding = _joined(item.record.holding, held.get(item.record.uri))
                    self._outcomes.vanish(item.record, holding)
                case Unknown():
                    self._keep(item.record, held.get(item.record.uri))
        return [candidate for candidate in candidates if candidate is not None]

    async def _meet(self, group: Sequence[Difference]) -> dict[str, Holding]:
        """What the index itself says of these files, if it was asked."""
        if self._held is None:
            return {}
        uris: list[str] = []
        for item in group:
            match item:
                case Same():
                    uris += (item.rows.record(row).uri for row in range(item.begin, item.end))
                case Found():
                    uris.append(item.entry.uri)
                case Unlisted():
                    uris.append(item.fault.uri)
                case Vanished() | Unknown():
                    uris.append(item.record.uri)
        return await self._held.meet(uris)

    def _same(self, same: Same, held: dict[str, Holding]) -> list[Candidate | None]:
        if self._held is None:
            self._counters.unchanged += same.end - same.begin
            self._counters.documents_held += same.rows.documents(same.begin, same.end)
            return []
        records = (same.rows.record(row) for row in range(same.begin, same.end))
        return [
            self._found(
                FileEntry(record.path, record.uri, record.size, record.modified_us),
                record,
                held.get(record.uri),
            )
            for record in records
        ]

    def _found(
        self, entry: FileEntry, record: FileRecord | None, held: Holding | None
    ) -> Candidate | None:
        plan = self._extractor.plan(entry.path)
        recipe = "" if isinstance(plan, Fault) else plan.recipe
        if record is not None and is_same(entry, recipe, record):
            if record.outcome in _DONE and (self._held is None or confirms(held, record)):
                self._counters.unchanged += 1
                self._outcomes.keep(record)
                return None
            if record.outcome == FileOutcome.DROPPED:
                self._counters.skipped += 1
                self._keep(record, held)
                return None
            if self._is_set_aside(record):
                self._counters.set_aside += 1
                self._keep(record, held)
                return None
        if self._since_us is not None and entry.modified_us < self._since_us:
            self._counters.skipped += 1
            if record is not None:
                self._keep(record, held)
            elif held is not None:
                self._outcomes.keep_unread(entry.path, entry.uri, held)
            return None
        return self._candidate(entry, plan, record, held)

    async def _retried(self, record: FileRecord) -> Candidate | None:
        self._counters.listed += 1
        entry = await self._source.stat(record.path)
        if entry is None:
            self._outcomes.vanish(record, record.holding)
            return None
        if isinstance(entry, Fault):
            known = FileEntry(record.path, record.uri, record.size, record.modified_us)
            self._outcomes.fail(known, record.recipe, record, entry, record.holding)
            return None
        return self._candidate(entry, self._extractor.plan(entry.path), record, None)

    def _candidate(
        self,
        entry: FileEntry,
        plan: Plan | Fault,
        record: FileRecord | None,
        held: Holding | None,
    ) -> Candidate | None:
        """The file as one to be read, unless what the listing tells rules it out."""
        recipe = "" if isinstance(plan, Fault) else plan.recipe
        holding = record.holding if record is not None else Holding()
        if record is None or not is_same(entry, recipe, record):
            holding = replace(holding, kinds=holding.kinds & ~Kinds.OF_THIS_STATE)
        holding = _joined(holding, held)
        fault = plan if isinstance(plan, Fault) else self._fault(entry, plan)
        if fault is not None:
            self._outcomes.fail(entry, recipe, record, fault, holding)
            return None
        assert not isinstance(plan, Fault)  # noqa: S101 — it would be the fault
        self._counters.files_due += 1
        self._counters.bytes_due += entry.size
        was_held = bool(holding.version) if self._held is None else held is not None
        version = next_version(entry, recipe, record, holding)
        return Candidate(entry, plan, record, version, holding, was_held)

    def _fault(self, entry: FileEntry, plan: Plan) -> Fault | None:
        """Why the file is not worth opening."""
        settings = self._settings
        if not plan.is_container and entry.size > settings.max_file_bytes:
            message = f"over {settings.max_file_bytes} bytes: raise --max-file-size"
            return Fault(FaultStage.READ, Cause.TOO_LARGE, message)
        if not entry.size:
            return Fault(FaultStage.READ, Cause.NO_TEXT, "it is empty")
        return None

    def _fail_listing(
        self, listing: ListingFault, record: FileRecord | None, held: Holding | None
    ) -> None:
        if listing.may_be_folder and self._held is not None:
            self._unlisted += (f"{listing.uri}/",)
        entry = FileEntry(listing.path, listing.uri, 0, 0)
        if record is not None and is_same(entry, "", record) and self._is_set_aside(record):
            self._counters.set_aside += 1
            self._keep(record, held)
            return
        holding = record.holding if record is not None else Holding()
        self._outcomes.fail(entry, "", record, listing.fault, _joined(holding, held))

    def _is_set_aside(self, record: FileRecord) -> bool:
        is_letter = record.outcome == FileOutcome.DEAD_LETTER
        return is_letter and record.attempts >= self._settings.max_attempts

    def _keep(self, record: FileRecord, held: Holding | None) -> None:
        """The row stays, but for what the index says it holds besides."""
        holding = _joined(record.holding, held)
        if holding == record.holding:
            self._outcomes.keep(record)
            return
        is_done = record.outcome in _DONE
        outcome = FileOutcome.PARTIAL if is_done else FileOutcome(record.outcome)
        self._outcomes.record(replace(record, outcome=outcome).holds(holding))


def _joined(holding: Holding, held: Holding | None) -> Holding:
    """What the index may hold by a row and by its own word."""
    if held is None:
        return holding
    joined = holding.joined(held)
    if held.version > holding.version:
        joined = replace(joined, kinds=joined.kinds & ~Kinds.OF_THIS_STATE)
    return joined


async def _chained(first: Batch | None, rest: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    if first is not None:
        yield first
    async for batch in rest:
        yield batch
