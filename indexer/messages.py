"""Contracts to domain values and back. Translates only: it checks nothing and decides nothing."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from common.coordination import VersionState
from common.errors import InvalidArgument
from common.records import from_proto
from indexer.document import Document, Page, Rejected
from indexer.pipeline import Deleted, Indexed
from indexer.reconcile import Superseded, Unchanged
from sluice.collections.v1 import collections_pb2 as collections
from sluice.index.v1 import index_pb2 as index

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from common.coordination import CollectionState, Pointer, VersionRecord
    from common.embedding import EmbedderSpec
    from indexer.pipeline import Result
    from indexer.reconcile import HeldChunk
    from sluice.document.v1 import document_pb2

_STATES = {
    VersionState.BUILDING: collections.VERSION_STATE_BUILDING,
    VersionState.READY: collections.VERSION_STATE_READY,
    VersionState.ACTIVE: collections.VERSION_STATE_ACTIVE,
    VersionState.RETIRED: collections.VERSION_STATE_RETIRED,
    VersionState.FAILED: collections.VERSION_STATE_FAILED,
}


def document_from(message: document_pb2.Document) -> Document:
    """A document as it came; a metadata value that cannot be read is told in ``unreadable``."""
    metadata, unreadable = {}, ""
    for key, value in message.metadata.items():
        try:
            metadata[key] = from_proto(value)
        except InvalidArgument as error:
            unreadable = error.message
    return Document(
        document_id=message.document_id,
        source_uri=message.source_uri,
        version=message.version,
        media_type=message.media_type,
        title=message.title,
        content=message.content,
        content_digest=message.content_digest,
        metadata=metadata,
        pages=tuple(Page(p.number, p.span.start, p.span.end) for p in message.pages),
        unreadable=unreadable,
    )


def acknowledgement(result: Result, token: str) -> index.Acknowledgement:
    """What became of one document; ``token`` is the consistency token of the stream."""
    message = index.Acknowledgement(document_id=result.document_id, version=result.version)
    match result.outcome:
        case Indexed(chunk_count):
            message.outcome = index.OUTCOME_INDEXED
            message.chunk_count = chunk_count
            message.consistency_token = token
        case Unchanged(chunk_count):
            message.outcome = index.OUTCOME_UNCHANGED
            message.chunk_count = chunk_count
            message.consistency_token = token
        case Superseded():
            message.outcome = index.OUTCOME_SUPERSEDED
            message.consistency_token = token
        case Rejected(cause, text):
            message.outcome = index.OUTCOME_REJECTED
            message.rejection.cause = index.RejectionCause.Value(f"REJECTION_CAUSE_{cause.name}")
            message.rejection.message = text
    return message


def deletion_result(document_id: str, outcome: Deleted | Superseded) -> index.DeletionResult:
    """What became of one deletion."""
    if isinstance(outcome, Superseded):
        code = index.DELETION_OUTCOME_SUPERSEDED
    elif outcome.found:
        code = index.DELETION_OUTCOME_DELETED
    else:
        code = index.DELETION_OUTCOME_ABSENT
    return index.DeletionResult(document_id=document_id, outcome=code)


def indexed_document(document_id: str, head: HeldChunk) -> index.IndexedDocument:
    """A document by its head."""
    return index.IndexedDocument(
        document_id=document_id,
        source_uri=head.source_uri,
        version=head.version,
        revision=head.revision,
        chunk_count=head.chunk_count,
    )


def collection(
    state: CollectionState, counts: Mapping[int, tuple[int, int]] | None = None
) -> collections.Collection:
    """A collection; ``counts`` are (documents, chunks) by version where they were taken now."""
    counts = counts or {}
    return collections.Collection(
        tenant=state.tenant,
        name=state.name,
        active=pointer(state.active) if state.active else None,
        versions=[index_version(record, counts.get(record.number)) for record in state.versions],
    )


def index_version(
    record: VersionRecord, counts: tuple[int, int] | None = None
) -> collections.IndexVersion:
    """A version; ``counts`` are (documents, chunks) instead of those of its last verification."""
    if counts is None and record.documents is not None and record.chunks is not None:
        counts = record.documents, record.chunks
    return collections.IndexVersion(
        number=record.number,
        state=_STATES[record.state],
        embedder=_embedder(record.embedder),
        chunking=collections.Chunking(
            splitter=record.chunking.splitter,
            chunk_tokens=record.chunking.chunk_tokens,
            overlap_tokens=record.chunking.overlap_tokens,
        ),
        counts=collections.Counts(documents=counts[0], chunks=counts[1]) if counts else None,
        created_at=_timestamp(record.created_at),
        activated_at=_timestamp(record.activated_at) if record.activated_at else None,
        store_collection=record.store_collection,
    )


def pointer(active: Pointer) -> collections.ActivePointer:
    """The pointer to the active version."""
    return collections.ActivePointer(
        version=active.version,
        generation=active.generation,
        embedder=_embedder(active.embedder),
        activated_at=_timestamp(active.activated_at),
        previous_version=active.previous_version,
    )


def _embedder(spec: EmbedderSpec) -> collections.Embedder:
    return collections.Embedder(
        model=spec.model,
        digest=spec.digest,
        dimension=spec.dimension,
        pooling=spec.pooling,
        max_tokens=spec.max_tokens,
        variant=spec.variant,
    )


def _timestamp(moment: datetime) -> Timestamp:
    message = collections.IndexVersion().created_at
    message.FromDatetime(moment.astimezone(UTC))
    return message
