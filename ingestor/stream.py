"""The stream of documents to one indexer: batched, windowed, acknowledged one by one, resumed.

What is submitted is kept until it is acknowledged, so a lost connection loses nothing: the stream
opens again, with growing pauses, and sends again what was not acknowledged. That is safe, because
indexing the same state twice ends in the same index. What can not pass by waiting ends ``run`` with
its error. The window bounds documents and bytes that are kept; ``submit`` waits for room in it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from common.errors import Unavailable
from common.rpc import translate_rpc_error
from common.telemetry import Stage, span
from ingestor.backoff import delay_s, is_passing
from ingestor.faults import Fault, FaultStage
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingestor.settings import StreamSettings
    from sluice.document.v1 import document_pb2

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TOO_LARGE = "content_too_large"
_OVERWRITTEN = "Internal error from Core"
# Bytes that a batch adds to each document: a tag and a length.
_ENVELOPE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the indexer made of a document; ``fault`` is set if and only if it was rejected."""

    outcome: index_pb2.Outcome.ValueType
    chunk_count: int = 0
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    document: document_pb2.Document
    size: int
    context: T


class IndexStream(Generic[T]):
    """One stream; ``run`` it as a task beside those that submit.

    Args:
        stub: of the index service.
        opening: names tenant, collection, index version and job; sent at each connection.
        settings: window, delays and bounds.
        on_receipt: called once for each document with its context; must not raise.
    """

    def __init__(
        self,
        stub: index_pb2_grpc.IndexServiceAsyncStub,
        opening: index_pb2.StreamOpening,
        settings: StreamSettings,
        on_receipt: Callable[[T, Receipt], None],
    ) -> None:
        self._stub = stub
        self._opening = opening
        self._settings = settings
        self._on_receipt = on_receipt
        self._kept: dict[str, _Kept[T]] = {}
        self._kept_bytes = 0
        self._unsent: deque[str] = deque()
        self._unsent_bytes = 0
        self._limits = index_pb2.StreamOpened()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._receipts = 0
        self._progress_at = time.monotonic()
        self.connections = 0

    async def submit(self, document: document_pb2.Document, context: T) -> None:
        """Take a document into the window, waiting for room in it.

        A document larger than the whole window has it for itself.
        """
        size = document.ByteSize() + _ENVELOPE_BYTES
        while self._kept and (
            len(self._kept) >= self._settings.max_unacknowledged_documents
            or self._kept_bytes + size > self._settings.max_unacknowledged_bytes
            or document.document_id in self._kept
        ):
            self._room.clear()
            self._arrived.set()  # whoever lingers for more must not wait for this one
            await self._room.wait()
        if len(self._unsent) == len(self._kept):
            self._progress_at = time.monotonic()  # the indexer owed nothing until now
        self._kept[document.document_id] = _Kept(document, size, context)
        self._kept_bytes += size
        self._unsent.append(document.document_id)
        self._unsent_bytes += size
        self._arrived.set()

    def close(self) -> None:
        """No more documents come: ``run`` returns when all are acknowledged."""
        self._closing = True
        self._arrived.set()

    async def run(self) -> None:
        """Send and receive until closed and all is acknowledged.

        Raises:
            SluiceError: what the indexer answered, if waiting cannot help, or the last failure
                when too many attempts in a row brought no acknowledgement.
        """
        failures = 0
        while True:
            receipts = self._receipts
            try:
                await self._converse()
            except grpc.aio.AioRpcError as error:
                failure = translate_rpc_error(error)
                if _is_status_lost(error):
                    failure = Unavailable("the indexer broke the stream off")
            except Unavailable as error:
                failure = error
            else:
                return
            if not is_passing(failure):
                raise failure
            failures = 1 if self._receipts > receipts else failures + 1
            if failures >= self._settings.max_attempts:
                raise Unavailable(
                    f"the indexer answered none of {failures} attempts: {failure.message}; "
                    "see that it runs, then start the job again: it goes on where it stopped"
                )
            pause_s = delay_s(self._settings, failures, failure)
            logger.warning(
                "the stream broke and is opened again",
                extra={"stage": Stage.INGEST_SEND.value, "error_code": failure.code.name},
            )
            await asyncio.sleep(pause_s)

    async def _converse(self) -> None:
        """One connection, from its opening to its end; none as long as there is nothing to send."""
        while not self._kept:
            if self._closing:
                return
            self._arrived.clear()
            await self._arrived.wait()
        call: Any = self._stub.IndexDocuments()
        writer: asyncio.Task[None] | None = None
        try:
            await self._open(call)
            writer = asyncio.create_task(self._write(call))
            await self._read(call, writer)
        finally:
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
            call.cancel()

    async def _open(self, call: Any) -> None:  # noqa: ANN401 — the stubs' call types are partial
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                await call.write(index_pb2.IndexDocumentsRequest(opening=self._opening))
                response = await call.read()
        except asyncio.InvalidStateError:
            # The call ended before the opening could be written; reading tells why.
            response = await call.read()
        except TimeoutError:
            raise Unavailable("the indexer did not answer the opening of the stream") from None
        if response is grpc.aio.EOF or response.WhichOneof("message") != "opened":
            raise Unavailable("the indexer ended the stream at its opening")
        self._limits = response.opened
        self.connections += 1
        self._unsent = deque(self._kept)
        self._unsent_bytes = self._kept_bytes
        self._progress_at = time.monotonic()

    async def _write(self, call: Any) -> None:  # noqa: ANN401 — as above
        while (batch := await self._next_batch()) is not None:
            if not batch:
                continue
            with span(Stage.INGEST_SEND, documents=len(batch)):
                message = index_pb2.DocumentBatch(documents=batch)
                await call.write(index_pb2.IndexDocumentsRequest(batch=message))
        await call.done_writing()

    async def _read(self, call: Any, writer: asyncio.Task[None]) -> None:  # noqa: ANN401 — as above
        while True:
            response = await self._next_response(call, writer)
            if response is grpc.aio.EOF:
                if self._closing and not self._kept:
                    return
                raise Unavailable("the indexer ended the stream before all was acknowledged")
            for acknowledgement in response.acknowledgements.acknowledgements:
                self._acknowledge(acknowledgement)

    async def _next_response(self, call: Any, writer: asyncio.Task[None]) -> Any:  # noqa: ANN401 — as above
        """The next response; Unavailable if the indexer owes one and is silent for too long."""
        reading = asyncio.ensure_future(call.read())
        try:
            while True:
                limit_s = self._settings.acknowledgement_timeout_s
                waited: set[asyncio.Future[Any]] = {reading}
                if not writer.done():
                    waited.add(writer)
                silent_s = time.monotonic() - self._progress_at
                left_s = max(0.0, limit_s - silent_s) if self._owes else limit_s
                await asyncio.wait(
                    waited, timeout=left_s + 0.01, return_when=asyncio.FIRST_COMPLETED
                )
                if reading.done():
                    return reading.result()
                # Reading tells how a call ended; anything else is a fault of our own.
                error = writer.exception() if writer.done() else None
                if error and not isinstance(
                    error, grpc.aio.AioRpcError | asyncio.InvalidStateError
                ):
                    raise error
                if self._owes and time.monotonic() - self._progress_at > limit_s:
                    raise Unavailable(f"no acknowledgement came for {limit_s:g} s")
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    @property
    def _owes(self) -> bool:
        """Whether documents were sent and not acknowledged."""
        return len(self._kept) > len(self._unsent)

    async def _next_batch(self) -> list[document_pb2.Document] | None:
        """The next batch; empty if all that came was too large; None when there are no more."""
        while not self._unsent:
            if self._closing:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        try:
            async with asyncio.timeout(self._settings.linger_s):
                while not self._is_batch_full():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        batch: list[document_pb2.Document] = []
        bytes_left = self._batch_bytes
        while self._unsent and len(batch) < self._batch_documents:
            kept = self._kept[self._unsent[0]]
            if self._is_too_large(kept):
                self._forget_unsent(kept)
                message = f"over the indexer's {self._limits.max_document_bytes} bytes: split it"
                fault = Fault(FaultStage.INDEX, _TOO_LARGE, message)
                self._settle(kept, Receipt(index_pb2.OUTCOME_REJECTED, fault=fault))
                continue
            if batch and kept.size > bytes_left:
                break
            self._forget_unsent(kept)
            batch.append(kept.document)
            bytes_left -= kept.size
        return batch

    @property
    def _batch_documents(self) -> int:
        return min(self._settings.batch_documents, self._limits.max_batch_documents)

    @property
    def _batch_bytes(self) -> int:
        return min(self._settings.batch_bytes, self._limits.max_batch_bytes)

    def _is_batch_full(self) -> bool:
        return (
            self._closing
            or self._is_window_full()
            or len(self._unsent) >= self._batch_documents
            or self._unsent_bytes >= self._batch_bytes
        )

    def _is_window_full(self) -> bool:
        return (
            len(self._kept) >= self._settings.max_unacknowledged_documents
            or self._kept_bytes >= self._settings.max_unacknowledged_bytes
        )

    def _is_too_large(self, kept: _Kept[T]) -> bool:
        if kept.size > self._limits.max_batch_bytes:
            return True
        bound = self._limits.max_document_bytes
        return kept.size > bound and len(kept.document.content.encode()) > bound

    def _forget_unsent(self, kept: _Kept[T]) -> None:
        self._unsent.popleft()
        self._unsent_bytes -= kept.size

    def _acknowledge(self, acknowledgement: index_pb2.Acknowledgement) -> None:
        kept = self._kept.get(acknowledgement.document_id)
        if kept is None or kept.document.version != acknowledgement.version:
            # A repeat after a reconnection, at most.
            logger.warning("an acknowledgement of a document that was not awaited")
            return
        fault = None
        if acknowledgement.outcome == index_pb2.OUTCOME_REJECTED:
            rejection = acknowledgement.rejection
            name = index_pb2.RejectionCause.Name(rejection.cause)
            cause = name.removeprefix("REJECTION_CAUSE_").lower()
            fault = Fault(FaultStage.INDEX, cause, rejection.message)
        self._settle(kept, Receipt(acknowledgement.outcome, acknowledgement.chunk_count, fault))

    def _settle(self, kept: _Kept[T], receipt: Receipt) -> None:
        del self._kept[kept.document.document_id]
        self._kept_bytes -= kept.size
        self._receipts += 1
        self._progress_at = time.monotonic()
        self._room.set()
        if self._closing and not self._kept:
            self._arrived.set()
        self._on_receipt(kept.context, receipt)


def _is_status_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether why the indexer ended the stream is unknown; opening it again will tell.

    Where a write fails because the call has just ended, grpc.aio puts a status of its own over the
    server's (grpc/grpc issue 36066). A server that goes away may leave CANCELLED.
    """
    if error.code() is grpc.StatusCode.CANCELLED:
        return True
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _OVERWRITTEN
