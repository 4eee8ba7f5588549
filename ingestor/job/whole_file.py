"""A file that is one document, from its bytes to its receipt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.telemetry import Stage, span
from ingestor.extraction.file_text import is_decoded_only
from ingestor.extraction.file_types import sniffed_type
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.job.byte_budget import Lease
from ingestor.job.documents import to_document
from ingestor.job.outcomes import Deletion
from ingestor.state.file_records import FileOutcome, Holding, Kinds, listed
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    from ingestor.extraction.extractor import Plan
    from ingestor.job.candidate import Candidate
    from ingestor.job.means import Means
    from ingestor.sending.receipt import Receipt

_SMALLEST_LEASE = 4096  # what a file costs besides its bytes
# Bytes that the text of a file may take for each of the file's while it is made: up to four for
# each character of a str, and the document beside it.
_DECODED = 5


def too_much_text(max_bytes: int) -> Fault:
    """The fault of a text that no document could hold."""
    message = f"over {max_bytes} bytes of text: cut it by a rule of ingest.formats, such as lines"
    return Fault(FaultStage.READ, Cause.TOO_LARGE, message)


async def read_whole_file(candidate: Candidate, means: Means) -> None:
    """Read, extract and submit one file; its receipt, or why there is none, goes to the books."""
    lease = await means.in_flight.take(max(candidate.entry.size, _SMALLEST_LEASE))
    submitted = False
    try:
        submitted = await _submit(candidate, means, lease)
    finally:
        if not submitted:
            means.in_flight.give_back(lease)


async def _submit(candidate: Candidate, means: Means, lease: Lease) -> bool:
    """Whether the document is on the way."""
    entry, plan = candidate.entry, candidate.plan
    means.counters.files_opened += 1
    with span(Stage.INGEST_READ, bytes=entry.size):
        content = await means.source.read(entry, means.settings.max_file_bytes)
    if isinstance(content, Fault):
        _settle(candidate, means, content)
        return False
    means.count_bytes(len(content))
    is_decoded = _is_decoded(plan, content)
    if is_decoded and len(content) > means.settings.max_text_bytes:
        _settle(candidate, means, too_much_text(means.settings.max_text_bytes))
        return False
    decoding = Lease(0)
    if is_decoded:
        decoding = await means.decoding.take(len(content) * _DECODED)
    try:
        with span(Stage.INGEST_EXTRACT, bytes=len(content)):
            extracted = await means.extractor.extract(plan, content)
        if isinstance(extracted, Fault):
            _settle(candidate, means, extracted)
            return False
        digest = hashlib.blake2b(content, digest_size=32).hexdigest()
        del content
        document = to_document(entry, candidate.version, extracted)
        del extracted
    finally:
        means.decoding.give_back(decoding)
    means.in_flight.resize(lease, max(document.ByteSize(), _SMALLEST_LEASE))
    await means.manifest.begin()
    await means.stream.submit(document, _SentFile(candidate, means, digest, lease))
    return True


def _is_decoded(plan: Plan, content: bytes) -> bool:
    """Whether the file's text is made in this process, all at once."""
    media_type = plan.reading.media_type or sniffed_type(content)
    is_plain = not isinstance(media_type, Fault) and is_decoded_only(media_type)
    return is_plain and not plan.reading.codec


@dataclass(frozen=True, slots=True)
class _SentFile:
    """The document of a file until it is acknowledged."""

    candidate: Candidate
    means: Means
    digest: str
    lease: Lease

    def receive(self, receipt: Receipt) -> None:
        candidate, means = self.candidate, self.means
        means.in_flight.give_back(self.lease)
        if receipt.fault is not None:
            _settle(candidate, means, receipt.fault)
            return
        means.count_receipt(candidate, receipt)
        superseded = receipt.outcome == index_pb2.OUTCOME_SUPERSEDED
        outcome = FileOutcome.SUPERSEDED if superseded else FileOutcome.INDEXED
        holding = Holding(candidate.version, Kinds.WHOLE | Kinds.OF_THIS_STATE, 1)
        row = listed(candidate.entry, candidate.plan.recipe, outcome, holding, self.digest)
        had_parts = candidate.holding.kinds & Kinds.PARTS
        means.outcomes.delete(Deletion(row, parts=candidate.version if had_parts else 0))
        _count_done(candidate, means)


def _settle(candidate: Candidate, means: Means, fault: Fault) -> None:
    entry, record = candidate.entry, candidate.record
    recipe = candidate.plan.recipe
    if fault.cause == Cause.GONE:
        gone = record or listed(entry, recipe, FileOutcome.REMOVED)
        means.outcomes.vanish(gone, candidate.holding)
    else:
        means.outcomes.fail(entry, recipe, record, fault, candidate.holding)
    _count_done(candidate, means)


def _count_done(candidate: Candidate, means: Means) -> None:
    means.counters.files_done += 1
    means.counters.bytes_done += candidate.entry.size
