"""What is known of one file: a row of the manifest, and the rules by which rows follow each other.

Pure functions of what was listed and what was known; nothing here reads, writes or waits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestor.faults import Fault
    from ingestor.sources import FileEntry


class FileOutcome(StrEnum):
    """What became of a file."""

    INDEXED = "indexed"
    SUPERSEDED = "superseded"
    DEAD_LETTER = "dead_letter"
    DROPPED = "dropped"
    # Only in segments: the file is gone from source and index, its row goes with the next merge.
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One row.

    Attributes:
        path: relative to the root.
        uri: canonical URI.
        size: bytes, as listed.
        modified_us: modification time, as listed, in µs.
        outcome: a ``FileOutcome``.
        version: version that the index holds of it; 0 if it holds none. A dead letter may have one:
            the index keeps the last state that could be read.
        digest: BLAKE2b-256 of the file's bytes in hex; empty if they were not read.
        stage: of a dead letter, else empty; so are the next two.
        cause: why.
        message: why, for people.
        attempts: how often this state of the file was tried without success.
        first_seen_us: when it first failed, in µs; 0 if it did not.
        last_seen_us: when it last failed.
    """

    path: str
    uri: str
    size: int
    modified_us: int
    outcome: str
    version: int = 0
    digest: str = ""
    stage: str = ""
    cause: str = ""
    message: str = ""
    attempts: int = 0
    first_seen_us: int = 0
    last_seen_us: int = 0


def is_same(entry: FileEntry, record: FileRecord) -> bool:
    """Whether the file is as it was when the row was written."""
    return (record.size, record.modified_us) == (entry.size, entry.modified_us)


def next_version(entry: FileEntry, record: FileRecord | None, held: int) -> int:
    """Version of the document to be made of a file: its modification time, unless that is past.

    A file restored from a backup is older than what it replaces, and yet the newer state.

    Args:
        entry: the file as listed.
        record: its row, if it has one.
        held: version that the index itself says it holds; 0 if it was not asked or holds none.
    """
    version = max(1, entry.modified_us)
    if record is not None and record.version:
        version = max(version, record.version + 1)
    return held + 1 if held > version else version


def listed(entry: FileEntry, outcome: FileOutcome) -> FileRecord:
    """A row that says no more than the listing and the outcome."""
    return FileRecord(entry.path, entry.uri, entry.size, entry.modified_us, outcome)


def dead_letter(
    entry: FileEntry, record: FileRecord | None, fault: Fault, version: int
) -> FileRecord:
    """The row of a file that failed; attempts count on while the file stays as it is.

    Args:
        entry: the file as listed.
        record: its row until now.
        fault: why it failed.
        version: version that the index goes on holding of it; 0 for none.
    """
    letter_before = record is not None and record.outcome == FileOutcome.DEAD_LETTER
    again = record if record is not None and letter_before and is_same(entry, record) else None
    now_us = time.time_ns() // 1000
    return FileRecord(
        path=entry.path,
        uri=entry.uri,
        size=entry.size,
        modified_us=entry.modified_us,
        outcome=FileOutcome.DEAD_LETTER,
        version=version,
        stage=fault.stage,
        cause=fault.cause,
        message=fault.message,
        attempts=again.attempts + 1 if again else 1,
        first_seen_us=again.first_seen_us if again else now_us,
        last_seen_us=now_us,
    )
