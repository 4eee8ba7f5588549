"""One index version as a search reads it, whichever way it was named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from common import identity

if TYPE_CHECKING:
    from common.coordination import Pointer, VersionRecord
    from common.embedding import EmbedderSpec


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """A version of a collection.

    Attributes:
        tenant: whose.
        collection: its name.
        number: of the version; never used twice in a collection.
        generation: how often the collection was switched before; 0 where no pointer led here.
        embedder: what its vectors were made with.
    """

    tenant: str
    collection: str
    number: int
    generation: int
    embedder: EmbedderSpec

    @property
    def store_collection(self) -> str:
        """Name of the vector store's collection."""
        return identity.store_collection(self.tenant, self.collection, self.number)

    @classmethod
    def active(cls, pointer: Pointer) -> Self:
        """The version that a pointer names."""
        return cls(
            pointer.tenant,
            pointer.collection,
            pointer.version,
            pointer.generation,
            pointer.embedder,
        )

    @classmethod
    def recorded(cls, record: VersionRecord) -> Self:
        """The version that a record tells of, active or not."""
        return cls(record.tenant, record.collection, record.number, 0, record.embedder)
