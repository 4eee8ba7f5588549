"""What the indexer made of a document, as the job sees it."""

from __future__ import annotations

from dataclasses import dataclass

from ingestor.faults import Fault, FaultStage
from sluice.index.v1 import index_pb2


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the indexer made of a document; ``fault`` is set if and only if it was rejected."""

    outcome: index_pb2.Outcome.ValueType
    chunk_count: int = 0
    fault: Fault | None = None


def receipt_of(acknowledgement: index_pb2.Acknowledgement) -> Receipt:
    """The receipt that an acknowledgement stands for."""
    fault = None
    if acknowledgement.outcome == index_pb2.OUTCOME_REJECTED:
        rejection = acknowledgement.rejection
        name = index_pb2.RejectionCause.Name(rejection.cause)
        cause = name.removeprefix("REJECTION_CAUSE_").lower()
        fault = Fault(FaultStage.INDEX, cause, rejection.message)
    return Receipt(acknowledgement.outcome, acknowledgement.chunk_count, fault)


def too_large(limit_bytes: int) -> Receipt:
    """The receipt of a document that no batch may carry."""
    message = f"over the indexer's {limit_bytes} bytes: split it"
    fault = Fault(FaultStage.INDEX, "content_too_large", message)
    return Receipt(index_pb2.OUTCOME_REJECTED, fault=fault)
