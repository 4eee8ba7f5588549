"""The way of documents to one indexer: batched, within its window, acknowledged one by one.

A lane holds what is to go to its indexer and what is under way to it, and has one connection at a
time. When the connection ends, nothing is under way: what was not acknowledged is the owner's to
place again. A lane knows nothing of other lanes and never tries again by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import grpc

from common.errors import Unavailable
from common.telemetry import Stage, span
from ingestor.sending.receipt import Receipt, receipt_of, too_large
from ingestor.sending.window import Flight, Window
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from ingestor.settings import StreamSettings
    from sluice.document.v1 import document_pb2
    from sluice.index.v1 import index_pb2_grpc

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Kept(Generic[T]):
    """A document that is not acknowledged.

    Attributes:
        document: as it is sent.
        size: its bytes in a batch.
        context: the submitter's.
        flight: the batch it is under way in, if any.
        broken: connections that ended while it was under way.
    """

    document: document_pb2.Document
    size: int
    context: T
    flight: Flight | None = None
    broken: int = 0


class Owner(Protocol[T]):
    """Whom a lane tells of what happens to it."""

    @property
    def is_pressed(self) -> bool:
        """Whether no more documents can come until some are acknowledged."""

    def on_opened(self, lane: Lane[T]) -> None:
        """The indexer took the opening of a stream."""

    def on_settled(self, kept: Kept[T], receipt: Receipt) -> None:
        """The document has its receipt; the lane holds it no longer."""


class Lane(Generic[T]):
    """The lane to the indexer at one address.

    Attributes:
        is_up: false from the failure of a connection until the next one was opened.
        is_leaving: no more documents shall come; it ends when none is under way.
        was_opened: whether the indexer took the opening of the last connection.
        failures: connections that failed since the last receipt; counted by the owner.
    """

    def __init__(
        self,
        address: str,
        opening: index_pb2.StreamOpening,
        settings: StreamSettings,
        owner: Owner[T],
    ) -> None:
        self.address = address
        self.is_up = True
        self.is_leaving = False
        self.was_opened = False
        self.failures = 0
        self._opening = opening
        self._settings = settings
        self._owner = owner
        self._unsent: deque[Kept[T]] = deque()
        self._unsent_bytes = 0
        self._sent: dict[str, Kept[T]] = {}
        self._window = self._new_window()
        self._limits = index_pb2.StreamOpened()
        self._stirred = asyncio.Event()
        self._is_finished = False
        self._is_open = False
        self._progress_at = time.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether a stream stands."""
        return self._is_open

    @property
    def has_unsent(self) -> bool:
        """Whether documents wait to be sent."""
        return bool(self._unsent)

    @property
    def under_way(self) -> int:
        """Documents sent and not acknowledged."""
        return len(self._sent)

    def give(self, kept: Kept[T]) -> None:
        """Let the lane send a document."""
        self._unsent.append(kept)
        self._unsent_bytes += kept.size
        self.stir()

    def take_unsent_back(self) -> None:
        """The owner places anew what was not sent."""
        self._unsent.clear()
        self._unsent_bytes = 0
        self.stir()

    def finish(self) -> None:
        """All documents of the job are acknowledged: end the stream."""
        self._is_finished = True
        self.stir()

    def stir(self) -> None:
        """Have the lane look again at what it waits for."""
        self._stirred.set()

    async def stirred(self) -> None:
        """Wait until something may have changed since the last such wait began."""
        self._stirred.clear()
        await self._stirred.wait()

    async def converse(self, stub: index_pb2_grpc.IndexServiceAsyncStub) -> None:
        """One connection, until the lane is finished or has left; then nothing is under way.

        Raises:
            AioRpcError: the status with which the indexer ended it.
            Unavailable: it was silent for too long, or ended the stream too soon.
        """
        self.was_opened = False
        call: Any = stub.IndexDocuments()
        writer: asyncio.Task[None] | None = None
        try:
            await self._open(call)
            writer = asyncio.create_task(self._write(call), name=f"send to {self.address}")
            await self._read(call, writer)
        finally:
            self._is_open = False
            call.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
            for kept in self._sent.values():
                kept.flight = None
                kept.broken += 1
            self._sent.clear()

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
        self._window = self._new_window()
        self._is_open = self.was_opened = self.is_up = True
        self._owner.on_opened(self)

    async def _write(self, call: Any) -> None:  # noqa: ANN401 — as above
        while (batch := await self._next_batch()) is not None:
            with span(Stage.INGEST_SEND, documents=len(batch)):
                message = index_pb2.DocumentBatch(documents=batch)
                await call.write(index_pb2.IndexDocumentsRequest(batch=message))
        await call.done_writing()

    async def _read(self, call: Any, writer: asyncio.Task[None]) -> None:  # noqa: ANN401 — as above
        while True:
            response = await self._next_response(call, writer)
            if response is grpc.aio.EOF:
                if self._is_over:
                    return
                raise Unavailable("the indexer ended the stream before all was acknowledged")
            for acknowledgement in response.acknowledgements.acknowledgements:
                self._acknowledge(acknowledgement)
            self.stir()

    async def _next_response(self, call: Any, writer: asyncio.Task[None]) -> Any:  # noqa: ANN401 — as above
        """The next response; Unavailable if the indexer owes one and is silent for too long."""
        reading = asyncio.ensure_future(call.read())
        try:
            while True:
                if writer.done() and self._is_over:
                    # All is said; the indexer's own end of the stream is a matter of form.
                    await asyncio.wait([reading], timeout=self._settings.open_timeout_s)
                    return reading.result() if reading.done() else grpc.aio.EOF
                limit_s = self._settings.acknowledgement_timeout_s
                silent_s = time.monotonic() - self._progress_at
                left_s = max(0.0, limit_s - silent_s) if self._sent else limit_s
                waited = {reading} if writer.done() else {reading, writer}
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
                if self._sent and time.monotonic() - self._progress_at > limit_s:
                    raise Unavailable(f"no acknowledgement came for {limit_s:g} s")
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    @property
    def _is_over(self) -> bool:
        left = self.is_leaving and not self._unsent
        return (self._is_finished or left) and not self._sent

    async def _next_batch(self) -> list[document_pb2.Document] | None:
        """The next batch, once it is worth sending and the window takes it; None at the end."""
        linger_until = 0.0
        while not self._is_over:
            wait_s = None
            if self._unsent:
                now = time.monotonic()
                linger_until = linger_until or now + self._settings.linger_s
                if not self._is_batch_full and now < linger_until:
                    wait_s = linger_until - now
                elif self._window.takes(self._next_size):
                    if batch := self._cut():
                        return batch
                    continue
            try:
                async with asyncio.timeout(wait_s):
                    await self.stirred()
            except TimeoutError:
                pass
        return None

    def _cut(self) -> list[document_pb2.Document]:
        """Take the next batch from what is unsent; empty if all of it was too large to be sent."""
        batch: list[Kept[T]] = []
        size = 0
        while self._unsent and len(batch) < self._batch_documents:
            kept = self._unsent[0]
            if batch and size + kept.size > self._batch_bytes:
                break
            self._unsent.popleft()
            self._unsent_bytes -= kept.size
            if self._is_too_large(kept):
                self._settle(kept, too_large(self._limits.max_document_bytes))
                continue
            batch.append(kept)
            size += kept.size
        if not batch:
            return []
        if not self._sent:
            self._progress_at = time.monotonic()  # the indexer owed nothing until now
        flight = self._window.send(len(batch), size)
        for kept in batch:
            assert kept.flight is None  # noqa: S101 — an owner gives no document to two lanes
            kept.flight = flight
            self._sent[kept.document.document_id] = kept
        return [kept.document for kept in batch]

    @property
    def _batch_documents(self) -> int:
        return min(self._settings.batch_documents, self._limits.max_batch_documents)

    @property
    def _batch_bytes(self) -> int:
        return min(
            self._settings.batch_bytes, self._limits.max_batch_bytes, self._window.batch_bytes
        )

    @property
    def _next_size(self) -> int:
        """About the bytes of the next batch."""
        return max(self._unsent[0].size, min(self._unsent_bytes, self._batch_bytes))

    @property
    def _is_batch_full(self) -> bool:
        return (
            self._owner.is_pressed
            or len(self._unsent) >= self._batch_documents
            or self._unsent_bytes >= self._batch_bytes
        )

    def _is_too_large(self, kept: Kept[T]) -> bool:
        if kept.size > self._limits.max_batch_bytes:
            return True
        bound = self._limits.max_document_bytes
        return kept.size > bound and len(kept.document.content.encode()) > bound

    def _acknowledge(self, acknowledgement: index_pb2.Acknowledgement) -> None:
        kept = self._sent.get(acknowledgement.document_id)
        if kept is None or kept.document.version != acknowledgement.version:
            logger.warning("an acknowledgement of a document that was not awaited")
            return
        del self._sent[acknowledgement.document_id]
        if kept.flight is not None:
            self._window.acknowledge(kept.flight, kept.size)
        self._settle(kept, receipt_of(acknowledgement))

    def _settle(self, kept: Kept[T], receipt: Receipt) -> None:
        self.failures = 0
        self._progress_at = time.monotonic()
        self._owner.on_settled(kept, receipt)

    def _new_window(self) -> Window:
        return Window(self._settings.max_unacknowledged_bytes, self._settings.target_s)
