"""``sluice ingest``: flags in, a job, a summary out; and the door to ``sluice dead-letters``.

Plugged into the command line by name, so only typer is imported here; the rest when a command runs.
Exit codes: 0 done; 1 failed, or stopped before the end; 2 wrong usage; 3 done with dead letters.
With ``--json`` stdout holds one JSON object, of a watch one a line each round; progress goes to
stderr.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path  # noqa: TC003 — typer reads the annotations
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ingestor.dead_letter_commands import dead_letters
from ingestor.flags import WITH_DEAD_LETTERS, Config, Json, Quiet, Target, Tenant, print_value
from ingestor.for_people import told, told_in_a_line
from ingestor.session import FAILED, Stopped, choose_show, load_config, run_stoppable, stop_told

if TYPE_CHECKING:
    import asyncio

    from ingestor.ingestion import Ingestion
    from ingestor.rebuilding import Rebuild
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
    force: Annotated[
        bool, typer.Option("--force", help="Let queries see the new version even if it is not.")
    ] = False,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            metavar="FILE|DIR",
            exists=True,
            help="What the new version must find: JSON Lines, or a folder in BEIR layout.",
        ),
    ] = None,
    golden_threshold: Annotated[
        float | None,
        typer.Option("--golden-threshold", min=0, max=1, help="Least score to pass."),
    ] = None,
    golden_max_drop: Annotated[
        float | None,
        typer.Option(
            "--golden-max-drop", min=0, max=1, help="How much less than the active version's."
        ),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Delete all if no file is left to index.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Index what is new or changed under the URIs, and delete what is gone from them."""
    plan = _plan(
        rebuild=rebuild,
        activate=activate,
        force=force,
        golden=golden,
        threshold=golden_threshold,
        max_drop=golden_max_drop,
    )
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
    if plan is not None and loaded.ingest.modified_since is not None:
        raise typer.BadParameter(
            "a new version holds only what is indexed now: leave out --modified-since "
            "(ingest.modified_since) with --rebuild"
        )
    show = choose_show(quiet=quiet or as_json or watch is not None)
    if watch is not None:
        _watch(loaded, uris, collection, every_s=watch, show=show, as_json=as_json)
        return

    async def work(ingestion: Ingestion, stop: asyncio.Event) -> IngestReport:
        return await ingestion.ingest(uris, collection, show=show, plan=plan, stop=stop)

    try:
        report = run_stoppable(loaded, work)
    except Stopped:
        raise stop_told(rebuild=rebuild) from None
    print_value(report.to_json() if as_json else told(report), as_json=as_json)
    if report.is_stopped:
        raise stop_told(rebuild=rebuild)
    if report.findings and not report.is_forced:
        raise typer.Exit(FAILED)
    if report.dead_letters:
        raise typer.Exit(WITH_DEAD_LETTERS)


def _plan(
    *,
    rebuild: bool,
    activate: bool,
    force: bool,
    golden: Path | None,
    threshold: float | None,
    max_drop: float | None,
) -> Rebuild | None:
    """What is to be built, with its golden queries read; None for an ordinary ingest."""
    belongs = {
        "--activate": (activate, rebuild, "--rebuild"),
        "--force": (force, rebuild and activate, "--rebuild --activate"),
        "--golden": (golden is not None, rebuild, "--rebuild"),
        "--golden-threshold": (threshold is not None, golden is not None, "--golden"),
        "--golden-max-drop": (max_drop is not None, golden is not None, "--golden"),
    }
    for flag, (is_given, is_right, owner) in belongs.items():
        if is_given and not is_right:
            raise typer.BadParameter(f"{flag} belongs to {owner}")
    if not rebuild:
        return None
    from common.golden import load_golden  # noqa: PLC0415 — imported when it is needed
    from ingestor.rebuilding import Rebuild  # noqa: PLC0415 — as above
    from ingestor.sending.collection_client import Exam  # noqa: PLC0415 — as above

    exam = None if golden is None else Exam(load_golden(golden), threshold, max_drop)
    return Rebuild(activate=activate, force=force, exam=exam)


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

    def tell(report: IngestReport) -> None:
        print_value(report.to_json() if as_json else told_in_a_line(report), as_json=as_json)

    async def work(ingestion: Ingestion, stop: asyncio.Event) -> None:
        await ingestion.watch(uris, collection, every_s=every_s, show=show, told=tell, stop=stop)

    with suppress(Stopped):
        run_stoppable(config, work)
