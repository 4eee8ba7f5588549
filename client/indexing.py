"""The writing side of the client: documents in batches on one stream, acknowledgements back.

Batches respect the limits that the server states when it opens the stream. Documents are read from
the caller only as fast as the server takes them, and never more than two batches are held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import grpc

from common.errors import InvalidArgument, SluiceError
from common.records import MetadataValue, to_proto
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping

    _Call: TypeAlias = grpc.aio.StreamStreamCall[
        index_pb2.IndexDocumentsRequest, index_pb2.IndexDocumentsResponse
    ]

# Enough to embed well together, and acknowledged soon.
BATCH_DOCUMENTS = 128
# Tag and length around one document of a batch.
_FRAME_BYTES = 16


@dataclass(frozen=True, slots=True)
class Document:
    """One state of a document.

    Attributes:
        source_uri: canonical URI; names the document for ever.
        content: its text.
        version: orders the states of one document, at least 1; microseconds of the modification
            time by convention.
        title: for people.
        media_type: of the source.
        metadata: typed values to filter by.
    """

    source_uri: str
    content: str
    version: int
    title: str = ""
    media_type: str = "text/plain"
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What became of one document.

    Attributes:
        document_id: derived from the source URI.
        version: of the document that was sent.
        outcome: ``indexed``, ``unchanged``, ``superseded`` or ``rejected``.
        cause: of a rejection, lower case; empty otherwise.
        message: of a rejection; empty otherwise.
        chunk_count: chunks the document has in the index.
        consistency_token: hand it to a search as ``at_least`` to read this write.
    """

    document_id: str
    version: int
    outcome: str
    cause: str
    message: str
    chunk_count: int
    consistency_token: str


async def index_documents(
    call: _Call, opening: index_pb2.StreamOpening, documents: AsyncIterable[Document]
) -> AsyncIterator[Acknowledgement]:
    """Run a whole stream on a fresh call; the caller cancels the call and translates its errors.

    A batch is sent when the one before is acknowledged. So nothing is being written when the server
    ends the stream over a batch, and its status arrives: grpc.aio puts INTERNAL over a status that
    meets a write (grpc/grpc issue 36066).

    Raises:
        InvalidArgument: a document is larger than a batch may be.
        grpc.aio.AioRpcError: the stream failed.
    """
    await call.write(index_pb2.IndexDocumentsRequest(opening=opening))
    limits = (await _read(call)).opened
    async for batch in _batches(limits, documents):
        await call.write(index_pb2.IndexDocumentsRequest(batch=batch))
        owed = len(batch.documents)
        while owed > 0:
            acknowledged = (await _read(call)).acknowledgements.acknowledgements
            owed -= len(acknowledged)
            for acknowledgement in acknowledged:
                yield _acknowledgement(acknowledgement)
    await call.done_writing()
    # Until the end, so that an error that comes last is not lost.
    while await call.read() is not grpc.aio.EOF:
        continue


async def _read(call: _Call) -> index_pb2.IndexDocumentsResponse:
    """The next message, which the server owes."""
    message = await call.read()
    if isinstance(message, index_pb2.IndexDocumentsResponse):
        return message
    raise SluiceError("the server ended the stream before it answered all of it; send it again")


async def _batches(
    limits: index_pb2.StreamOpened, documents: AsyncIterable[Document]
) -> AsyncIterator[index_pb2.DocumentBatch]:
    most = max(1, min(BATCH_DOCUMENTS, limits.max_batch_documents))
    batch, size, ids = index_pb2.DocumentBatch(), 0, set[str]()
    async for document in documents:
        message = _message(document)
        cost = message.ByteSize() + _FRAME_BYTES
        if cost > limits.max_batch_bytes:
            raise InvalidArgument(
                f"{document.source_uri} has {cost} bytes, more than the {limits.max_batch_bytes} "
                "of a batch; split it or raise the server's limit",
                field="documents",
            )
        full = len(ids) == most or size + cost > limits.max_batch_bytes
        # Two states of one document may not share a batch.
        if batch.documents and (full or document.source_uri in ids):
            yield batch
            batch, size, ids = index_pb2.DocumentBatch(), 0, set()
        batch.documents.append(message)
        size += cost
        ids.add(document.source_uri)
    if batch.documents:
        yield batch


def _message(document: Document) -> document_pb2.Document:
    return document_pb2.Document(
        source_uri=document.source_uri,
        version=document.version,
        media_type=document.media_type,
        title=document.title,
        content=document.content,
        metadata={key: to_proto(value) for key, value in document.metadata.items()},
    )


def _acknowledgement(message: index_pb2.Acknowledgement) -> Acknowledgement:
    rejection = message.rejection if message.HasField("rejection") else None
    cause = index_pb2.RejectionCause.Name(rejection.cause) if rejection else ""
    return Acknowledgement(
        document_id=message.document_id,
        version=message.version,
        outcome=index_pb2.Outcome.Name(message.outcome).removeprefix("OUTCOME_").lower(),
        cause=cause.removeprefix("REJECTION_CAUSE_").lower(),
        message=rejection.message if rejection else "",
        chunk_count=message.chunk_count,
        consistency_token=message.consistency_token,
    )
