"""What extraction gives: documents, the parts of a file that holds many, or the refusal of a file.

Values only, of the standard library alone: worker processes make them and the ingestor reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingestor.faults import Cause, Fault, FaultStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.records import MetadataValue

MAX_TITLE_BYTES = 1024
MAX_FRAGMENT_CHARACTERS = 2048  # of a document's URI the indexer takes 4,096 bytes


@dataclass(frozen=True, slots=True)
class Extracted:
    """A document's text; ``pages`` are (number, start, end) in characters of the text."""

    text: str
    title: str
    media_type: str
    pages: tuple[tuple[int, int, int], ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One document of a file; ``fragment`` is percent-encoded and unique in the file."""

    fragment: str
    extracted: Extracted


@dataclass(frozen=True, slots=True)
class PartBatch:
    """Parts of about 1 MiB of text, and how many records were passed over: they hold no text."""

    parts: tuple[Part, ...]
    passed_over: int


class Refusal(Exception):
    """Why no document is taken from a file, on its way out of a parser."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(FaultStage.EXTRACT, cause, message)


def title_of(text: str) -> str:
    """The text as a title: in one line, and no longer than the indexer takes."""
    return " ".join(text.split()).encode()[:MAX_TITLE_BYTES].decode("utf-8", "ignore")
