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

from common.identity import chunk_id, parse_chunk_id

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

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
    container_uri: str = ""

    @property
    def document_id(self) -> str:
        """The document it is a chunk of."""
        return parse_chunk_id(self.id).document_id


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


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go of a document when its container is deleted.

    Attributes:
        chunks: ids of the chunks to delete.
        document: whether the document goes with them, or only leftovers of its earlier states.
    """

    chunks: tuple[str, ...]
    document: bool


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


def remove(held: Sequence[HeldChunk], container_uri: str, version: int) -> Removal:
    """What to delete of a document when its container is deleted up to a version; 0 is any.

    A document whose newest complete revision is newer, or of another container, stays; of it, and
    of one without a complete revision, only chunks of this container and these versions go.
    """

    def is_old(chunk: HeldChunk) -> bool:
        return chunk.container_uri == container_uri and (not version or chunk.version <= version)

    head = current(held)
    revision = head.revision if head is not None else ""
    if head is not None and is_old(head):
        gone = [chunk.id for chunk in held if chunk.revision == revision or is_old(chunk)]
        return Removal(tuple(gone), document=True)
    return Removal(
        tuple(chunk.id for chunk in held if chunk.revision != revision and is_old(chunk)),
        document=False,
    )


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


def is_complete(head: HeldChunk, ids: Container[str]) -> bool:
    """Whether all chunks of the revision are among these ids."""
    document_id = head.document_id
    return all(chunk_id(document_id, head.revision, n) in ids for n in range(head.chunk_count))
