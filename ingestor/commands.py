"""``sluice ingest``: flags in, a job, a summary out; and the door to ``sluice dead-letters``.

Plugged into the command line by name, so only typer is imported here; the rest when a command runs.
Exit codes: 0 done; 1 failed, or stopped before the end; 2 wrong usage; 3 done with dead letters.
With ``--json`` stdout holds one JSON object, of a watch one a line each round; progress goes to
stderr.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ingestor.dead_letter_commands import dead_letters
from ingestor.flags import WITH_DEAD_LETTERS, Config, Json, Quiet, Target, Tenant, print_value
from ingestor.session import FAILED, Stopped, choose_show, load_config, run_stoppable, stop_told

if TYPE_CHECKING:
    import asyncio

    from ingestor.ingestion import Ingestion
    from ingestor.report import IngestReport
    from ingestor.rounds import Show
    from ingestor.settings import IngestorConfig

__all__ = ["dead_letters", "ingest"]

_SIZE = re.compile(r"(\d{1,18})\s*([kmgt]?)(i?)b?", re.IGNORECASE)

Globs: TypeAlias = list[str] | None


def _size(text: str) -> int:
    """Bytes from text such as 10MB (10^6) or 64MiB (2^20)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter("write a size such as 500kB, 10MB or 64MiB")
    base = 1024 if match[3] else 1000
    scale: int = base ** " kmgt".index(match[2].lower() or " ")
    return int(match[1]) * scale


def _moment(text: str) -> str:
    """The text, if it is a point of time."""
    from ingestor.durations import parse_moment  # noqa: PLC0415 — imported when it is needed

    try:
        parse_moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def _seconds(text: str) -> float:
    from ingestor.durations import parse_duration  # noqa: PLC0415 — as above

    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def ingest(
    uris: Annotated[
        list[str], typer.Argument(metavar="URI...", help="Folders or files: paths or URIs.")
    ],
    *,
    collection: Annotated[str, typer.Option("--collection", help="Created if there is none.")],
    tenant: Tenant = None,
    target: Target = None,
    include: Annotated[
        Globs, typer.Option("--include", metavar="GLOB", help="Only files like this.")
    ] = None,
    exclude: Annotated[
        Globs, typer.Option("--exclude", metavar="GLOB", help="No files or folders like this.")
    ] = None,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Hidden files too: .name, _SUCCESS and the like.")
    ] = False,
    max_file_size: Annotated[
        int | None,
        typer.Option(
            "--max-file-size", parser=_size, metavar="SIZE", help="Greatest file, e.g. 64MiB."
        ),
    ] = None,
    modified_since: Annotated[
        str | None,
        typer.Option(
            "--modified-since",
            parser=_moment,
            metavar="TIME",
            help="Leave older files as they are: 7d, 24h, 90m, or a date or time in ISO 8601.",
        ),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch",
            parser=_seconds,
            metavar="TIME",
            help="Begin again after a pause of 30s, 5m …, until stopped.",
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build a new version from these URIs alone.")
    ] = False,
    activate: Annotated[
        bool, typer.Option("--activate", help="Let queries see the new version if it is sound.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Delete all if no file is left to index.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Index what is new or changed under the URIs, and delete what is gone from them."""
    if activate and not rebuild:
        raise typer.BadParameter("--activate belongs to --rebuild")
    if watch is not None and rebuild:
        raise typer.BadParameter("--watch and --rebuild exclude each other")
    settings = {
        "include": include or None,
        "exclude": exclude or None,
        "hidden": hidden or None,
        "allow_empty": allow_empty or None,
        "max_file_bytes": max_file_size,
        "modified_since": modified_since,
    }
    loaded = load_config(config, target, tenant, settings)
    show = choose_show(quiet=quiet or as_json or watch is not None)
    if watch is not None:
        _watch(loaded, uris, collection, every_s=watch, show=show, as_json=as_json)
        return

    async def work(ingestion: Ingestion, stop: asyncio.Event) -> IngestReport:
        return await ingestion.ingest(
            uris, collection, rebuild=rebuild, activate=activate, show=show, stop=stop
        )

    try:
        report = run_stoppable(loaded, work)
    except Stopped:
        raise stop_told(rebuild=rebuild) from None
    print_value(report.to_json() if as_json else _told(report), as_json=as_json)
    if report.is_stopped:
        raise stop_told(rebuild=rebuild)
    if report.findings:
        raise typer.Exit(FAILED)
    if report.dead_letters:
        raise typer.Exit(WITH_DEAD_LETTERS)


def _watch(
    config: IngestorConfig,
    uris: list[str],
    collection: str,
    *,
    every_s: float,
    show: Show,
    as_json: bool,
) -> None:
    """Rounds until a signal comes; that is their right end."""

    def told(report: IngestReport) -> None:
        print_value(report.to_json() if as_json else _told_in_a_line(report), as_json=as_json)

    async def work(ingestion: Ingestion, stop: asyncio.Event) -> None:
        await ingestion.watch(uris, collection, every_s=every_s, show=show, told=told, stop=stop)

    with suppress(Stopped):
        run_stoppable(config, work)


def _told_in_a_line(report: IngestReport) -> str:
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


def _told(report: IngestReport) -> str:
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
    lines += [f"not sound: {finding}" for finding in report.findings]
    if report.findings:
        lines.append(f"version {target.version} was left as it is; the active one still answers")
    elif not report.is_activated:
        lines.append(
            f"version {target.version} is ready; let it answer with "
            f"`sluice collections activate {target.collection} {target.version}`"
        )
    return "\n".join(lines)
