"""What checks and repairs of an index version found, as frozen values that know nothing of gRPC.

Names are those of the contract ``sluice.collections.v1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.versions import to_score, to_version
from sluice.collections.v1 import collections_pb2

if TYPE_CHECKING:
    from client.versions import GoldenScore, IndexVersion
    from common.golden import GoldenCase


@dataclass(frozen=True, slots=True)
class Exam:
    """Golden queries to ask a version and the active one.

    Attributes:
        cases: at most 2,000.
        threshold: least score to pass, 0 to 1; None leaves it to the server (0.9).
        max_drop: how much less than the active version it may score; None: the server's (0.02).
        depth: hits looked at for each query, 1 to 100; 0 leaves it to the server (10).
    """

    cases: tuple[GoldenCase, ...]
    threshold: float | None = None
    max_drop: float | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class DocumentFault:
    """What is wrong with one document in the store.

    Attributes:
        document_id: derived from its source URI.
        source_uri: of the document.
        container_uri: the file it is a part of; empty for one that is its file.
        kind: ``incomplete`` and ``diverged`` must be sent again, ``surplus`` a repair mends.
        surplus_chunks: those a repair deletes.
    """

    document_id: str
    source_uri: str
    container_uri: str
    kind: str
    surplus_chunks: int

    @property
    def must_be_sent_again(self) -> bool:
        """Whether the store alone cannot mend it."""
        return self.kind != "surplus"


@dataclass(frozen=True, slots=True)
class GoldenMiss:
    """A golden query that did not find all it should.

    Attributes:
        query: as it was asked.
        missing: what it did not find.
        found: source URIs of its first hits.
        active_finds: whether the active version finds all of it.
    """

    query: str
    missing: tuple[str, ...]
    found: tuple[str, ...]
    active_finds: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of one version found.

    Attributes:
        version: counted now.
        passed: whether it is as it should be.
        findings: one line each; empty when it passed.
        faults: documents with a fault, at most 1,000.
        golden: None where no golden queries were asked.
        misses: golden queries that fell short, at most 100, the worst first.
    """

    version: IndexVersion
    passed: bool
    findings: tuple[str, ...]
    faults: tuple[DocumentFault, ...] = ()
    golden: GoldenScore | None = None
    misses: tuple[GoldenMiss, ...] = ()


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes:
        deleted_chunks: that belonged to no complete document, or to earlier states.
        incomplete: documents that must be sent again, at most 1,000.
        incomplete_documents: how many there are in all.
    """

    deleted_chunks: int
    incomplete: tuple[DocumentFault, ...]
    incomplete_documents: int


def to_verification(message: collections_pb2.VerifyVersionResponse) -> Verification:
    """The result out of the contract."""
    return Verification(
        version=to_version(message.version),
        passed=message.passed,
        findings=tuple(message.findings),
        faults=tuple(map(_fault, message.faults)),
        golden=to_score(message.golden) if message.HasField("golden") else None,
        misses=tuple(map(_miss, message.misses)),
    )


def to_repaired(message: collections_pb2.RepairVersionResponse) -> Repaired:
    """The result out of the contract."""
    return Repaired(
        deleted_chunks=message.deleted_chunks,
        incomplete=tuple(map(_fault, message.incomplete)),
        incomplete_documents=message.incomplete_documents,
    )


def _fault(message: collections_pb2.DocumentFault) -> DocumentFault:
    return DocumentFault(
        document_id=message.document_id,
        source_uri=message.source_uri,
        container_uri=message.container_uri,
        kind=collections_pb2.FaultKind.Name(message.kind).removeprefix("FAULT_KIND_").lower(),
        surplus_chunks=message.surplus_chunks,
    )


def _miss(message: collections_pb2.GoldenMiss) -> GoldenMiss:
    return GoldenMiss(
        query=message.query,
        missing=tuple(message.missing),
        found=tuple(message.found),
        active_finds=message.active_finds,
    )
