"""What the coordinator keeps about collections, their index versions and the running services.

Values only: nothing here reads or writes. `common.coordination.codec` turns them into what is
stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from common import identity

if TYPE_CHECKING:
    from datetime import datetime

    from common.embedding import EmbedderSpec


class VersionState(Enum):
    """The life of an index version: BUILDING → READY → ACTIVE → RETIRED, or FAILED."""

    BUILDING = "building"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChunkingSpec:
    """How text was cut into chunks; sizes in tokens of the embedder."""

    splitter: str
    chunk_tokens: int
    overlap_tokens: int

    def fingerprint(self) -> str:
        """The text that stands for these settings in a revision; equal settings, equal text."""
        return f"{self.splitter}/{self.chunk_tokens}/{self.overlap_tokens}"


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One index version.

    ``documents`` and ``chunks`` are the counts of the last verification, None before the first.
    ``mod_revision`` says which state of the record was read, for compare-and-set.
    """

    tenant: str
    collection: str
    number: int
    state: VersionState
    embedder: EmbedderSpec
    chunking: ChunkingSpec
    documents: int | None
    chunks: int | None
    created_at: datetime
    activated_at: datetime | None
    mod_revision: int = field(default=0, compare=False, repr=False)

    @property
    def store_collection(self) -> str:
        """Name of the vector store's collection."""
        return identity.store_collection(self.tenant, self.collection, self.number)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version of a collection is active.

    ``generation`` grows by one with every activation; ``previous_version`` is the version that was
    active before, 0 if there was none.
    """

    tenant: str
    collection: str
    version: int
    generation: int
    embedder: EmbedderSpec
    activated_at: datetime
    previous_version: int

    @property
    def store_collection(self) -> str:
        """Name of the vector store's collection."""
        return identity.store_collection(self.tenant, self.collection, self.version)


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection with its pointer, if a version is active, and its versions by number."""

    tenant: str
    name: str
    active: Pointer | None
    versions: tuple[VersionRecord, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """A running service; ``address`` is HOST:PORT."""

    id: str
    service: str
    address: str
    started_at: datetime
