"""What is known of one file: a row of the manifest, and the rules by which rows follow each other.

Pure functions of what was listed and what was known; nothing here reads, writes or waits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestor.faults import Fault
    from ingestor.storage.listing import FileEntry

_UNKNOWN_SIZE = -1  # of no size that a file has, so that it does not pass for unchanged


class FileOutcome(StrEnum):
    """What became of a file."""

    INDEXED = "indexed"
    SUPERSEDED = "superseded"
    DEAD_LETTER = "dead_letter"
    DROPPED = "dropped"
    # The index may hold documents of it, and nobody knows whether all: it is to be read.
    PARTIAL = "partial"
    # Only in segments: the file is gone from source and index, its row goes with the next merge.
    REMOVED = "removed"


class Kinds(IntFlag):
    """Which documents of a file the index may hold."""

    NONE = 0
    # The one that is the whole file.
    WHOLE = 1
    # Those that are parts of it.
    PARTS = 2
    # Some of them are of the very state that the row describes.
    OF_THIS_STATE = 4


@dataclass(frozen=True, slots=True)
class Holding:
    """What the index may hold of a file; ``version`` is the greatest, 0 if it holds nothing."""

    version: int = 0
    kinds: Kinds = Kinds.NONE
    documents: int = 0

    def joined(self, other: Holding) -> Holding:
        """What it may hold if one of two is right, nobody knows which."""
        return Holding(
            max(self.version, other.version),
            self.kinds | other.kinds,
            max(self.documents, other.documents),
        )


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One row.

    Attributes:
        path: relative to the root.
        uri: canonical URI.
        size: bytes, as listed.
        modified_us: modification time, as listed, in µs.
        outcome: a ``FileOutcome``.
        recipe: what shaped its documents besides its bytes (``extraction.Plan``).
        version: greatest version that the index holds of it; 0 if it holds none. A dead letter may
            have one: the index keeps the last state that could be read.
        kinds: ``Kinds`` of the documents that it holds.
        documents: how many, as far as known.
        digest: BLAKE2b-256 in hex of the file's bytes, or of its parts' digests; empty if it was
            not read to its end.
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
    recipe: str = ""
    version: int = 0
    kinds: int = 0
    documents: int = 0
    digest: str = ""
    stage: str = ""
    cause: str = ""
    message: str = ""
    attempts: int = 0
    first_seen_us: int = 0
    last_seen_us: int = 0

    @property
    def holding(self) -> Holding:
        """What the index holds of it, as the row tells."""
        return Holding(self.version, Kinds(self.kinds), self.documents)

    def holds(self, holding: Holding) -> FileRecord:
        """The row of a file of which the index holds this."""
        return replace(
            self,
            version=holding.version,
            kinds=int(holding.kinds) if holding.version else 0,
            documents=holding.documents if holding.version else 0,
        )


def is_same(entry: FileEntry, recipe: str, record: FileRecord) -> bool:
    """Whether file and recipe are as they were when the row was written."""
    known = (record.size, record.modified_us, record.recipe)
    return known == (entry.size, entry.modified_us, recipe)


def confirms(held: Holding | None, record: FileRecord) -> bool:
    """Whether the index holds of a file what the row says."""
    if held is None:
        return False
    if record.outcome == FileOutcome.SUPERSEDED:
        return held.version >= record.version
    return (held.version, held.documents) == (record.version, record.documents)


def next_version(entry: FileEntry, recipe: str, record: FileRecord | None, holding: Holding) -> int:
    """Version of the documents to be made of a file: its modification time, unless that is past.

    A file restored from a backup is older than what it replaces, and yet the newer state. Two
    states never share a version, since parts of the older one are deleted by it; one state that is
    sent again keeps its own.

    Args:
        entry: the file as listed.
        recipe: what will shape its documents.
        record: its row, if it has one.
        holding: what the index may hold of it, by its row or its own word.
    """
    version = max(1, entry.modified_us)
    known = holding.version
    if known < version:
        return version
    if record is not None and record.version == known and record.size != _UNKNOWN_SIZE:
        of_this_state = is_same(entry, recipe, record) and bool(record.kinds & Kinds.OF_THIS_STATE)
    else:
        # Only the index tells of it: a version that is the file's time was made of that state.
        of_this_state = known == entry.modified_us
    return known if of_this_state else known + 1


def listed(
    entry: FileEntry,
    recipe: str,
    outcome: FileOutcome,
    holding: Holding | None = None,
    digest: str = "",
) -> FileRecord:
    """The row of a file as it was listed, with what the index holds of it now."""
    holding = holding if holding is not None and holding.version else Holding()
    return FileRecord(
        *(entry.path, entry.uri, entry.size, entry.modified_us, outcome, recipe),
        version=holding.version,
        kinds=int(holding.kinds),
        documents=holding.documents,
        digest=digest,
    )


def unread(path: str, uri: str, holding: Holding) -> FileRecord:
    """The row of a file of which only the index tells: in what state it is, nobody knows."""
    return FileRecord(path, uri, _UNKNOWN_SIZE, 0, FileOutcome.PARTIAL).holds(holding)


def dead_letter(
    entry: FileEntry, recipe: str, record: FileRecord | None, fault: Fault, holding: Holding
) -> FileRecord:
    """The row of a file that failed; attempts count on while the file stays as it is.

    Args:
        entry: the file as listed.
        recipe: what was to shape its documents.
        record: its row until now.
        fault: why it failed.
        holding: what the index goes on holding of it.
    """
    letter_before = record is not None and record.outcome == FileOutcome.DEAD_LETTER
    same = record is not None and letter_before and is_same(entry, recipe, record)
    again = record if same else None
    now_us = time.time_ns() // 1000
    return replace(
        listed(entry, recipe, FileOutcome.DEAD_LETTER, holding),
        stage=fault.stage,
        cause=fault.cause,
        message=fault.message,
        attempts=again.attempts + 1 if again else 1,
        first_seen_us=again.first_seen_us if again else now_us,
        last_seen_us=now_us,
    )
