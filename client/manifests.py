"""The manifest half of `sluice collections verify`: asks whoever remembers what was sent.

Such a part offers a ``ManifestCheck`` by an entry point; the client imports none. Where none is
installed, or none has a manifest of the version on this machine, that is told and is no fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from client.plugins import missing
from common.errors import SluiceError
from common.verification import ENTRY_POINT_GROUP, MAX_FINDINGS, ManifestReport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from client.versions import IndexVersion
    from common.verification import ManifestCheck


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of the comparison.

    Attributes:
        report: of all manifests together; None where none could be compared.
        note: why none was; empty where they were.
        failed: whether that is a fault of this machine rather than how it is meant to be.
    """

    report: ManifestReport | None
    note: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Manifests:
    """The checks of this machine, with the settings they read.

    Attributes:
        points: entry points of the group.
        config: settings, as ``config.load`` takes them.
        environ: likewise.
    """

    points: tuple[EntryPoint, ...]
    config: Path | None
    environ: Mapping[str, str]

    @classmethod
    def installed(cls, config: Path | None, environ: Mapping[str, str]) -> Manifests:
        """Those that the installed parts offer."""
        return cls(tuple(entry_points(group=ENTRY_POINT_GROUP)), config, environ)

    async def compare(
        self,
        tenant: str,
        collection: str,
        version: IndexVersion,
        *,
        incomplete: frozenset[str],
        repair: bool,
    ) -> Compared:
        """Compare the manifests of one version with the index; arguments as of a check."""
        reports: list[ManifestReport] = []
        if not self.points:
            return Compared(None, "no part that keeps manifests is installed")
        for point in self.points:
            try:
                check: ManifestCheck = point.load()
                report = await check(
                    config=self.config,
                    environ=self.environ,
                    tenant=tenant,
                    collection=collection,
                    version=version.number,
                    created_at=version.created_at.isoformat() if version.created_at else "",
                    incomplete=incomplete,
                    repair=repair,
                )
            except ModuleNotFoundError as error:
                return Compared(None, str(missing(point.module, error)))
            except SluiceError as error:
                return Compared(None, error.message, failed=True)
            reports.append(report)
        whole = _together(reports)
        if not whole.roots:
            return Compared(None, f"none of version {version.number} is known on this machine")
        return Compared(whole)


def _together(reports: list[ManifestReport]) -> ManifestReport:
    return ManifestReport(
        roots=sum(report.roots for report in reports),
        files=sum(report.files for report in reports),
        findings=tuple(line for report in reports for line in report.findings)[:MAX_FINDINGS],
        missing=sum(report.missing for report in reports),
        surplus=sum(report.surplus for report in reports),
        forgotten=sum(report.forgotten for report in reports),
    )
