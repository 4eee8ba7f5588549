"""Mending a version from its own store: what belongs to no complete document is deleted.

Only chunks go that no search should show; what is lacking cannot be made here, so a document that
must be sent again is named. Each lot is read again under its documents' locks and decided on that
alone, so a repair beside other repairs deletes nothing that is needed; one that is cut short
leaves a state that the next one mends. It must not run while another process writes the version:
whoever calls it sees to that.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer import inventory
from indexer.faults import MAX_FAULTS, Fault, doomed, fault_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from indexer.pipeline import IndexPipeline
    from indexer.reconcile import HeldChunk
    from indexer.target import Target


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes:
        deleted_chunks: how many.
        incomplete: documents that must be sent again, the first 1,000, as they were found.
        incomplete_documents: how many there are in all.
    """

    deleted_chunks: int
    incomplete: tuple[Fault, ...]
    incomplete_documents: int


@dataclass(slots=True)
class _Lot:
    """Decides on what is held of a lot under its locks, and keeps what it saw."""

    faults: tuple[Fault, ...] = ()

    def __call__(self, held: Mapping[str, Sequence[HeldChunk]]) -> list[str]:
        found = (fault_of(document_id, chunks) for document_id, chunks in held.items())
        self.faults = tuple(fault for fault in found if fault is not None)
        return [id_ for chunks in held.values() for id_ in doomed(chunks)]


async def repair(pipeline: IndexPipeline, target: Target) -> Repaired:
    """Delete headless and surplus chunks, at most 256 documents at a time.

    Raises:
        FailedPrecondition: the version may not be changed.
        Unavailable: the store does not answer; what was deleted before stays deleted.
    """
    deleted = incomplete = 0
    named: list[Fault] = []
    async with aclosing(inventory.states(target.store)) as lots:
        async for held in lots:
            faulty = [id_ for id_, chunks in held.items() if fault_of(id_, chunks)]
            if not faulty:
                continue
            lot = _Lot()
            deleted += await pipeline.mend(target, faulty, lot)
            again = [fault for fault in lot.faults if fault.sent_again]
            incomplete += len(again)
            named += again[: MAX_FAULTS - len(named)]
    return Repaired(deleted, tuple(named), incomplete)
