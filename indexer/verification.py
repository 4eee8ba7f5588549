"""Whether an index version is fit to be swapped in: whole documents, right counts, queries found.

Reads only, and holds one page of chunk ids and at most 1,000 faults however many documents there
are. A version that is written meanwhile can be seen half written: the verdict that counts is that
of a version that takes no more documents. Findings name documents and sources, never their text.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

from common.coordination import Verdict
from common.errors import FailedPrecondition
from indexer import inventory
from indexer.faults import MAX_FAULTS, Fault, FaultKind, fault_of
from indexer.golden import grade

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from common.coordination import Pointer, VersionRecord
    from indexer.golden import Ask, Exam, Graded, Miss
    from indexer.store import VectorStore

MAX_FINDINGS: Final = 100


@dataclass(frozen=True, slots=True)
class Examined:
    """What a version holds and what was found.

    Attributes:
        documents: those of which a revision is complete.
        chunks: all.
        verdict: whether it passed, and at most 100 lines why not.
        faults: of the first 1,000 documents that have one.
        misses: golden queries that did not find all they should, at most 100, the worst first.
    """

    documents: int
    chunks: int
    verdict: Verdict
    faults: tuple[Fault, ...]
    misses: tuple[Miss, ...]


@dataclass(slots=True)
class _Tally:
    documents: int = 0
    chunks: int = 0
    faulty: int = 0


async def verify(
    store: VectorStore,
    record: VersionRecord,
    *,
    expected_documents: int | None = None,
    exam: Exam | None = None,
    ask: Ask | None = None,
    active: Pointer | None = None,
) -> Examined:
    """Ask golden queries, check every document and count.

    Args:
        store: the version's.
        record: the version; query servers must be allowed to search it if there is an exam.
        expected_documents: how many it must hold; None for any number.
        exam: golden queries; None for none.
        ask: asks query servers; needed with an exam.
        active: the version to compare golden scores with; None for none.

    Raises:
        FailedPrecondition: golden queries, but no query server can be asked.
        SluiceError: a golden query failed, or the store did not answer.
    """
    graded = None
    if exam is not None:
        if ask is None:
            raise FailedPrecondition(
                "golden queries need a query server; start one, or verify without them"
            )
        graded = await grade(exam, ask, record, active)
    tally = _Tally()
    faults: list[Fault] = []
    async with aclosing(inventory.states(store)) as lots:
        async for lot in lots:
            for document_id, held in lot.items():
                fault = fault_of(document_id, held)
                tally.chunks += len(held)
                tally.documents += fault is None or fault.kind is not FaultKind.INCOMPLETE
                tally.faulty += fault is not None
                if fault is not None and len(faults) < MAX_FAULTS:
                    faults.append(fault)
    found = chain(_general(record, tally, expected_documents, graded), map(str, faults))
    findings = _cut(found, tally.faulty - len(faults))
    verdict = Verdict(
        passed=not findings,
        verified_at=datetime.now(UTC),
        findings=findings,
        golden=graded.score if graded else None,
    )
    misses = graded.misses if graded else ()
    return Examined(tally.documents, tally.chunks, verdict, tuple(faults), misses)


def _general(
    record: VersionRecord, tally: _Tally, expected_documents: int | None, graded: Graded | None
) -> Iterator[str]:
    """What is wrong with the version as a whole."""
    if expected_documents is not None and tally.documents != expected_documents:
        yield f"holds {tally.documents} complete documents, expected {expected_documents}"
    embedder = record.embedder
    if not embedder.model or not embedder.digest or embedder.dimension < 1:
        yield "the record does not say which embedder wrote it; build the version anew"
    if graded is not None:
        yield from graded.findings


def _cut(findings: Iterable[str], untold: int) -> tuple[str, ...]:
    """At most 100 of the findings; the last line counts the others, and those not kept at all."""
    lines = list(findings)
    if not untold and len(lines) <= MAX_FINDINGS:
        return tuple(lines)
    shown = lines[: MAX_FINDINGS - 1]
    more = len(lines) + untold - len(shown)
    return (*shown, f"and {more} more findings")
