"""What an ingestion did, in words: for a person at a terminal, where ``--json`` is for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestor.report import IngestReport
    from ingestor.sending.collection_client import GoldenMiss

# Of a golden query's hits and of what it misses; the JSON has all.
_MOST_NAMED = 3


def told_in_a_line(report: IngestReport) -> str:
    """One round of a watch for people."""
    sums = report.to_json()
    line = (
        f"{time.strftime('%H:%M:%S')}  {report.target.collection}, version "
        f"{report.target.version}: {sums['indexed']:,} new, {sums['updated']:,} updated, "
        f"{sums['deleted']:,} deleted, {sums['documents']:,} documents held, "
        f"{sums['duration_s']:.1f} s"
    )
    letters = sums["dead_letters"]
    return f"{line}, {letters:,} dead letters" if letters else line


def told(report: IngestReport) -> str:
    """The report for people."""
    sums = report.to_json()
    target = report.target
    lines = [
        (
            f"{target.collection}, version {target.version}: "
            f"{sums['indexed']:,} new, {sums['updated']:,} updated, "
            f"{sums['unchanged']:,} unchanged, "
            f"{sums['deleted']:,} deleted, {sums['documents']:,} documents held"
        ),
        (
            f"{sums['chunks']:,} chunks, {sums['bytes'] / 1e6:.1f} MB read in "
            f"{sums['duration_s']:.1f} s: {sums['documents_per_s']:.1f} documents/s, "
            f"{sums['chunks_per_s']:.0f} chunks/s, {sums['mb_per_s']:.2f} MB/s"
        ),
    ]
    if sums["passed_over"]:
        lines.append(f"{sums['passed_over']:,} records without text passed over")
    if sums["dead_letters"] or sums["set_aside"]:
        lines.append(
            f"{sums['dead_letters']:,} dead letters, {sums['set_aside']:,} more set aside: see "
            f"`sluice dead-letters list --collection {target.collection}`"
        )
    if report.rounds > 1:
        lines.append(
            f"another version was activated meanwhile: this is the last of {report.rounds} rounds"
        )
    return "\n".join(lines + (_told_of_the_build(report) if report.is_built else []))


def _told_of_the_build(report: IngestReport) -> list[str]:
    """What the verification said, what became of the version, and what can be done."""
    name, version = report.target.collection, report.target.version
    lines = []
    if report.golden is not None:
        score = report.golden
        line = f"{score.queries:,} golden queries: {score.candidate:.3f}"
        if score.active is not None:
            line += f", by version {score.active_version} {score.active:.3f}"
        lines.append(f"{line}; {score.threshold:.3f} passes")
    # Golden queries that fell short have lines of their own below.
    shown_below = 'golden query "' if report.misses else ()
    findings = [finding for finding in report.findings if not finding.startswith(shown_below)]
    lines += [f"not sound: {_printable(finding)}" for finding in findings]
    if report.findings:
        lines += [_told_of_a_miss(miss) for miss in report.misses]
    if report.is_stopped:
        return [*lines, f"version {version} was not finished and is given up"]
    if report.is_activated:
        forced = ", forced although it fell short" if report.is_forced else ""
        back = f"`sluice collections rollback {name}` takes it back"
        return [*lines, f"version {version} is active{forced}; {back}"]
    activate = f"sluice collections activate {name} {version}"
    if report.findings:
        lines.append(
            f"version {version} fell short and the active one still answers; look with "
            f"`sluice collections show {name}`, let it answer all the same with "
            f"`{activate} --force`"
        )
        return lines
    return [*lines, f"version {version} is ready; let it answer with `{activate}`"]


def _told_of_a_miss(miss: GoldenMiss) -> str:
    active = "the active version finds it" if miss.active_finds else "so does the active version"
    missing, found = (", ".join(some[:_MOST_NAMED]) for some in (miss.missing, miss.found))
    return _printable(
        f"  {miss.query!r} misses {missing} ({active}); it finds {found or 'nothing'}"
    )


def _printable(text: str) -> str:
    """A name may hold what a terminal would act upon."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
