"""What an ingestion tells when it is over: the sums of its roots, as values and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestor.job.summary import IngestSummary
    from ingestor.sending.index_client import IndexTarget

_ADDED_UP = (
    *("listed", "unchanged", "skipped", "set_aside", "files_opened", "indexed", "updated"),
    *("superseded", "deleted", "dead_letters", "passed_over", "documents", "chunks", "bytes"),
    "duration_s",
)


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all roots.

    ``is_activated`` tells whether queries see the version: always, unless it was built beside the
    active one and left there. ``findings`` are what its verification found wrong. ``is_stopped``
    tells that it was stopped before its end.
    """

    target: IndexTarget
    roots: tuple[IngestSummary, ...]
    is_activated: bool
    findings: tuple[str, ...] = ()
    is_stopped: bool = False

    @property
    def dead_letters(self) -> int:
        """Files and folders that failed."""
        return sum(root.dead_letters for root in self.roots)

    def to_json(self) -> dict[str, Any]:
        """One object: the sums, the rates over all, and each root."""
        roots = [asdict(root) for root in self.roots]
        sums = {name: sum(root[name] for root in roots) for name in _ADDED_UP}
        duration_s = sums["duration_s"] or 1e-9
        sent = sums["indexed"] + sums["updated"]
        rates = {
            "documents_per_s": sent / duration_s,
            "chunks_per_s": sums["chunks"] / duration_s,
            "mb_per_s": sums["bytes"] / 1e6 / duration_s,
        }
        return {
            "tenant": self.target.tenant,
            "collection": self.target.collection,
            "index_version": self.target.version,
            "activated": self.is_activated,
            "stopped": self.is_stopped,
            "findings": list(self.findings),
            **sums,
            **{name: round(rate, 3) for name, rate in rates.items()},
            "roots": roots,
        }
