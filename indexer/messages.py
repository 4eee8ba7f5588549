"""Contracts to domain values and back. Translates only: it checks nothing and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.coordination.codec import pointer_message, version_message
from common.errors import InvalidArgument
from common.records import from_proto
from indexer.document import Document, Page, Rejected
from indexer.pipeline import Deleted, Indexed
from indexer.reconcile import Superseded, Unchanged
from sluice.collections.v1 import collections_pb2 as collections
from sluice.index.v1 import index_pb2 as index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.coordination import CollectionState, VersionRecord
    from indexer.containers import ContainerDeleted
    from indexer.pipeline import Result
    from indexer.reconcile import HeldChunk
    from sluice.document.v1 import document_pb2


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
        container_uri=message.container_uri,
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


def container_deletion_result(
    container_uri: str, emptied: ContainerDeleted
) -> index.ContainerDeletionResult:
    """What became of the deletion of a container."""
    return index.ContainerDeletionResult(
        container_uri=container_uri, deleted=emptied.documents, complete=emptied.complete
    )


def indexed_document(head: HeldChunk) -> index.IndexedDocument:
    """A document by its head."""
    return index.IndexedDocument(
        document_id=head.document_id,
        source_uri=head.source_uri,
        version=head.version,
        revision=head.revision,
        chunk_count=head.chunk_count,
        container_uri=head.container_uri,
    )


def collection(
    state: CollectionState, counts: Mapping[int, tuple[int, int]] | None = None
) -> collections.Collection:
    """A collection; ``counts`` are (documents, chunks) by version where they were taken now."""
    counts = counts or {}
    return collections.Collection(
        tenant=state.tenant,
        name=state.name,
        active=pointer_message(state.active) if state.active else None,
        versions=[index_version(record, counts.get(record.number)) for record in state.versions],
    )


def index_version(
    record: VersionRecord, counts: tuple[int, int] | None = None
) -> collections.IndexVersion:
    """A version; ``counts`` are (documents, chunks) instead of those of its last verification."""
    message = version_message(record)
    if counts is not None:
        message.counts.CopyFrom(collections.Counts(documents=counts[0], chunks=counts[1]))
    return message
