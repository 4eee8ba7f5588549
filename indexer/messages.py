"""Contracts to domain values and back. Translates only: it decides nothing.

A message never exceeds what a client takes: lists that could are cut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from common.coordination.codec import (
    build_message,
    golden_message,
    pointer_message,
    version_message,
    word_statistics_message,
)
from common.errors import InvalidArgument
from common.records import from_proto
from indexer.document import Document, Page, Rejected
from indexer.faults import FaultKind
from indexer.golden import Exam, GoldenQuery
from indexer.pipeline import Deleted, Indexed
from indexer.reconcile import Superseded, Unchanged
from sluice.collections.v1 import collections_pb2 as collections
from sluice.index.v1 import index_pb2 as index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from common.coordination import CollectionState, VersionRecord, WordStatisticsRecord
    from indexer.containers import ContainerDeleted
    from indexer.faults import Fault
    from indexer.golden import Miss
    from indexer.inventory import Listed
    from indexer.pipeline import Result
    from indexer.repair import Repaired
    from indexer.verification import Examined
    from sluice.document.v1 import document_pb2


M = TypeVar("M", collections.DocumentFault, collections.GoldenMiss)

# Two lists of this size fit into a message that any client takes (4 MiB by default).
_LISTED_BYTES = 3 * 2**19
_FAULTS = {
    FaultKind.INCOMPLETE: collections.FAULT_KIND_INCOMPLETE,
    FaultKind.SURPLUS: collections.FAULT_KIND_SURPLUS,
    FaultKind.DIVERGED: collections.FAULT_KIND_DIVERGED,
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


def indexed_document(listed: Listed) -> index.IndexedDocument:
    """A document by its head, or a fragment by its newest chunk."""
    chunk = listed.chunk
    return index.IndexedDocument(
        document_id=chunk.document_id,
        source_uri=chunk.source_uri,
        version=chunk.version,
        revision=chunk.revision,
        chunk_count=0 if listed.fragment else chunk.chunk_count,
        container_uri=chunk.container_uri,
        fragment=listed.fragment,
    )


def collection(
    state: CollectionState, counts: Mapping[int, tuple[int, int]] | None = None
) -> collections.Collection:
    """A collection; ``counts`` are (documents, chunks) by version where they were taken now."""
    counts = counts or {}
    statistics = {one.number: one for one in state.statistics}
    return collections.Collection(
        tenant=state.tenant,
        name=state.name,
        active=pointer_message(state.active) if state.active else None,
        versions=[
            index_version(record, counts.get(record.number), statistics.get(record.number))
            for record in state.versions
        ],
        build=build_message(state.build) if state.build else None,
    )


def index_version(
    record: VersionRecord,
    counts: tuple[int, int] | None = None,
    statistics: WordStatisticsRecord | None = None,
) -> collections.IndexVersion:
    """A version; ``counts`` are (documents, chunks) instead of those of its last verification."""
    message = version_message(record)
    if statistics is not None:
        message.word_statistics.CopyFrom(word_statistics_message(statistics))
    if counts is not None:
        message.counts.CopyFrom(collections.Counts(documents=counts[0], chunks=counts[1]))
    return message


def exam(request: collections.VerifyVersionRequest) -> Exam | None:
    """The golden queries of a request, None without; InvalidArgument names the field.

    The other fields must be within their bounds also where nothing is asked.
    """
    queries = tuple(GoldenQuery(one.query, tuple(one.expected)) for one in request.golden_queries)
    wanted = Exam(queries or (GoldenQuery("any", ("any",)),))
    if request.HasField("golden_threshold"):
        wanted = replace(wanted, threshold=request.golden_threshold)
    if request.HasField("golden_max_drop"):
        wanted = replace(wanted, max_drop=request.golden_max_drop)
    wanted = replace(wanted, depth=request.golden_depth or wanted.depth)
    return wanted if queries else None


def verified(record: VersionRecord, found: Examined) -> collections.VerifyVersionResponse:
    """What a verification found; of faults and misses as many as a message holds."""
    response = collections.VerifyVersionResponse(
        version=index_version(record, (found.documents, found.chunks)),
        passed=found.verdict.passed,
        findings=found.verdict.findings,
        golden=golden_message(found.verdict.golden) if found.verdict.golden else None,
    )
    response.faults.extend(_that_fit(map(_fault, found.faults)))
    response.misses.extend(_that_fit(map(_miss, found.misses)))
    return response


def repaired(outcome: Repaired) -> collections.RepairVersionResponse:
    """What a repair did; of the incomplete documents as many as a message holds."""
    return collections.RepairVersionResponse(
        deleted_chunks=outcome.deleted_chunks,
        incomplete=_that_fit(map(_fault, outcome.incomplete)),
        incomplete_documents=outcome.incomplete_documents,
    )


def _fault(fault: Fault) -> collections.DocumentFault:
    return collections.DocumentFault(
        document_id=fault.document_id,
        source_uri=fault.source_uri,
        container_uri=fault.container_uri,
        kind=_FAULTS[fault.kind],
        surplus_chunks=fault.surplus_chunks,
    )


def _miss(miss: Miss) -> collections.GoldenMiss:
    return collections.GoldenMiss(
        query=miss.query,
        missing=miss.missing,
        found=miss.found,
        active_finds=miss.active_finds,
    )


def _that_fit(all_: Iterable[M]) -> list[M]:
    """The first messages, until they have too many bytes."""
    fitting: list[M] = []
    size = 0
    for message in all_:
        size += message.ByteSize()
        if size > _LISTED_BYTES:
            break
        fitting.append(message)
    return fitting
