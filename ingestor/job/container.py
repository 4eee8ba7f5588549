"""A file that holds many documents, from its parts to the receipt of the last of them.

Parts are read by the batch and sent as they come; of each only its bytes in flight are remembered,
so that a container may be of any size. Once all are acknowledged and none was rejected, what the
index holds of the container's older states is deleted: that is how rows that are gone go. A broken
container keeps what could be sent of it, and everything older besides.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from common.telemetry import Stage, span
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.job.documents import to_document
from ingestor.job.outcomes import Deletion
from ingestor.state.file_records import FileOutcome, Holding, Kinds, listed
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from ingestor.extraction.extracted import PartBatch
    from ingestor.job.byte_budget import Lease
    from ingestor.job.candidate import Candidate
    from ingestor.job.means import Means
    from ingestor.sending.receipt import Receipt
    from ingestor.storage.sources import OpenFile

# What a batch may take while it is made: about 1 MiB of text, up to four bytes a character.
_BATCH_BYTES = 4 * 2**20
_MOST_SHOWN = 300


class _End(Enum):
    """How far a container was read."""

    NOT_YET = auto()
    ALL = auto()
    STOPPED = auto()


async def read_container(candidate: Candidate, means: Means) -> None:
    """Read and submit all parts of one file; it is settled by the receipt of the last one."""
    container = Container(candidate, means)
    means.counters.files_opened += 1
    with span(Stage.INGEST_READ, bytes=candidate.entry.size) as active:
        file = await means.source.open(candidate.entry)
        if isinstance(file, Fault):
            container.end(file)
            return
        try:
            end = await _submit_parts(container, _CountedFile(file, candidate, means))
        finally:
            await file.aclose()
        active.set("documents", container.sent)
    container.end(end)


async def _submit_parts(container: Container, file: OpenFile) -> Fault | _End:
    means = container.means
    parts = means.extractor.parts(container.candidate.plan, file)
    async with aclosing(parts) as batches:
        while not means.stop.is_set():
            lease = await means.in_flight.take(_BATCH_BYTES)
            used = False
            try:
                batch = await anext(batches, None)
                if batch is None:
                    return _End.ALL
                if isinstance(batch, Fault):
                    return batch
                used = True
                await container.submit(batch, lease)
            finally:
                if not used:
                    means.in_flight.give_back(lease)
    return _End.STOPPED


class Container:
    """One container while its documents are on the way; ``sent`` counts them."""

    def __init__(self, candidate: Candidate, means: Means) -> None:
        self.candidate = candidate
        self.means = means
        self.sent = 0
        self._received = 0
        self._accepted = 0
        self._superseded = 0
        self._unchanged = 0
        self._first_rejection: Fault | None = None
        self._digest = hashlib.blake2b(digest_size=32)
        self._end: Fault | _End = _End.NOT_YET

    async def submit(self, batch: PartBatch, lease: Lease) -> None:
        """Send a batch; the lease is given back bit by bit as its documents are acknowledged."""
        candidate, means = self.candidate, self.means
        means.counters.passed_over += batch.passed_over
        documents = [
            (
                part.fragment,
                to_document(candidate.entry, candidate.version, part.extracted, part.fragment),
            )
            for part in batch.parts
        ]
        means.in_flight.resize(lease, sum(document.ByteSize() for _, document in documents))
        await means.manifest.begin()
        for fragment, document in documents:
            self._digest.update(f"{fragment}\0{document.content_digest}\0".encode())
            self.sent += 1
            context = _SentPart(self, fragment, document.ByteSize(), lease)
            await means.stream.submit(document, context)

    def end(self, end: Fault | _End) -> None:
        """No more parts come, because of a fault or since these were all."""
        self._end = end
        self._settle_if_done()

    def receive(self, fragment: str, receipt: Receipt) -> None:
        """Take the receipt of one part."""
        self._received += 1
        if receipt.fault is None:
            self._accepted += 1
            self._superseded += receipt.outcome == index_pb2.OUTCOME_SUPERSEDED
            self._unchanged += receipt.outcome == index_pb2.OUTCOME_UNCHANGED
            self.means.count_receipt(self.candidate, receipt)
        elif self._first_rejection is None:
            message = f"#{fragment}: {receipt.fault.message}"[:_MOST_SHOWN]
            self._first_rejection = replace(receipt.fault, message=message)
        self._settle_if_done()

    def _settle_if_done(self) -> None:
        if self._end is _End.NOT_YET or self._received < self.sent:
            return
        counters = self.means.counters
        counters.files_done += 1
        fault = self._fault()
        if self._end is _End.STOPPED:
            self._break_off()
        elif fault is not None:
            self._fail(fault)
        else:
            self._succeed()

    def _fault(self) -> Fault | None:
        if isinstance(self._end, Fault):
            return self._end
        if self._first_rejection is not None:
            rejected = self._received - self._accepted
            first = self._first_rejection
            message = f"{rejected:,} of {self.sent:,} records were rejected; first: {first.message}"
            return replace(first, message=message)
        if not self.sent:
            return Fault(FaultStage.EXTRACT, Cause.NO_TEXT, "it holds no text")
        return None

    @property
    def _holding(self) -> Holding:
        """What the index may hold of the container now."""
        holding = self.candidate.holding
        if not self._accepted:
            return holding
        kinds = Kinds.PARTS | Kinds.OF_THIS_STATE
        sent = Holding(self.candidate.version, kinds, self._accepted)
        return holding.joined(sent)

    def _fail(self, fault: Fault) -> None:
        entry, record = self.candidate.entry, self.candidate.record
        outcomes, recipe = self.means.outcomes, self.candidate.plan.recipe
        if fault.cause == Cause.GONE:
            gone = record or listed(entry, recipe, FileOutcome.REMOVED)
            outcomes.vanish(gone, self._holding)
        else:
            outcomes.fail(entry, recipe, record, fault, self._holding)

    def _break_off(self) -> None:
        """Note that the index may hold some of it, so that the next job reads it again."""
        candidate, outcomes = self.candidate, self.means.outcomes
        if self._accepted:
            recipe, partial = candidate.plan.recipe, FileOutcome.PARTIAL
            outcomes.record(listed(candidate.entry, recipe, partial, self._holding))
        elif candidate.record is not None:
            outcomes.keep(candidate.record)

    def _succeed(self) -> None:
        candidate = self.candidate
        holding = Holding(candidate.version, Kinds.PARTS | Kinds.OF_THIS_STATE, self.sent)
        outcome = FileOutcome.SUPERSEDED if self._superseded else FileOutcome.INDEXED
        recipe, digest = candidate.plan.recipe, self._digest.hexdigest()
        before = candidate.holding.kinds
        self.means.outcomes.delete(
            Deletion(
                listed(candidate.entry, recipe, outcome, holding, digest),
                whole=candidate.version if before & Kinds.WHOLE else 0,
                parts=candidate.version - 1 if before & Kinds.PARTS else 0,
                doubted=self.sent if self._may_share_its_version() else 0,
            )
        )

    def _may_share_its_version(self) -> bool:
        """Whether parts of another state may bear the version: no row tells how they were cut.

        Where every document that was there is among those that were sent, none does.
        """
        holding = self.candidate.holding
        known = bool(holding.kinds & Kinds.OF_THIS_STATE)
        is_same = holding.version == self.candidate.version and bool(holding.kinds & Kinds.PARTS)
        return is_same and not known and self._unchanged < holding.documents


class _SentPart:
    """A part until it is acknowledged."""

    __slots__ = ("_container", "_fragment", "_lease", "_size")

    def __init__(self, container: Container, fragment: str, size: int, lease: Lease) -> None:
        self._container = container
        self._fragment = fragment
        self._size = size
        self._lease = lease

    def receive(self, receipt: Receipt) -> None:
        budget = self._container.means.in_flight
        budget.resize(self._lease, self._lease.size - self._size)
        self._container.receive(self._fragment, receipt)


class _CountedFile:
    """An open file whose reading is counted: its size may exceed what progress could wait for."""

    def __init__(self, file: OpenFile, candidate: Candidate, means: Means) -> None:
        self._file = file
        self._left = candidate.entry.size
        self._means = means

    @property
    def size(self) -> int:
        return self._file.size

    async def read_at(self, offset: int, length: int) -> bytes | Fault:
        read = await self._file.read_at(offset, length)
        if not isinstance(read, Fault):
            self._means.count_bytes(len(read))
            self._pass(len(read))
        return read

    async def aclose(self) -> None:
        self._pass(self._left)
        await self._file.aclose()

    def _pass(self, size: int) -> None:
        passed = min(size, self._left)
        self._left -= passed
        self._means.counters.bytes_done += passed
