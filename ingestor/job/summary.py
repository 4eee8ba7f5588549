"""What a job counts while it runs, and what it says at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts of a running job; bytes are of files. One task at a time changes them."""

    listed: int = 0
    unchanged: int = 0
    skipped: int = 0
    set_aside: int = 0
    files_opened: int = 0
    bytes_read: int = 0
    indexed: int = 0
    updated: int = 0
    superseded: int = 0
    deleted: int = 0
    dead_letters: int = 0
    passed_over: int = 0
    chunks: int = 0
    # Files to be read, as listed, and those of them that are done with.
    files_due: int = 0
    bytes_due: int = 0
    files_done: int = 0
    bytes_done: int = 0
    # Documents that the index holds of this root, as far as the manifest and this job know.
    documents_held: int = 0
    is_listing_done: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self.started

    @property
    def documents_sent(self) -> int:
        """Documents that the indexer acknowledged as written."""
        return self.indexed + self.updated


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What one job did with one root.

    Attributes:
        root_uri: the source.
        index_version: the version written.
        listed: files found, hidden ones and those left out by globs included.
        unchanged: files that the index holds already as they are, and documents of those that were
            read and that it holds so.
        skipped: files left out: hidden, by globs, by age, or dropped from the dead letters.
        set_aside: dead letters not tried again until they change or are retried.
        files_opened: files that were read.
        indexed: documents new in the index.
        updated: documents whose chunks were replaced.
        superseded: documents of which the index holds a newer version.
        deleted: documents deleted because their file, or their part of it, is gone or has no text
            any more.
        dead_letters: files and folders that failed in this job.
        passed_over: records of files that hold many: without text, so without a document.
        documents: documents that the index holds of this root.
        chunks: chunks of the documents indexed and updated.
        bytes: bytes read.
        duration_s: of the whole job.
        documents_per_s: documents acknowledged a second.
        chunks_per_s: of those documents.
        mb_per_s: 10^6 bytes read a second.
        stopped: whether the job was stopped before its end.
    """

    root_uri: str
    index_version: int
    listed: int
    unchanged: int
    skipped: int
    set_aside: int
    files_opened: int
    indexed: int
    updated: int
    superseded: int
    deleted: int
    dead_letters: int
    passed_over: int
    documents: int
    chunks: int
    bytes: int
    duration_s: float
    documents_per_s: float
    chunks_per_s: float
    mb_per_s: float
    stopped: bool


def summarize(
    counters: Counters, root_uri: str, index_version: int, *, stopped: bool
) -> IngestSummary:
    """The counters at the end of a job."""
    duration_s = counters.elapsed_s

    def rate(amount: float) -> float:
        return round(amount / duration_s, 3) if duration_s else 0.0

    return IngestSummary(
        root_uri=root_uri,
        index_version=index_version,
        listed=counters.listed,
        unchanged=counters.unchanged,
        skipped=counters.skipped,
        set_aside=counters.set_aside,
        files_opened=counters.files_opened,
        indexed=counters.indexed,
        updated=counters.updated,
        superseded=counters.superseded,
        deleted=counters.deleted,
        dead_letters=counters.dead_letters,
        passed_over=counters.passed_over,
        documents=counters.documents_held,
        chunks=counters.chunks,
        bytes=counters.bytes_read,
        duration_s=round(duration_s, 3),
        documents_per_s=rate(counters.documents_sent),
        chunks_per_s=rate(counters.chunks),
        mb_per_s=rate(counters.bytes_read / 1e6),
        stopped=stopped,
    )
