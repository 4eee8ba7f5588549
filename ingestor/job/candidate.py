"""A file that is to be read, with all that was decided of it before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestor.extraction.extractor import Plan
    from ingestor.state.file_records import FileRecord, Holding
    from ingestor.storage.listing import FileEntry


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to be read.

    Attributes:
        entry: as listed.
        plan: how its documents are made.
        record: its row until now.
        version: of the documents to be made of it.
        holding: what the index may hold of it.
        was_held: whether its documents replace others.
    """

    entry: FileEntry
    plan: Plan
    record: FileRecord | None
    version: int
    holding: Holding
    was_held: bool
