"""The stream of documents to all indexers; what is submitted is kept until it is acknowledged.

Each document goes to the indexer that rendezvous hashing of its id names, of those that answer: two
indexers rarely see one document, so that its states meet in one indexer's locks, also those of a
job that was killed and one that follows it. Each indexer has a lane with a window of its own, so
that a slow one holds the others up only by what the stream may keep in all. Where a connection
fails, its unacknowledged documents go to others at once, and it is tried again with growing pauses;
once it is back it takes its share again. Sending a document again is safe: indexing the same state
twice ends in the same index. A document is never under way on two lanes, and never in two states.
What cannot pass by waiting ends ``run`` with its error.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from common.discovery import delay_s, is_passing
from common.errors import Unavailable
from common.rpc import translate_rpc_error
from common.telemetry import Stage
from ingestor.sending.lane import Kept, Lane
from ingestor.sending.receipt import Receipt
from ingestor.sending.rendezvous import owner
from sluice.index.v1 import index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from common.errors import SluiceError
    from ingestor.sending.indexers import Indexers
    from ingestor.settings import StreamSettings
    from sluice.document.v1 import document_pb2
    from sluice.index.v1 import index_pb2

__all__ = ["IndexStream", "Receipt"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_OVERWRITTEN = "Internal error from Core"
# Bytes that a batch adds to each document: a tag and a length.
_ENVELOPE_BYTES = 8
# Broken streams from which on the document under way may be why.
_SUSPICIOUS = 3


class IndexStream(Generic[T]):
    """One stream; ``run`` it as a task beside those that submit.

    Args:
        indexers: those that there are, now and later.
        opening: names tenant, collection, index version and job; sent at each connection.
        settings: windows, delays and bounds.
        on_receipt: called once for each document with its context; must not raise.

    ``was_refused`` tells after a failure that an indexer did not take the opening.
    """

    def __init__(
        self,
        indexers: Indexers,
        opening: index_pb2.StreamOpening,
        settings: StreamSettings,
        on_receipt: Callable[[T, Receipt], None],
    ) -> None:
        self._indexers = indexers
        self._opening = opening
        self._settings = settings
        self._on_receipt = on_receipt
        self._lanes: dict[str, Lane[T]] = {}
        self._serving: dict[Lane[T], asyncio.Task[None]] = {}
        self._kept: dict[str, Kept[T]] = {}  # in the order of submission
        self._kept_bytes = 0
        self._claimed: set[str] = set()
        self._entrance = asyncio.Lock()
        self._waiting = 0
        self._room = asyncio.Event()
        self._closing = False
        self._finished = asyncio.Event()
        self.connections = 0
        self.was_refused = False

    @property
    def under_way(self) -> dict[str, int]:
        """By address of an indexer: documents sent to it and not acknowledged."""
        return {address: lane.under_way for address, lane in self._lanes.items()}

    @property
    def is_pressed(self) -> bool:
        """Whether no more documents can come until some are acknowledged."""
        return self._closing or self._waiting > 0 or not self._has_room(0)

    async def submit(self, document: document_pb2.Document, context: T) -> None:
        """Take a document into the stream, waiting for room in it: first come, first served.

        A document larger than the whole bound has it for itself. One whose earlier state is not
        acknowledged waits for that.
        """
        document_id, size = document.document_id, document.ByteSize() + _ENVELOPE_BYTES
        while document_id in self._claimed:
            await self._more_room()
        self._claimed.add(document_id)
        try:
            async with self._entrance:
                while not self._has_room(size):
                    await self._more_room()
        except BaseException:
            self._claimed.discard(document_id)
            self._room.set()
            raise
        kept = Kept(document, size, context)
        self._kept[document_id] = kept
        self._kept_bytes += size
        self._place(kept)
        if len(self._kept) == 1:
            self._stir()  # lanes that are down are tried again while there is something to send

    def close(self) -> None:
        """No more documents come: ``run`` returns when all are acknowledged."""
        self._closing = True
        self._stir()
        self._finish_if_done()

    async def run(self) -> None:
        """Send and receive until closed and all is acknowledged.

        Raises:
            SluiceError: what an indexer answered, if waiting cannot help, or the last failure
                when too many attempts in a row brought no acknowledgement of any indexer.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._follow(tasks), name="follow indexers")
                await self._finished.wait()
                following.cancel()
                for lane, serving in list(self._serving.items()):
                    if not lane.is_open:
                        serving.cancel()
        except BaseExceptionGroup as failures:
            # What failed after the first one failed because of it.
            raise failures.exceptions[0] from None

    def on_opened(self, lane: Lane[T]) -> None:
        """See Owner."""
        self.connections += 1
        if lane.failures:
            named = {"stage": Stage.INGEST_SEND.value, "address": lane.address}
            logger.info("an indexer answers again", extra=named)
        self._place_unsent()

    def on_settled(self, kept: Kept[T], receipt: Receipt) -> None:
        """See Owner."""
        document_id = kept.document.document_id
        del self._kept[document_id]
        self._claimed.discard(document_id)
        self._kept_bytes -= kept.size
        self._room.set()
        self._on_receipt(kept.context, receipt)
        self._finish_if_done()

    def _has_room(self, size: int) -> bool:
        return not self._kept or (
            len(self._kept) < self._settings.max_unacknowledged_documents
            and self._kept_bytes + size <= self._settings.max_unacknowledged_bytes
        )

    async def _more_room(self) -> None:
        self._waiting += 1
        self._stir()  # whoever lingers for more must not wait for this one
        try:
            self._room.clear()
            await self._room.wait()
        finally:
            self._waiting -= 1

    def _finish_if_done(self) -> None:
        if self._closing and not self._kept:
            self._finished.set()
            for lane in self._lanes.values():
                lane.finish()

    def _stir(self) -> None:
        for lane in self._lanes.values():
            lane.stir()

    # Which lane

    def _place(self, kept: Kept[T]) -> None:
        """Give a document to the lane it belongs to; with none up, it waits for the first."""
        up = [lane.address for lane in self._lanes.values() if lane.is_up and not lane.is_leaving]
        if up:
            self._lanes[owner(kept.document.document_id, up)].give(kept)

    def _place_unsent(self) -> None:
        """Place anew all that is not under way, after a lane came, went, failed or was opened."""
        for lane in self._lanes.values():
            lane.take_unsent_back()
        for kept in self._kept.values():
            if kept.flight is None:
                self._place(kept)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Have a lane to each indexer that there is."""
        addresses = await self._indexers.addresses()
        while True:
            for address in addresses:
                if address not in self._lanes:
                    lane = Lane(address, self._opening, self._settings, self)
                    self._lanes[address] = lane
                    serving = tasks.create_task(self._serve(lane), name=f"stream to {address}")
                    self._serving[lane] = serving
            for address, lane in self._lanes.items():
                lane.is_leaving = address not in addresses
            self._place_unsent()
            addresses = await self._indexers.changed(addresses)

    # One lane

    async def _serve(self, lane: Lane[T]) -> None:
        """Connect a lane whenever it is needed, until it has left or all is done."""
        while await self._is_needed(lane):
            failure = await self._converse(lane)
            if failure is None or self._finished.is_set():
                continue
            if not is_passing(failure):
                self.was_refused = not lane.was_opened
                raise failure
            if lane.is_up:
                logger.warning(
                    "an indexer is left out until it answers again",
                    extra={
                        "stage": Stage.INGEST_SEND.value,
                        "address": lane.address,
                        "error_code": failure.code.name,
                    },
                )
            lane.is_up = False
            lane.failures += 1
            self._place_unsent()
            self._give_up_if_hopeless(failure)
            await self._pause(lane, delay_s(self._settings, lane.failures, failure))
        del self._lanes[lane.address], self._serving[lane]

    async def _is_needed(self, lane: Lane[T]) -> bool:
        """Wait until there is something to connect for; False if there never will be."""
        while not self._finished.is_set():
            if lane.is_leaving:
                return False  # between connections nothing is under way
            if lane.has_unsent or (self._kept and not lane.is_up):
                return True
            await lane.stirred()
        return False

    async def _pause(self, lane: Lane[T], seconds: float) -> None:
        """Wait, but not for a lane that is no longer wanted."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not (self._finished.is_set() or lane.is_leaving):
            try:
                async with asyncio.timeout_at(until):
                    await lane.stirred()
            except TimeoutError:
                return

    async def _converse(self, lane: Lane[T]) -> SluiceError | None:
        """One connection of a lane; why it failed."""
        try:
            async with self._indexers.channel(lane.address) as channel:
                await lane.converse(index_pb2_grpc.IndexServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            if _is_status_lost(error):
                return Unavailable("the indexer broke the stream off")
            return translate_rpc_error(error)
        except Unavailable as error:
            return error
        return None

    def _give_up_if_hopeless(self, failure: SluiceError) -> None:
        """Unavailable once no indexer answers and none has attempts left."""
        most = self._settings.max_attempts
        lanes = [lane for lane in self._lanes.values() if not lane.is_leaving]
        if any(lane.is_up or lane.failures < most for lane in lanes):
            return
        attempts = max((lane.failures for lane in lanes), default=most)
        raise Unavailable(
            f"{_named(lanes)} answered none of {attempts} attempts: {failure.message}; "
            f"see that it runs, then start the job again: it goes on where it stopped{self._doubt}"
        )

    @property
    def _doubt(self) -> str:
        """Which document may be what breaks indexers, for whoever reads their logs."""
        worst = max(self._kept.values(), key=lambda kept: kept.broken, default=None)
        if worst is None or worst.broken < _SUSPICIOUS:
            return ""
        return (
            f". {worst.document.source_uri} was under way when {worst.broken} streams broke: if "
            "it is what ends the indexer, exclude it"
        )


def _named(lanes: Sequence[Lane[T]]) -> str:
    if len(lanes) == 1:
        return f"the indexer at {lanes[0].address}"
    return f"each of the {len(lanes)} indexers"


def _is_status_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether why the indexer ended the stream is unknown; opening it again will tell.

    Where a write fails because the call has just ended, grpc.aio puts a status of its own over the
    server's (grpc/grpc issue 36066). A server that goes away may leave CANCELLED.
    """
    if error.code() is grpc.StatusCode.CANCELLED:
        return True
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _OVERWRITTEN
