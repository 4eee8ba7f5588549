"""``sluice eval``: how well Sluice ranks a judged collection, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import Config, Json, Target, Tenant  # noqa: TC001  # typer reads them

if TYPE_CHECKING:
    from client.answers import RerankMode
    from client.client import SluiceClient
    from client.evaluation import Progress
    from client.judged import JudgedSet

MODES: tuple[RerankMode, ...] = ("dense", "fused", "lexical")


def evaluate(
    dataset_dir: Annotated[
        Path, typer.Argument(help="Folder in BEIR layout.", exists=True, file_okay=False)
    ],
    *,
    modes: Annotated[
        str, typer.Option("--modes", help="Of dense, fused and lexical, separated by commas.")
    ] = "dense,fused",
    candidates: Annotated[
        int,
        typer.Option("--candidates", min=100, max=1000, help="Passages ranked for each query."),
    ] = 200,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Measure ranking and speed on a judged collection.

    Without --target it starts a server of its own and removes its data afterwards.
    """
    import asyncio  # noqa: PLC0415  # imported when the command runs
    import os  # noqa: PLC0415  # as above
    import tempfile  # noqa: PLC0415  # as above

    from client import render  # noqa: PLC0415  # as above
    from client.commands.session import (  # noqa: PLC0415  # as above
        ask,
        connection,
        print_json,
        session,
    )
    from client.judged import read_judged_set  # noqa: PLC0415  # as above
    from client.local_server import local_server  # noqa: PLC0415  # as above
    from client.progress import progress_bars  # noqa: PLC0415  # as above
    from client.settings import Connection  # noqa: PLC0415  # as above

    chosen = _modes(modes)
    judged = read_judged_set(dataset_dir)
    console = render.open_console(stderr=True)

    async def work(client: SluiceClient) -> dict[str, dict[str, float]]:
        with progress_bars(console) as told:
            return await _measure(client, judged, chosen, candidates, told)

    async def alone(folder: Path) -> dict[str, dict[str, float]]:
        async with local_server(folder, environ=os.environ, config=config) as address:
            return await session(Connection(target=address), work)

    if target:
        figures = ask(connection(config, target, tenant), work)
    else:
        with tempfile.TemporaryDirectory(prefix="sluice-eval-") as folder:
            figures = asyncio.run(alone(Path(folder)))
    if as_json:
        print_json({"dataset": judged.name, "queries": len(judged.queries), "modes": figures})
    else:
        typer.echo(f"{judged.name}: {len(judged.queries)} queries")
        render.open_console().print(render.measured(figures))


async def _measure(
    client: SluiceClient,
    judged: JudgedSet,
    modes: tuple[RerankMode, ...],
    candidates: int,
    told: Progress,
) -> dict[str, dict[str, float]]:
    from client.evaluation import measure, write_corpus  # noqa: PLC0415  # as above

    collection = await write_corpus(client, judged, told)
    figures: dict[str, dict[str, float]] = {}
    for mode in modes:
        found = await measure(client, judged, collection, mode, depth=candidates, progress=told)
        figures[mode] = found.to_json()
    return figures


def _modes(text: str) -> tuple[RerankMode, ...]:
    named = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    known = tuple(mode for mode in MODES if mode in named)
    if len(known) != len(named):
        raise typer.BadParameter(f"use one or more of {', '.join(MODES)}, separated by commas")
    return tuple(sorted(known, key=named.index))
