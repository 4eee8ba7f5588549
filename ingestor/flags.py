"""What the ingestor's commands share: their flags, their exit codes, how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

WITH_DEAD_LETTERS = 3

Target: TypeAlias = Annotated[
    str | None, typer.Option("--target", metavar="HOST:PORT", help="The index service.")
]
Tenant: TypeAlias = Annotated[str | None, typer.Option("--tenant", help="Whose collections.")]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings.", exists=True, dir_okay=False),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def print_value(value: dict[str, Any] | str, *, as_json: bool) -> None:
    """Print what a command tells: one JSON object, or text for people."""
    typer.echo(json.dumps(value) if as_json else value)
