"""What became of each file: rows for the manifest, counts for the summary, deletions in the index.

The manifest forgets a document only after the index has deleted it, so deletions wait here with the
row that follows them. The caller decides; nothing here reads a file.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.identity import document_id
from common.telemetry import Metric, count
from ingestor.faults import Cause
from ingestor.state.file_records import FileOutcome, FileRecord, Holding, Kinds, dead_letter, unread

if TYPE_CHECKING:
    from ingestor.faults import Fault
    from ingestor.job.summary import Counters
    from ingestor.sending.index_client import IndexClient
    from ingestor.state.manifest import Manifest
    from ingestor.storage.listing import FileEntry

logger = logging.getLogger(__name__)

_MOST_WAITING = 1_000  # of a call's documents
# Each costs the index a look at all it holds. After a kill there are no more of them than were in
# hand; where all are in doubt, to read them again is cheaper.
_MOST_COUNTED = 16
_PREFIX_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Deletion:
    """Documents of one file to delete, and what the manifest says once they are deleted.

    Attributes:
        record: the row.
        whole: greatest version to delete of the document that is the whole file; 0 for none.
        parts: greatest version to delete of those that are parts of it; 0 for none.
        doubted: parts that were sent, if the index may hold others of the same version; else 0.
    """

    record: FileRecord
    whole: int = 0
    parts: int = 0
    doubted: int = 0


def everything(holding: Holding, record: FileRecord) -> Deletion:
    """The deletion of all that the index may hold of a file."""
    return Deletion(
        record,
        whole=holding.version if holding.kinds & Kinds.WHOLE else 0,
        parts=holding.version if holding.kinds & Kinds.PARTS else 0,
    )


class Outcomes:
    """The books of one job."""

    def __init__(self, manifest: Manifest, index: IndexClient, counters: Counters) -> None:
        self._manifest = manifest
        self._index = index
        self._counters = counters
        self._waiting: list[Deletion] = []
        self._counted_containers = 0

    def keep(self, record: FileRecord) -> None:
        """The file's row stays as it is."""
        self._counters.documents_held += record.documents

    def record(self, record: FileRecord) -> None:
        """The file has a new row."""
        self._manifest.record(record)
        if record.outcome != FileOutcome.REMOVED:
            self.keep(record)

    def delete(self, deletion: Deletion) -> None:
        """Delete documents soon; then the file has this row."""
        if deletion.whole or deletion.parts or deletion.doubted:
            self._waiting.append(deletion)
        else:
            self.record(deletion.record)

    def vanish(self, record: FileRecord, holding: Holding) -> None:
        """The file is gone, and all the index holds of it is to go."""
        self.delete(everything(holding, replace(record, outcome=FileOutcome.REMOVED)))

    def keep_unread(self, path: str, uri: str, holding: Holding) -> None:
        """The index holds the file's documents and nobody looks at it now: note that it does."""
        self.record(unread(path, uri, holding))

    def fail(
        self,
        entry: FileEntry,
        recipe: str,
        record: FileRecord | None,
        fault: Fault,
        holding: Holding,
    ) -> None:
        """Make the file a dead letter; the index keeps what it held, unless the text is gone."""
        self._counters.dead_letters += 1
        count(Metric.DOCUMENTS, 1, outcome="dead_letter")
        logger.info(
            "a file became a dead letter",
            extra={"stage": fault.stage.value, "cause": str(fault.cause)},
        )
        if fault.cause in {Cause.NO_TEXT, Cause.NOT_A_FILE}:
            letter = dead_letter(entry, recipe, record, fault, Holding())
            self.delete(everything(holding, letter))
        else:
            self.record(dead_letter(entry, recipe, record, fault, holding))

    @property
    def is_deletion_due(self) -> bool:
        """Whether so much waits for its deletion that it should be done."""
        return len(self._waiting) >= _MOST_WAITING

    async def delete_waiting(self) -> None:
        """Delete what is waiting for it; only then the manifest has its row."""
        while self._waiting:
            group, self._waiting = self._waiting[:_MOST_WAITING], self._waiting[_MOST_WAITING:]
            await self._manifest.begin()
            whole = [(document_id(one.record.uri), one.whole) for one in group if one.whole]
            parts = [(one.record.uri, one.parts) for one in group if one.parts]
            if whole:
                self._counters.deleted += await self._index.delete(whole)
            if parts:
                self._counters.deleted += await self._index.delete_containers(parts)
            for deletion in group:
                self.record(await self._counted(deletion) if deletion.doubted else deletion.record)

    async def _counted(self, deletion: Deletion) -> FileRecord:
        """The row of a container: to be read again, with a newer version, if others are there."""
        record, count = deletion.record, 0
        self._counted_containers += 1
        if self._counted_containers <= _MOST_COUNTED:
            # Percent-encoded, so ASCII.
            async with aclosing(self._index.documents(record.uri[:_PREFIX_BYTES])) as batches:
                async for documents in batches:
                    count += sum(one.container_uri == record.uri for one in documents)
            if count <= deletion.doubted:
                return record
        logger.warning(
            "the index may hold documents of a file as it was cut before the manifest was lost: "
            "they go with the next run"
        )
        return replace(record, outcome=FileOutcome.PARTIAL, kinds=int(Kinds.PARTS))
