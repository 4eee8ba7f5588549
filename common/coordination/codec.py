"""Records to and from what is stored: JSON of the messages of ``sluice.collections.v1``.

Fields that a newer Sluice wrote are ignored when read. What cannot be read at all raises
UnreadableRecord; nothing is ever guessed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeVar

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from common.coordination.records import (
    Build,
    ChunkingSpec,
    Forced,
    GoldenScore,
    Instance,
    Pointer,
    Verdict,
    VersionRecord,
    VersionState,
    WordStatisticsRecord,
)
from common.embedding import EmbedderSpec
from common.errors import SluiceError
from sluice.collections.v1 import collections_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from common.coordination.coordinator import Entry

M = TypeVar("M", bound="Message")

_STATES = {
    VersionState.BUILDING: pb.VERSION_STATE_BUILDING,
    VersionState.READY: pb.VERSION_STATE_READY,
    VersionState.ACTIVE: pb.VERSION_STATE_ACTIVE,
    VersionState.RETIRED: pb.VERSION_STATE_RETIRED,
    VersionState.FAILED: pb.VERSION_STATE_FAILED,
}
_STATE_OF = {stored: state for state, stored in _STATES.items()}


class UnreadableRecord(SluiceError):
    """A stored value is not what its key promises."""


def version_message(record: VersionRecord) -> pb.IndexVersion:
    """The contract's form of a version."""
    message = pb.IndexVersion(
        number=record.number,
        state=_STATES[record.state],
        embedder=_embedder_message(record.embedder),
        chunking=pb.Chunking(
            splitter=record.chunking.splitter,
            chunk_tokens=record.chunking.chunk_tokens,
            overlap_tokens=record.chunking.overlap_tokens,
        ),
        created_at=_timestamp(record.created_at),
        store_collection=record.store_collection,
        activated_at=_timestamp_if(record.activated_at),
        builder=record.builder,
        retired_at=_timestamp_if(record.retired_at),
        failure=record.failure,
        fence=record.fence,
    )
    if record.documents is not None and record.chunks is not None:
        message.counts.CopyFrom(pb.Counts(documents=record.documents, chunks=record.chunks))
    if record.verdict is not None:
        message.verdict.CopyFrom(verdict_message(record.verdict))
    if record.forced is not None:
        message.forced.CopyFrom(pb.Forced(by=record.forced.by, at=_timestamp(record.forced.at)))
    return message


def encode_version(record: VersionRecord) -> bytes:
    """The stored form of a version: without its fence, which its key has by itself."""
    return _write(version_message(replace(record, fence=0)))


def decode_version(entry: Entry, tenant: str, collection: str) -> VersionRecord:
    """The version that an entry holds."""
    message = _read(entry.key, entry.value, pb.IndexVersion())
    if message.state not in _STATE_OF:
        raise UnreadableRecord(f"{entry.key} holds an unknown state; update this service")
    counted = message.HasField("counts")
    return VersionRecord(
        tenant=tenant,
        collection=collection,
        number=message.number,
        state=_STATE_OF[message.state],
        embedder=_embedder(message.embedder),
        chunking=ChunkingSpec(
            message.chunking.splitter,
            message.chunking.chunk_tokens,
            message.chunking.overlap_tokens,
        ),
        documents=message.counts.documents if counted else None,
        chunks=message.counts.chunks if counted else None,
        created_at=message.created_at.ToDatetime(UTC),
        activated_at=_moment(message, "activated_at"),
        builder=message.builder,
        retired_at=_moment(message, "retired_at"),
        verdict=_verdict(message.verdict) if message.HasField("verdict") else None,
        forced=(
            Forced(message.forced.by, message.forced.at.ToDatetime(UTC))
            if message.HasField("forced")
            else None
        ),
        failure=message.failure,
        mod_revision=entry.mod_revision,
        fence=entry.create_revision,
    )


def verdict_message(verdict: Verdict) -> pb.Verdict:
    """The contract's form of a verdict."""
    message = pb.Verdict(
        passed=verdict.passed,
        verified_at=_timestamp(verdict.verified_at),
        findings=verdict.findings,
    )
    if verdict.golden is not None:
        message.golden.CopyFrom(golden_message(verdict.golden))
    return message


def golden_message(score: GoldenScore) -> pb.GoldenScore:
    """The contract's form of a score of golden queries."""
    return pb.GoldenScore(
        queries=score.queries,
        depth=score.depth,
        threshold=score.threshold,
        candidate=score.candidate,
        active=score.active,
        active_version=score.active_version,
    )


def build_message(build: Build) -> pb.Build:
    """The contract's form of a build."""
    return pb.Build(
        version=build.version,
        builder=build.builder,
        since=_timestamp(build.since),
        documents=build.documents,
        chunks=build.chunks,
        documents_per_s=build.documents_per_s,
        reported_at=_timestamp(build.reported_at),
        ttl_s=build.ttl_s,
    )


def encode_build(build: Build) -> bytes:
    """The stored form of a build: the value of the build lock."""
    return _write(build_message(build))


