"""What those that read files share: where they read from, where documents go, within what bounds.

Every document that is sent carries an object that takes its receipt; nothing else is remembered of
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from common.telemetry import Metric, count
from sluice.index.v1 import index_pb2

if TYPE_CHECKING:
    import asyncio

    from ingestor.extraction.extractor import Extractor
    from ingestor.job.byte_budget import ByteBudget
    from ingestor.job.candidate import Candidate
    from ingestor.job.outcomes import Outcomes
    from ingestor.job.summary import Counters
    from ingestor.sending.receipt import Receipt
    from ingestor.sending.stream import IndexStream
    from ingestor.settings import IngestSettings
    from ingestor.state.manifest import Manifest
    from ingestor.storage.sources import Source


class Sent(Protocol):
    """A document that was sent."""

    def receive(self, receipt: Receipt) -> None:
        """Take what the indexer made of it; called once, must not raise."""


@dataclass(frozen=True, slots=True)
class Means:
    """One job's means.

    Attributes:
        source: where files are read.
        extractor: makes text of them.
        stream: takes documents.
        manifest: is told before anything is sent.
        outcomes: the job's books.
        counters: of the job.
        settings: bounds.
        in_flight: bytes of files being read and of documents not yet acknowledged.
        decoding: bytes that text takes while it is being made; held while nothing else is waited
            for.
        stop: is set when what is in hand shall be the last.
    """

    source: Source
    extractor: Extractor
    stream: IndexStream[Sent]
    manifest: Manifest
    outcomes: Outcomes
    counters: Counters
    settings: IngestSettings
    in_flight: ByteBudget
    decoding: ByteBudget
    stop: asyncio.Event

    def count_bytes(self, size: int) -> None:
        """Count what was read."""
        self.counters.bytes_read += size
        count(Metric.BYTES_READ, size)

    def count_receipt(self, candidate: Candidate, receipt: Receipt) -> None:
        """Count a document that was not rejected."""
        match receipt.outcome:
            case index_pb2.OUTCOME_INDEXED:
                self.counters.updated += candidate.was_held
                self.counters.indexed += not candidate.was_held
                self.counters.chunks += receipt.chunk_count
            case index_pb2.OUTCOME_SUPERSEDED:
                self.counters.superseded += 1
            case _:
                self.counters.unchanged += 1
        count(Metric.DOCUMENTS, 1, outcome=index_pb2.Outcome.Name(receipt.outcome)[8:].lower())
