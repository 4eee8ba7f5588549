"""Collections and their index versions, as frozen values that know nothing of gRPC.

Names are those of the contract ``sluice.collections.v1``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from sluice.collections.v1 import collections_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp


@dataclass(frozen=True, slots=True)
class Embedder:
    """What turned text into vectors."""

    model: str
    digest: str
    dimension: int
    pooling: str
    max_tokens: int
    variant: str


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One version; counts are None where none were taken yet."""

    number: int
    state: str
    embedder: Embedder
    splitter: str
    chunk_tokens: int
    overlap_tokens: int
    documents: int | None
    chunks: int | None
    created_at: datetime | None
    activated_at: datetime | None
    store_collection: str


@dataclass(frozen=True, slots=True)
class ActivePointer:
    """Which version answers; ``previous_version`` is 0 if there was none."""

    version: int
    generation: int
    activated_at: datetime | None
    previous_version: int


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection; versions ascend by number."""

    tenant: str
    name: str
    active: ActivePointer | None
    versions: tuple[IndexVersion, ...]

    @property
    def active_version(self) -> IndexVersion | None:
        """The version that answers queries, if there is one."""
        number = self.active.version if self.active else None
        return next((version for version in self.versions if version.number == number), None)

    def to_json(self) -> dict[str, Any]:
        """The collection as plain values for a JSON object."""
        return to_json(self)


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of one version found; ``findings`` is empty when it passed."""

    version: IndexVersion
    passed: bool
    findings: tuple[str, ...]


def to_json(value: Collection | IndexVersion | ActivePointer | Verification) -> dict[str, Any]:
    """A value of this module as plain values; times are ISO 8601 in UTC."""

    def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: item.isoformat() if _is_time(item) else item for name, item in items}

    return asdict(value, dict_factory=plain)


def to_collection(message: collections_pb2.Collection) -> Collection:
    """The collection out of the contract."""
    return Collection(
        tenant=message.tenant,
        name=message.name,
        active=to_pointer(message.active) if message.HasField("active") else None,
        versions=tuple(to_version(version) for version in message.versions),
    )


def to_version(message: collections_pb2.IndexVersion) -> IndexVersion:
    """The version out of the contract."""
    counted = message.HasField("counts")
    embedder, chunking = message.embedder, message.chunking
    return IndexVersion(
        number=message.number,
        state=collections_pb2.VersionState.Name(message.state)
        .removeprefix("VERSION_STATE_")
        .lower(),
        embedder=Embedder(
            model=embedder.model,
            digest=embedder.digest,
            dimension=embedder.dimension,
            pooling=embedder.pooling,
            max_tokens=embedder.max_tokens,
            variant=embedder.variant,
        ),
        splitter=chunking.splitter,
        chunk_tokens=chunking.chunk_tokens,
        overlap_tokens=chunking.overlap_tokens,
        documents=message.counts.documents if counted else None,
        chunks=message.counts.chunks if counted else None,
        created_at=_time(message.created_at) if message.HasField("created_at") else None,
        activated_at=_time(message.activated_at) if message.HasField("activated_at") else None,
        store_collection=message.store_collection,
    )


def to_pointer(message: collections_pb2.ActivePointer) -> ActivePointer:
    """The pointer out of the contract."""
    return ActivePointer(
        version=message.version,
        generation=message.generation,
        activated_at=_time(message.activated_at) if message.HasField("activated_at") else None,
        previous_version=message.previous_version,
    )


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def _is_time(value: object) -> bool:
    return hasattr(value, "isoformat")