def decode_build(entry: Entry, tenant: str, collection: str) -> Build:
    """The build that holds a build lock."""
    message = _read(entry.key, entry.value, pb.Build())
    return Build(
        tenant=tenant,
        collection=collection,
        version=message.version,
        builder=message.builder,
        since=message.since.ToDatetime(UTC),
        documents=message.documents,
        chunks=message.chunks,
        documents_per_s=message.documents_per_s,
        reported_at=message.reported_at.ToDatetime(UTC),
        ttl_s=message.ttl_s,
        fence=entry.create_revision,
        lease=entry.lease,
    )


def pointer_message(pointer: Pointer) -> pb.ActivePointer:
    """The contract's form of a pointer."""
    return pb.ActivePointer(
        version=pointer.version,
        generation=pointer.generation,
        embedder=_embedder_message(pointer.embedder),
        activated_at=_timestamp(pointer.activated_at),
        previous_version=pointer.previous_version,
    )


def encode_pointer(pointer: Pointer) -> bytes:
    """The stored form of a pointer."""
    return _write(pointer_message(pointer))


def decode_pointer(key: str, value: bytes, tenant: str, collection: str) -> Pointer:
    """The pointer that a value holds."""
    message = _read(key, value, pb.ActivePointer())
    return Pointer(
        tenant=tenant,
        collection=collection,
        version=message.version,
        generation=message.generation,
        embedder=_embedder(message.embedder),
        activated_at=message.activated_at.ToDatetime(UTC),
        previous_version=message.previous_version,
    )


def word_statistics_message(record: WordStatisticsRecord) -> pb.WordStatistics:
    """The contract's form of word statistics."""
    return pb.WordStatistics(
        table=record.table,
        chunks=record.chunks,
        terms=record.terms,
        text_words=record.text_words,
        title_words=record.title_words,
        parts=record.parts,
        digest=record.digest,
        counted_at=_timestamp(record.counted_at),
        analysis=record.analysis,
    )


def encode_word_statistics(record: WordStatisticsRecord) -> bytes:
    """The stored form of word statistics."""
    return _write(word_statistics_message(record))


def decode_word_statistics(
    key: str, value: bytes, tenant: str, collection: str, number: int
) -> WordStatisticsRecord:
    """The word statistics that a value holds."""
    message = _read(key, value, pb.WordStatistics())
    return WordStatisticsRecord(
        tenant=tenant,
        collection=collection,
        number=number,
        table=message.table,
        chunks=message.chunks,
        terms=message.terms,
        text_words=message.text_words,
        title_words=message.title_words,
        parts=message.parts,
        digest=message.digest,
        counted_at=message.counted_at.ToDatetime(UTC),
        analysis=message.analysis,
    )


def encode_instance(instance: Instance) -> bytes:
    """The stored form of an instance."""
    return _write(
        pb.Instance(
            id=instance.id,
            service=instance.service,
            address=instance.address,
            started_at=_timestamp(instance.started_at),
        )
    )


def decode_instance(entry: Entry) -> Instance:
    """The instance that an entry holds."""
    message = _read(entry.key, entry.value, pb.Instance())
    started_at = message.started_at.ToDatetime(UTC)
    return Instance(message.id, message.service, message.address, started_at)


def encode_sequence(number: int) -> bytes:
    """The stored form of the last version number handed out."""
    return b"%d" % number


def decode_sequence(entry: Entry) -> int:
    """The last version number handed out."""
    if not entry.value.isdigit():
        raise UnreadableRecord(f"{entry.key} does not hold a number; restore it from a backup")
    return int(entry.value)


def _embedder_message(spec: EmbedderSpec) -> pb.Embedder:
    return pb.Embedder(
        model=spec.model,
        digest=spec.digest,
        dimension=spec.dimension,
        pooling=spec.pooling,
        max_tokens=spec.max_tokens,
        variant=spec.variant,
    )


def _embedder(message: pb.Embedder) -> EmbedderSpec:
    return EmbedderSpec(
        model=message.model,
        digest=message.digest,
        dimension=message.dimension,
        pooling=message.pooling,
        max_tokens=message.max_tokens,
        variant=message.variant,
    )


def _verdict(message: pb.Verdict) -> Verdict:
    return Verdict(
        passed=message.passed,
        verified_at=message.verified_at.ToDatetime(UTC),
        findings=tuple(message.findings),
        golden=_golden(message.golden) if message.HasField("golden") else None,
    )


def _golden(message: pb.GoldenScore) -> GoldenScore:
    return GoldenScore(
        queries=message.queries,
        depth=message.depth,
        threshold=message.threshold,
        candidate=message.candidate,
        active=message.active if message.HasField("active") else None,
        active_version=message.active_version,
    )


def _moment(
    message: pb.IndexVersion, field: Literal["activated_at", "retired_at"]
) -> datetime | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(UTC)


def _timestamp_if(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else _timestamp(moment)


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _write(message: Message) -> bytes:
    text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
    return text.encode()


def _read(key: str, value: bytes, message: M) -> M:
    name = type(message).__name__
    unreadable = UnreadableRecord(f"{key} does not hold a {name}; restore it from a backup")
    try:
        fields = json.loads(value)
        if not isinstance(fields, dict) or not fields:
            raise unreadable
        return json_format.ParseDict(fields, message, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError) as error:
        raise unreadable from error
