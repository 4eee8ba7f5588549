"""What an ingestion tells when it is over: the sums of its roots, as values and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestor.job.summary import IngestSummary
    from ingestor.sending.collection_client import GoldenMiss, GoldenScore
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
    active one and left there. ``findings`` are what its verification found wrong, ``golden`` how
    it did on golden queries, ``misses`` those of them that it failed; it was ``is_forced`` where it
    was activated all the same. ``rounds`` counts the active versions that were written one after
    the other. ``is_stopped`` tells that it was stopped before its end.
    """

    target: IndexTarget
    roots: tuple[IngestSummary, ...]
    is_activated: bool
    findings: tuple[str, ...] = ()
    is_stopped: bool = False
    is_built: bool = False
    is_forced: bool = False
    golden: GoldenScore | None = None
    misses: tuple[GoldenMiss, ...] = ()
    rounds: int = 1

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
            "built": self.is_built,
            "forced": self.is_forced,
            "rounds": self.rounds,
            "findings": list(self.findings),
            "golden": asdict(self.golden) if self.golden else None,
            "misses": [asdict(miss) for miss in self.misses],
            **sums,
            **{name: round(rate, 3) for name, rate in rates.items()},
            "roots": roots,
        }
