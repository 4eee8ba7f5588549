"""What `sluice collections verify` asks of whoever keeps manifests: do they agree with the index?

The client knows no ingestor. A part that remembers what it sent offers a check in the entry-point
group ``sluice.manifests``; the client runs it beside what the server says of the store. A check
looks only at the manifests of this machine's settings, and must never write to the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENTRY_POINT_GROUP = "sluice.manifests"
# Lines a report may carry; what it counts has no such bound.
MAX_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class ManifestReport:
    """What the manifests of one index version say beside the index.

    Attributes:
        roots: manifests compared; 0 means that none of this version was found.
        files: rows in them.
        findings: one line each, at most ``MAX_FINDINGS``; empty when all agree.
        missing: documents that a manifest has and the index lacks.
        surplus: documents of the index under a manifest's root that no row knows.
        forgotten: rows a repair took out, so that the next job reads those files again.
    """

    roots: int
    files: int
    findings: tuple[str, ...]
    missing: int
    surplus: int
    forgotten: int

    @property
    def agrees(self) -> bool:
        """Whether there is nothing to tell, nor anything for the next job to mend."""
        return not (self.findings or self.missing or self.surplus or self.forgotten)


class ManifestCheck(Protocol):
    """What an entry point of the group names."""

    async def __call__(
        self,
        *,
        config: Path | None,
        environ: Mapping[str, str],
        tenant: str,
        collection: str,
        version: int,
        created_at: str,
        incomplete: frozenset[str],
        repair: bool,
    ) -> ManifestReport:
        """Compare, and with ``repair`` make the next job send what the index lacks.

        Args:
            config: settings, as ``config.load`` takes them.
            environ: likewise.
            tenant: whose collection.
            collection: its name.
            version: number of the index version.
            created_at: when it was begun, ISO 8601 in UTC; a number alone may be another's.
            incomplete: URIs of sources or containers that must be sent again.
            repair: change manifests; without it nothing is written.
        """
