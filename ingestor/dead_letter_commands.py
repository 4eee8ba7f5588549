"""``sluice dead-letters``: list, show, retry or drop what could not be indexed.

Only typer is imported here, the rest when a command runs. Exit codes and ``--json`` as those of
``sluice ingest``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ingestor.flags import WITH_DEAD_LETTERS, Config, Json, Quiet, Target, Tenant, print_value
from ingestor.session import Stopped, choose_show, load_config, run, run_stoppable, stop_told

if TYPE_CHECKING:
    import asyncio

    from ingestor.ingestion import Ingestion
    from ingestor.report import IngestReport
    from ingestor.settings import IngestorConfig
    from ingestor.state.dead_letters import DeadLetter

Letters: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[URI]...", help="Only these; all without.")
]
OfCollection: TypeAlias = Annotated[
    str | None, typer.Option("--collection", help="Only letters of this collection.")
]

dead_letters = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show, retry or drop what could not be indexed.",
)


@dead_letters.command("list")
def list_letters(
    *,
    collection: OfCollection = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the dead letters, one a line: cause, attempts, URI."""
    letters = _letters(load_config(config, None, tenant), collection, None)
    if as_json:
        print_value({"dead_letters": [letter.to_json() for letter in letters]}, as_json=True)
        return
    for letter in letters:
        aside = ", set aside" if letter.is_set_aside else ""
        typer.echo(f"{letter.cause}\t{letter.attempts}{aside}\t{letter.uri}")
    typer.echo(f"{len(letters):,} dead letters", err=True)


@dead_letters.command("show")
def show_letter(
    uri: Annotated[str, typer.Argument(metavar="URI", help="As the list shows it.")],
    *,
    collection: OfCollection = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of one dead letter."""
    letters = _letters(load_config(config, None, tenant), collection, [uri])
    if as_json:
        print_value({"dead_letters": [letter.to_json() for letter in letters]}, as_json=True)
        return
    for letter in letters:
        for name, value in letter.to_json().items():
            typer.echo(f"{name}: {value}")


@dead_letters.command("retry")
def retry_letters(
    uris: Letters = None,
    *,
    collection: OfCollection = None,
    tenant: Tenant = None,
    target: Target = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try these files again and nothing else, however often they failed."""
    loaded = load_config(config, target, tenant)

    async def work(ingestion: Ingestion, stop: asyncio.Event) -> list[IngestReport]:
        letters = _chosen(await ingestion.dead_letters.letters(collection), uris)
        return await ingestion.retry(letters, choose_show(quiet=quiet or as_json), stop)

    try:
        reports = run_stoppable(loaded, work)
    except Stopped:
        raise stop_told() from None
    failed = sum(report.dead_letters for report in reports)
    tried = sum(root.listed for report in reports for root in report.roots)
    told = f"{tried:,} tried again, {failed:,} failed again"
    value = {"tried": tried, "dead_letters": failed, "jobs": [r.to_json() for r in reports]}
    print_value(value if as_json else told, as_json=as_json)
    if any(report.is_stopped for report in reports):
        raise stop_told()
    if failed:
        raise typer.Exit(WITH_DEAD_LETTERS)


@dead_letters.command("drop")
def drop_letters(
    uris: Letters = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    collection: OfCollection = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Forget letters: their files are left alone until they change."""
    if not uris and not every:
        raise typer.BadParameter("give URIs, or --all")

    async def work(ingestion: Ingestion) -> int:
        letters = _chosen(await ingestion.dead_letters.letters(collection), uris)
        return await ingestion.drop(letters)

    dropped = run(load_config(config, None, tenant), work)
    print_value({"dropped": dropped} if as_json else f"{dropped:,} dropped", as_json=as_json)


def _letters(
    config: IngestorConfig, collection: str | None, uris: list[str] | None
) -> list[DeadLetter]:
    async def work(ingestion: Ingestion) -> list[DeadLetter]:
        return _chosen(await ingestion.dead_letters.letters(collection), uris)

    return run(config, work)


def _chosen(letters: list[DeadLetter], uris: list[str] | None) -> list[DeadLetter]:
    """The letters of these URIs; NotFound if one has none."""
    if not uris:
        return letters
    from common.errors import NotFound  # noqa: PLC0415 — imported when a command runs

    missing = set(uris) - {letter.uri for letter in letters}
    if missing:
        raise NotFound(f"no dead letter of {min(missing)}; see `sluice dead-letters list`")
    return [letter for letter in letters if letter.uri in uris]
