"""``sluice eval``: how well Sluice ranks a judged collection, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import Config, Json, Target, Tenant  # noqa: TC001  # typer reads them

if TYPE_CHECKING:
    from client.client import SluiceClient
    from client.evaluating.figures import Evaluation

# Names of ``client.evaluating.asking.MODES``, which takes long to import.
_MODES = ("dense", "bm25", "fused", "reranked")


def evaluate(
    dataset_dir: Annotated[
        Path,
        typer.Argument(
            help="Folder with corpus.jsonl, queries.jsonl and qrels/, as BEIR lays them out.",
            exists=True,
            file_okay=False,
        ),
    ],
    *,
    modes: Annotated[
        str,
        typer.Option(
            "--modes",
            help="Of dense, bm25, fused and reranked, separated by commas; the others are"
            " compared with the first.",
        ),
    ] = "dense,fused",
    split: Annotated[
        str, typer.Option("--split", help="Whose judgements: qrels/SPLIT.tsv.")
    ] = "test",
    candidates: Annotated[
        int,
        typer.Option(
            "--candidates",
            min=100,
            max=1000,
            help="Passages ranked for each query; bm25 takes as many as it may, 2,000.",
        ),
    ] = 200,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=64, help="Queries under way at once.")
    ] = 1,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait, a minute at most, until the server has counted the corpus's words.",
        ),
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Write a page with plots, for people."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write what each query got, as JSON lines, to check."
        ),
    ] = None,
    target: Target = None,
    tenant: Tenant = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Measure ranking and speed on a judged collection.

    Without --target it starts a server of its own and removes its data afterwards.
    """
    import asyncio  # noqa: PLC0415  # imported when the command runs
    import json  # noqa: PLC0415  # as above
    import os  # noqa: PLC0415  # as above
    import tempfile  # noqa: PLC0415  # as above

    from client.commands.session import (  # noqa: PLC0415  # as above
        ask,
        connection,
        print_json,
        session,
    )
    from client.evaluating.asking import Plan, run_lines  # noqa: PLC0415  # as above
    from client.evaluating.judged_set import read_judged_set  # noqa: PLC0415  # as above
    from client.evaluating.measuring import measure  # noqa: PLC0415  # as above
    from client.evaluating.page import page  # noqa: PLC0415  # as above
    from client.evaluating.table import table  # noqa: PLC0415  # as above
    from client.local_server import local_server  # noqa: PLC0415  # as above
    from client.progress import progress_bars  # noqa: PLC0415  # as above
    from client.render import open_console  # noqa: PLC0415  # as above
    from client.settings import Connection  # noqa: PLC0415  # as above
    from common.errors import InvalidArgument  # noqa: PLC0415  # as above

    for option, file in (("--report", report), ("--out", out)):
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise InvalidArgument(
                f"{file} cannot be written; name a file in a folder", field=option
            )
    plan = Plan(_modes(modes), candidates, concurrency)
    judged = read_judged_set(dataset_dir, split)

    async def work(client: SluiceClient) -> Evaluation:
        with progress_bars(open_console(stderr=True)) as told:
            return await measure(client, judged, plan, told, wait=wait, own=not target)

    async def alone(folder: Path) -> Evaluation:
        async with local_server(folder, environ=os.environ, config=config) as address:
            return await session(Connection(target=address), work)

    if target:
        found = ask(connection(config, target, tenant), work)
    else:
        with tempfile.TemporaryDirectory(prefix="sluice-eval-") as folder:
            found = asyncio.run(alone(Path(folder)))
    if out is not None:
        lines = (json.dumps(line) for line in run_lines(judged, found.asked))
        out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if report is not None:
        report.write_text(page(found), encoding="utf-8")
    if as_json:
        print_json(found.to_json())
    else:
        open_console().print(table(found))


def _modes(text: str) -> tuple[str, ...]:
    """The modes named, each once; ``lexical`` is an older name of ``bm25``."""
    named = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(named) <= {*_MODES, "lexical"} or {"bm25", "lexical"} <= set(named):
        raise typer.BadParameter(f"use one or more of {', '.join(_MODES)}, separated by commas")
    return named
