"""What is wrong with one document in the store, and which of its chunks a repair deletes.

Pure: the same chunks give the same answer, and nothing is read or written. A repair never takes a
chunk from the newest complete revision, nor, where none is complete, from one whose head is there:
a document is sent again then, and what still answers queries stays until that has happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from indexer.reconcile import complete_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer.reconcile import HeldChunk

# Told of one version at most, however many documents have a fault.
MAX_FAULTS: Final = 1_000


class FaultKind(Enum):
    """Each but SURPLUS asks for the document to be sent again; a repair cannot mend it."""

    INCOMPLETE = "incomplete"
    SURPLUS = "surplus"
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one document.

    Attributes:
        document_id: the document.
        source_uri: its source, as its newest chunk says.
        container_uri: the file it is a part of; empty for a document that is its source.
        kind: INCOMPLETE: no revision is complete. DIVERGED: the complete one has chunks of
            different version or metadata. SURPLUS: there are other chunks besides.
        surplus_chunks: chunks that a repair deletes, of any kind of fault.
    """

    document_id: str
    source_uri: str
    container_uri: str
    kind: FaultKind
    surplus_chunks: int

    @property
    def sent_again(self) -> bool:
        """Whether the document must be sent again."""
        return self.kind is not FaultKind.SURPLUS

    def __str__(self) -> str:
        """One line, without a document's text."""
        count = self.surplus_chunks
        said = {
            FaultKind.INCOMPLETE: "no revision of it is complete",
            FaultKind.DIVERGED: "its chunks differ in version or metadata",
            FaultKind.SURPLUS: f"{count} {_chunks(count)} of other states left; repair the version",
        }[self.kind]
        if self.sent_again:
            besides = f" and {count} {_chunks(count)} to be deleted by a repair" if count else ""
            said += f"{besides}; send it again"
        return f"document {self.document_id} ({self.source_uri}): {said}"


def fault_of(document_id: str, held: Sequence[HeldChunk]) -> Fault | None:
    """What is wrong with a document of which these chunks, at least one, are held."""
    head = _kept(held)
    surplus = len(doomed(held))
    if head is None:
        kind = FaultKind.INCOMPLETE
    elif len({(one.version, one.attributes) for one in held if _is_part(one, head)}) > 1:
        kind = FaultKind.DIVERGED
    elif surplus:
        kind = FaultKind.SURPLUS
    else:
        return None
    told_by = head or max(held, key=lambda chunk: (chunk.version, chunk.id))
    return Fault(document_id, told_by.source_uri, told_by.container_uri, kind, surplus)


def doomed(held: Sequence[HeldChunk]) -> list[str]:
    """Ids of the chunks of one document that a repair deletes."""
    head = _kept(held)
    if head is not None:
        return [chunk.id for chunk in held if not _is_part(chunk, head)]
    headed = {chunk.revision for chunk in held if not chunk.ordinal}
    return [chunk.id for chunk in held if chunk.revision not in headed]


def _kept(held: Sequence[HeldChunk]) -> HeldChunk | None:
    """The head of the newest complete revision; of two of one version that which searches show."""
    return max(complete_heads(held), key=lambda head: (head.version, head.revision), default=None)


def _is_part(chunk: HeldChunk, head: HeldChunk) -> bool:
    return chunk.revision == head.revision and chunk.ordinal < head.chunk_count


def _chunks(count: int) -> str:
    return "chunk" if count == 1 else "chunks"
