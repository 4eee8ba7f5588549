"""``sluice collections``: what there is, which version answers, and moving between versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import Config, Json, Target, Tenant

if TYPE_CHECKING:
    from client.client import SluiceClient
    from client.versions import Collection

FAILED = 1
MOST_AT_ONCE = 8

app = typer.Typer(no_args_is_help=True, help="Show collections and switch their index versions.")

Name = Annotated[str, typer.Argument(metavar="COLLECTION")]


@app.command("list")
def list_collections(
    *, target: Target = None, tenant: Tenant = None, config: Config = None, as_json: Json = False
) -> None:
    """List the collections, counted now."""
    import asyncio  # noqa: PLC0415  # imported when the command runs

    from client import render  # noqa: PLC0415  # as above
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above

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
        render.open_console().print(render.collection_list(found))


@app.command("show")
def show(
    collection: Name,
    *,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one collection and its versions, counted now."""
    from client import render  # noqa: PLC0415  # imported when the command runs
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above

    found = ask(connection(config, target, tenant), lambda client: client.describe(collection))
    if as_json:
        print_json(found.to_json())
    else:
        render.open_console().print(render.collection_detail(found))


@app.command("activate")
def activate(
    collection: Name,
    version: Annotated[int, typer.Argument(min=1)],
    *,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a version answer the queries; the one that did so is kept for rollback."""
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.versions import to_json  # noqa: PLC0415  # as above

    settings = connection(config, target, tenant)
    pointer, changed = ask(settings, lambda client: client.activate(collection, version))
    if as_json:
        print_json({"active": to_json(pointer), "changed": changed})
    elif changed:
        typer.echo(f"Version {pointer.version} of {collection} is active now.")
    else:
        typer.echo(f"Version {pointer.version} of {collection} was active already.")


@app.command("rollback")
def rollback(
    collection: Name,
    *,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let the version answer that did so before."""
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.versions import to_json  # noqa: PLC0415  # as above

    settings = connection(config, target, tenant)
    pointer = ask(settings, lambda client: client.roll_back(collection))
    if as_json:
        print_json({"active": to_json(pointer)})
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

    what = collection if version is None else f"version {version} of {collection}"
    if not yes and not as_json:
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    settings = connection(config, target, tenant)
    ask(settings, lambda client: client.delete(collection, version=version))
    if as_json:
        print_json({"deleted": collection, "version": version})
    else:
        typer.echo(f"Deleted {what}.")


@app.command("verify")
def verify(
    collection: Name,
    *,
    version: Annotated[int, typer.Option("--version", min=0, help="0: the active version.")] = 0,
    expect: Annotated[
        int | None, typer.Option("--expect", min=0, help="Documents it must hold.")
    ] = None,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check that every document of a version is complete; exit code 1 if one is not."""
    from client import render  # noqa: PLC0415  # imported when the command runs
    from client.commands.session import ask, connection, print_json  # noqa: PLC0415  # as above
    from client.versions import to_json  # noqa: PLC0415  # as above

    result = ask(
        connection(config, target, tenant),
        lambda client: client.verify(collection, version=version, expected_documents=expect),
    )
    if as_json:
        print_json(to_json(result))
    else:
        render.open_console().print(render.verification(result))
    if not result.passed:
        raise typer.Exit(FAILED)
