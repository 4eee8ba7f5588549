"""A collection as it lies in the coordinator: what was read, and the conditions that rest on it.

Reading and the parts of transactions only: nothing here writes, and nothing decides what may become
of a version.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import codec, keys
from common.coordination.coordinator import Condition, Delete, Put
from common.coordination.records import CollectionState, VersionRecord, VersionState
from common.errors import Contended, FailedPrecondition, NotFound
from common.identity import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from common.coordination.coordinator import Coordinator, Entry, Operation
    from common.coordination.records import (
        Build,
        ChunkingSpec,
        Pointer,
        WordStatisticsRecord,
    )
    from common.embedding import EmbedderSpec

_RETRY_AFTER_MS = 50


@dataclass(slots=True)
class StoredCollection:
    """The pointer with its revisions (0 where it is absent), and the versions by number."""

    tenant: str
    name: str
    pointer: Pointer | None = None
    pointer_created: int = 0
    pointer_revision: int = 0
    versions: dict[int, VersionRecord] = field(default_factory=dict)
    statistics: dict[int, WordStatisticsRecord] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """Whether it has a pointer or a version."""
        return self.pointer is not None or bool(self.versions)

    @property
    def active_key(self) -> str:
        """Key of the pointer."""
        return keys.active_key(self.tenant, self.name)

    def pointer_unmoved(self) -> Condition:
        """Holds while the pointer is as it was read."""
        return Condition(self.active_key, mod_revision=self.pointer_revision)

    def still_there(self) -> Condition:
        """Holds while what shows that it exists was not deleted, however it was changed."""
        if self.pointer is not None or not self.versions:
            return Condition(self.active_key, create_revision=self.pointer_created)
        first = self.versions[min(self.versions)]
        return Condition(_key(first), create_revision=first.fence)

    def version(self, number: int) -> VersionRecord:
        """One of the versions; NotFound names those there are."""
        if number in self.versions:
            return self.versions[number]
        raise NotFound(
            f"collection {self.name} of tenant {self.tenant} has no version {number}; it has "
            f"{', '.join(map(str, sorted(self.versions))) or 'none'}"
        )

    def state(self, build: Build | None) -> CollectionState:
        """The value that is handed out."""
        versions = tuple(self.versions[number] for number in sorted(self.versions))
        statistics = tuple(
            self.statistics[number] for number in sorted(self.statistics.keys() & self.versions)
        )
        return CollectionState(self.tenant, self.name, self.pointer, versions, build, statistics)


async def read(coordinator: Coordinator, tenant: str, name: str) -> StoredCollection:
    """A collection at one revision; an empty one where there is none."""
    snapshot = await coordinator.list(keys.collection_prefix(tenant, name))
    tenant = tenant or DEFAULT_TENANT
    absent = StoredCollection(tenant, name)
    return parse(snapshot.entries).get((tenant, name), absent)


async def read_existing(coordinator: Coordinator, tenant: str, name: str) -> StoredCollection:
    """A collection at one revision; NotFound if it has neither a version nor a pointer."""
    found = await read(coordinator, tenant, name)
    if not found.exists:
        raise NotFound(
            f"tenant {found.tenant} has no collection {name}; `sluice collections list` shows "
            "those there are, `sluice ingest` makes one"
        )
    return found


async def read_build(coordinator: Coordinator, tenant: str, name: str) -> Build | None:
    """The build that holds the build lock of a collection now."""
    entry = await coordinator.get(keys.build_lock(tenant, name))
    return None if entry is None else codec.decode_build(entry, tenant or DEFAULT_TENANT, name)


async def holds_lock(coordinator: Coordinator, record: VersionRecord, fence: int) -> bool:
    """Whether the build of this version, by its fence, holds the build lock now.

    Once it does not it never will again: create revisions only grow.
    """
    entry = await coordinator.get(keys.build_lock(record.tenant, record.collection))
    return fence == record.fence and entry is not None and entry.create_revision == fence


def parse(entries: Iterable[Entry]) -> Mapping[tuple[str, str], StoredCollection]:
    """Collections by tenant and name."""
    found: dict[tuple[str, str], StoredCollection] = {}
    statistics: list[WordStatisticsRecord] = []
    for entry in entries:
        place = keys.parse_statistics_key(entry.key)
        if place is not None:
            with suppress(codec.UnreadableRecord):  # they are counted anew, as if there were none
                statistics.append(codec.decode_word_statistics(entry.key, entry.value, *place))
            continue
        key = keys.parse_collection_key(entry.key)
        if key is None:
            continue
        collection = found.setdefault(
            (key.tenant, key.collection), StoredCollection(key.tenant, key.collection)
        )
        if key.version is None:
            collection.pointer_created = entry.create_revision
            collection.pointer_revision = entry.mod_revision
            collection.pointer = codec.decode_pointer(
                entry.key, entry.value, key.tenant, key.collection
            )
        else:
            record = codec.decode_version(entry, key.tenant, key.collection)
            collection.versions[key.version] = record
    for one in statistics:
        if (of := found.get((one.tenant, one.collection))) is not None:
            of.statistics[one.number] = one
    return found


def parse_builds(entries: Iterable[Entry]) -> Mapping[tuple[str, str], Build]:
    """Builds under way by tenant and name."""
    places = ((keys.parse_build_lock(entry.key), entry) for entry in entries)
    return {place: codec.decode_build(entry, *place) for place, entry in places if place}


def begun(
    tenant: str,
    name: str,
    number: int,
    embedder: EmbedderSpec,
    chunking: ChunkingSpec,
    builder: str,
) -> VersionRecord:
    """The record of a version that begins now."""
    return VersionRecord(
        tenant=tenant or DEFAULT_TENANT,
        collection=name,
        number=number,
        state=VersionState.BUILDING,
        embedder=embedder,
        chunking=chunking,
        documents=None,
        chunks=None,
        created_at=now(),
        activated_at=None,
        builder=builder,
    )


def failed(record: VersionRecord, failure: str) -> VersionRecord:
    """The record once it has failed, now."""
    return replace(
        record,
        state=VersionState.FAILED,
        failure=failure,
        retired_at=record.retired_at or now(),
    )


def put(record: VersionRecord) -> Put:
    """Writes the record."""
    return Put(_key(record), codec.encode_version(record))


def delete(record: VersionRecord) -> list[Operation]:
    """Delete the record and what is known of the version's words."""
    statistics = keys.statistics_key(record.tenant, record.collection, record.number)
    return [Delete(_key(record)), Delete(statistics)]


def unchanged(record: VersionRecord) -> Condition:
    """Holds while the record is as it was read."""
    return Condition(_key(record), mod_revision=record.mod_revision)


def lock_held(tenant: str, name: str, fence: int) -> Condition:
    """Holds while the build with this fence holds the build lock."""
    return Condition(keys.build_lock(tenant, name), create_revision=fence)


def lost(name: str, number: int) -> FailedPrecondition:
    """What a builder is told that no longer holds the build lock."""
    return FailedPrecondition(
        f"the build of version {number} of collection {name} is over: its lock was not renewed in "
        "time, was released or was taken away, and nothing can be done with its fence any more; "
        "begin another version"
    )


def contended(what: str) -> Contended:
    """What one is told who lost a race."""
    return Contended(f"{what} meanwhile; read it again and repeat", retry_after_ms=_RETRY_AFTER_MS)


def now() -> datetime:
    """This moment in UTC."""
    return datetime.now(UTC)


def _key(record: VersionRecord) -> str:
    return keys.version_key(record.tenant, record.collection, record.number)
