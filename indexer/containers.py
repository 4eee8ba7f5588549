"""Deleting what a container holds, up to a version, in steps that a call has time for.

A container has no record of its own: its documents are found by the URI that their chunks carry,
and each is deleted by the commit rule, under its lock. Chunks are looked for, not heads, so that a
repeat also finds what a failed deletion left of a document whose head was gone already. Nothing is
remembered between two calls: what is left is found again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.identity import parse_chunk_id
from indexer.store import batched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.rpc import Deadline
    from indexer.pipeline import IndexPipeline
    from indexer.target import Target

# What one call looks at, and what is deleted under one lock.
MAX_DOCUMENTS = 5_000
MAX_CHUNKS = 20_000
_LOT_DOCUMENTS = 256


@dataclass(frozen=True, slots=True)
class ContainerDeletion:
    """Delete a container's documents of this version or an older one; 0 is any."""

    container_uri: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class ContainerDeleted:
    """Documents deleted, and whether nothing is left to delete."""

    documents: int
    complete: bool


async def delete_containers(
    pipeline: IndexPipeline,
    target: Target,
    deletions: Sequence[ContainerDeletion],
    deadline: Deadline,
) -> list[ContainerDeleted]:
    """Delete containers of different URIs, in their order.

    Looks at 5,000 documents and begins nothing after the deadline; what is left then is told as
    not complete.
    """
    outcomes: list[ContainerDeleted] = []
    budget = MAX_DOCUMENTS
    for deletion in deletions:
        deleted, looked_at, complete = 0, 0, False
        if budget and deadline.remaining_s():
            found = await target.store.contained(
                deletion.container_uri, deletion.version, MAX_CHUNKS
            )
            documents = list(dict.fromkeys(parse_chunk_id(id_).document_id for id_ in found))
            for lot in batched(documents[:budget], _LOT_DOCUMENTS):
                if not deadline.remaining_s():
                    break
                deleted += await pipeline.delete_contained(target, deletion, lot)
                looked_at += len(lot)
            complete = looked_at == len(documents) and len(found) < MAX_CHUNKS
        budget -= looked_at
        outcomes.append(ContainerDeleted(deleted, complete))
    return outcomes
