"""``sluice collections``: what there is, which version answers, and moving between versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import Config, Json, Target, Tenant

if TYPE_CHECKING:
    from client.client import SluiceClient
    from client.verification import Exam
    from client.versions import ActivePointer, Collection

FAILED = 1
MOST_AT_ONCE = 8

app = typer.Typer(
    no_args_is_help=True, help="Show, switch, check and delete collections and their versions."
)

Name = Annotated[str, typer.Argument(metavar="COLLECTION")]


@app.command("list")
def list_collections(
    *, target: Target = None, tenant: Tenant = None, config: Config = None, as_json: Json = False
) -> None:
    """List the collections, counted now, and the builds under way."""
    import asyncio  # noqa: PLC0415  # imported when the command runs

    from client import render_collections  # noqa: PLC0415  # as above
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.render import open_console  # noqa: PLC0415  # as above

    async def counted(client: SluiceClient) -> list[Collection]:
        free = asyncio.Semaphore(MOST_AT_ONCE)

        async def describe(name: str) -> Collection:
            async with free:
                return await client.describe(name)

        names = [collection.name for collection in await client.collections()]
        return await asyncio.gather(*map(describe, names))

    found = ask(connection(config, target, tenant), counted)
    if as_json:
        print_json({"collections": [collection.to_json() for collection in found]})
    else:
        open_console().print(render_collections.collection_list(found))


@app.command("show")
def show(
    collection: Name,
    *,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one collection, its versions and verdicts, and the build under way."""
    from client import render_collections  # noqa: PLC0415  # imported when the command runs
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.render import open_console  # noqa: PLC0415  # as above

    found = ask(connection(config, target, tenant), lambda client: client.describe(collection))
    if as_json:
        print_json(found.to_json())
    else:
        open_console().print(render_collections.collection_detail(found))


@app.command("activate")
def activate(
    collection: Name,
    version: Annotated[int, typer.Argument(min=1)],
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Although it fell short; its record keeps who forced it."),
    ] = False,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a version answer the queries; the one that did so is kept for rollback."""
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.versions import as_plain  # noqa: PLC0415  # as above
    from common.errors import FailedPrecondition  # noqa: PLC0415  # as above
    from common.requester import requester  # noqa: PLC0415  # as above

    async def swap(client: SluiceClient) -> tuple[ActivePointer, bool]:
        by = requester() if force else ""
        try:
            return await client.activate(collection, version, force=force, requested_by=by)
        except FailedPrecondition:
            await _tell_verdict(client, collection, version)
            raise

    pointer, changed = ask(connection(config, target, tenant), swap)
    if as_json:
        print_json({"active": as_plain(pointer), "changed": changed})
    elif changed:
        before = pointer.previous_version
        kept = f"; version {before} is kept for rollback" if before else ""
        typer.echo(f"Version {pointer.version} of {collection} is active now{kept}.")
    else:
        typer.echo(f"Version {pointer.version} of {collection} was active already: no-op.")


async def _tell_verdict(client: SluiceClient, collection: str, version: int) -> None:
    """Print where a version fell short, which an error's one line has no room for."""
    from client.passage import printable  # noqa: PLC0415  # as above
    from common.errors import SluiceError  # noqa: PLC0415  # as above

    try:
        versions = (await client.describe(collection)).versions
    except SluiceError:
        return  # what was refused is told all the same
    for found in versions:
        if found.number == version and found.state == "ready" and found.verdict:
            for finding in found.verdict.findings:
                typer.echo(f"- {printable(finding)}", err=True)


@app.command("rollback")
def rollback(
    collection: Name,
    *,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="Any version that was active and is kept.")
    ] = None,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let the version answer that did so before."""
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.versions import as_plain  # noqa: PLC0415  # as above

    settings = connection(config, target, tenant)
    pointer = ask(settings, lambda client: client.roll_back(collection, to_version=to or 0))
    if as_json:
        print_json({"active": as_plain(pointer)})
    else:
        typer.echo(f"Version {pointer.version} of {collection} is active again.")


@app.command("delete")
def delete(
    collection: Name,
    *,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Only this version of it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Delete a collection with all its versions, or one version."""
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.passage import printable  # noqa: PLC0415  # as above

    what = collection if version is None else f"version {version} of {collection}"
    if not yes and not as_json:
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    settings = connection(config, target, tenant)
    deleted = ask(settings, lambda client: client.delete(collection, version=version))
    if as_json:
        told = {"pending": deleted.pending, "used_by": list(deleted.used_by)}
        print_json({"deleted": collection, "version": version, **told})
    elif deleted.pending:
        users = "\n  ".join(map(printable, deleted.used_by))
        typer.echo(f"Deleted {what}. Its store goes when these have let go of it:\n  {users}")
    else:
        typer.echo(f"Deleted {what}.")


@app.command("verify")
def verify(
    collection: Name,
    *,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Another than the active one.")
    ] = None,
    expected_documents: Annotated[
        int | None, typer.Option("--expected-documents", min=0, help="How many it must hold.")
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            exists=True,
            help="Queries with what they must find: JSON Lines, or a folder in BEIR layout.",
        ),
    ] = None,
    golden_threshold: Annotated[
        float | None,
        typer.Option("--golden-threshold", min=0, max=1, help="Least score to pass; 0.9."),
    ] = None,
    golden_max_drop: Annotated[
        float | None,
        typer.Option(
            "--golden-max-drop", min=0, max=1, help="Most it may be below the active one; 0.02."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended, and look again.")
    ] = False,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Compare a version with itself, golden queries and manifests; exit code 1 if one is wrong."""
    import os  # noqa: PLC0415  # imported when the command runs

    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.inspection import inspect_version  # noqa: PLC0415  # as above
    from client.manifests import Manifests  # noqa: PLC0415  # as above
    from client.render import open_console  # noqa: PLC0415  # as above
    from client.render_verification import inspection  # noqa: PLC0415  # as above

    exam = _exam(golden, golden_threshold, golden_max_drop)
    settings = connection(config, target, tenant)
    # The manifests are compared with the server that is asked here.
    environ = {**os.environ, "SLUICE_CLIENT__TARGET": settings.target}
    result = ask(
        settings,
        lambda client: inspect_version(
            client,
            collection,
            tenant=settings.tenant,
            version=version or 0,
            expected_documents=expected_documents,
            golden=exam,
            manifests=Manifests.installed(config, environ),
            repair=repair,
        ),
    )
    if as_json:
        print_json(result.to_json())
    else:
        open_console().print(inspection(result, collection, repair=repair))
    if not result.all_right:
        raise typer.Exit(FAILED)


def _exam(golden: Path | None, threshold: float | None, max_drop: float | None) -> Exam | None:
    """The golden queries of the flags, read before anybody is asked."""
    from client.verification import Exam  # noqa: PLC0415  # as above
    from common.golden import load_golden  # noqa: PLC0415  # as above

    if golden is not None:
        return Exam(load_golden(golden), threshold, max_drop)
    if threshold is not None or max_drop is not None:
        raise typer.BadParameter("--golden-threshold and --golden-max-drop need --golden")
    return None
