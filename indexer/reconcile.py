"""The commit rule's decision: what to do with a document, given what the store holds of it.

Pure: the same arguments give the same decision, and nothing is read or written. A revision is
complete when its head and all of its chunks are there; its version is its head's, because a head
is the last chunk to be written or moved. Only complete revisions decide who is newer: what a crash
left unfinished was never acknowledged, neither supersedes a document nor saves it from being
written again, and is deleted by the next write that is not superseded.

Two states of equal version but different revisions are a source whose clock is coarser than its
changes: the one that arrives is written.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from indexer.nodes import Attributes


@dataclass(frozen=True, slots=True)
class HeldChunk:
    """What a stored chunk says of itself; ``attributes`` is ``nodes.Attributes.digest``."""

    id: str
    revision: str
    ordinal: int
    version: int
    chunk_count: int
    source_uri: str
    attributes: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """A newer version is held; nothing is to be done."""

    version: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """This revision is held and complete.

    Attributes:
        chunk_count: its chunks.
        stale: ids of its chunks whose version or metadata are to be moved.
        surplus: ids of all other chunks of the document, to be deleted.
    """

    chunk_count: int
    stale: tuple[str, ...]
    surplus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """This revision is to be written; then whatever else is ``held`` (ids) is to be deleted."""

    held: tuple[str, ...]


Decision: TypeAlias = Superseded | Unchanged | Write


def decide(held: Sequence[HeldChunk], revision: str, attributes: Attributes) -> Decision:
    """What to do with a document of this revision, version and metadata."""
    heads = complete_heads(held)
    newest = max((head.version for head in heads), default=0)
    if newest > attributes.version:
        return Superseded(newest)
    own = next((head for head in heads if head.revision == revision), None)
    if own is None:
        return Write(tuple(chunk.id for chunk in held))
    stale, surplus = [], []
    for chunk in held:
        if chunk.revision != revision or chunk.ordinal >= own.chunk_count:
            surplus.append(chunk.id)
        elif (chunk.version, chunk.attributes) != (attributes.version, attributes.digest):
            stale.append(chunk.id)
    return Unchanged(own.chunk_count, tuple(stale), tuple(surplus))


def current(held: Iterable[HeldChunk]) -> HeldChunk | None:
    """The head of the newest complete revision; None if none is complete."""
    return max(complete_heads(held), key=lambda head: head.version, default=None)


def complete_heads(held: Iterable[HeldChunk]) -> list[HeldChunk]:
    """The heads of the complete revisions, in no particular order."""
    revisions: dict[str, dict[int, HeldChunk]] = defaultdict(dict)
    for chunk in held:
        revisions[chunk.revision][chunk.ordinal] = chunk
    return [
        chunks[0]
        for chunks in revisions.values()
        if 0 in chunks and all(ordinal in chunks for ordinal in range(chunks[0].chunk_count))
    ]
