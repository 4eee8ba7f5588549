"""What the indexer made of a document, as the job sees it."""

from __future__ import annotations

from dataclasses import dataclass

from ingestor.faults import Fault, FaultStage
from sluice.index.v1 import index_pb2

_DONE = {
    index_pb2.OUTCOME_INDEXED,
    index_pb2.OUTCOME_UNCHANGED,
    index_pb2.OUTCOME_SUPERSEDED,
}
_UNKNOWN = "unspecified"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the indexer made of a document; ``fault`` is set if and only if it was rejected."""

    outcome: index_pb2.Outcome.ValueType
    chunk_count: int = 0
    fault: Fault | None = None


def receipt_of(acknowledgement: index_pb2.Acknowledgement) -> Receipt:
    """The receipt that an acknowledgement stands for.

    An outcome that this release does not know is none: nobody can tell whether the index has it.
    """
    if acknowledgement.outcome in _DONE:
        return Receipt(acknowledgement.outcome, acknowledgement.chunk_count)
    if acknowledgement.outcome == index_pb2.OUTCOME_REJECTED:
        rejection = acknowledgement.rejection
        fault = Fault(FaultStage.INDEX, _cause(rejection.cause), rejection.message)
    else:
        message = f"the indexer answered with an unknown outcome ({acknowledgement.outcome})"
        advice = "run the indexer and the ingestor from the same release"
        fault = Fault(FaultStage.INDEX, _UNKNOWN, f"{message}: {advice}")
    return Receipt(index_pb2.OUTCOME_REJECTED, fault=fault)


def too_large(limit_bytes: int) -> Receipt:
    """The receipt of a document that no batch may carry."""
    message = f"over the indexer's {limit_bytes} bytes: split it"
    fault = Fault(FaultStage.INDEX, "content_too_large", message)
    return Receipt(index_pb2.OUTCOME_REJECTED, fault=fault)


def _cause(cause: index_pb2.RejectionCause.ValueType) -> str:
    """Its name in lower case; an indexer of a newer release may have causes unknown here."""
    if cause not in index_pb2.RejectionCause.values():
        return _UNKNOWN
    return index_pb2.RejectionCause.Name(cause).removeprefix("REJECTION_CAUSE_").lower()
