"""Records to and from what is stored: JSON of the messages of ``sluice.collections.v1``.

Fields that a newer Sluice wrote are ignored when read. What cannot be read at all raises
UnreadableRecord; nothing is ever guessed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from common.coordination.records import (
    ChunkingSpec,
    Instance,
    Pointer,
    VersionRecord,
    VersionState,
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
    )
    if record.documents is not None and record.chunks is not None:
        message.counts.CopyFrom(pb.Counts(documents=record.documents, chunks=record.chunks))
    if record.activated_at is not None:
        message.activated_at.CopyFrom(_timestamp(record.activated_at))
    return message


def encode_version(record: VersionRecord) -> bytes:
    """The stored form of a version."""
    return _write(version_message(record))


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
        activated_at=(
            message.activated_at.ToDatetime(UTC) if message.HasField("activated_at") else None
        ),
        mod_revision=entry.mod_revision,
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
