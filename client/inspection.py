"""`sluice collections verify`, whole: the store, the golden queries, the manifests and a repair.

A repair mends what the store alone can mend, lets the manifests forget what must be sent again, and
then looks again, so that what is told is what is there now. Without it nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.versions import as_plain
from common.identity import check_tenant

if TYPE_CHECKING:
    from client.client import SluiceClient
    from client.manifests import Compared, Manifests
    from client.verification import Exam, Repaired, Verification


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found, and what was done about it.

    Attributes:
        found: the version as it was before any repair.
        repaired: what a repair of the store did; None without one.
        manifests: beside the index.
        verified: the version as it is now; the same as ``found`` without a repair.
    """

    found: Verification
    repaired: Repaired | None
    manifests: Compared
    verified: Verification

    @property
    def to_be_sent(self) -> bool:
        """Whether the store lacks of documents what only sending them again brings back."""
        incomplete = self.repaired.incomplete_documents if self.repaired else 0
        lacking = any(fault.must_be_sent_again for fault in self.verified.faults)
        return lacking or incomplete > 0

    @property
    def all_right(self) -> bool:
        """Whether nothing is wrong, nor waits for an ingest."""
        report = self.manifests.report
        agree = report is None or report.agrees
        return self.verified.passed and agree and not self.manifests.failed and not self.to_be_sent

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values for a JSON object."""
        report = self.manifests.report
        return {
            "ok": self.all_right,
            **as_plain(self.verified),
            "manifests": as_plain(report) if report else None,
            "manifests_note": self.manifests.note,
            "repaired": as_plain(self.repaired) if self.repaired else None,
        }


async def inspect_version(
    client: SluiceClient,
    collection: str,
    *,
    tenant: str,
    version: int,
    expected_documents: int | None,
    golden: Exam | None,
    manifests: Manifests,
    repair: bool,
) -> Inspection:
    """Look at one version from all sides, and mend it if asked to.

    Args:
        client: of the installation.
        collection: which.
        tenant: whose.
        version: 0 means the active one.
        expected_documents: it must hold; None for any number.
        golden: queries to ask; None for none.
        manifests: of this machine.
        repair: mend what can be mended.
    """
    asked = client.verify(
        collection,
        version=version,
        expected_documents=expected_documents,
        golden=None if repair else golden,
    )
    found = verified = await asked
    # Another may become the active one meanwhile.
    number = found.version.number
    repaired = None
    lacking = found.faults
    if repair and found.faults:
        repaired = await client.repair(collection, version=number)
        lacking = repaired.incomplete
    compared = await manifests.compare(
        check_tenant(tenant),
        collection,
        found.version,
        incomplete=frozenset(
            fault.container_uri or fault.source_uri for fault in lacking if fault.must_be_sent_again
        ),
        repair=repair,
    )
    if repair:
        verified = await client.verify(
            collection, version=number, expected_documents=expected_documents, golden=golden
        )
    return Inspection(found, repaired, compared, verified)
