"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Target: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="Server to ask, or all that etcd knows: etcd:///sluice/query.",
    ),
]
Tenant: TypeAlias = Annotated[str | None, typer.Option("--tenant", help="Whose collections.")]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings.", exists=True, dir_okay=False),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
