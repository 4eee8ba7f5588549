"""Commands of other parts in the command line, found by entry points and loaded when invoked.

The client imports no service. A part names its commands in the entry-point group
``sluice.commands``: ``NAME`` or ``GROUP.NAME`` for a sub-command, each a function or a typer app.
Where a part's dependencies are not installed, its command stays in the list and says what to
install.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from typer.core import TyperCommand

ENTRY_POINT_GROUP = "sluice.commands"
# Extras of the distribution that carry what a package imports.
_EXTRAS = {"ingestor": "ingestor", "indexer": "indexer", "query": "query", "common": "embedding"}


class MissingDependency(Exception):
    """A part of Sluice is there, but not what it needs; the message says what to install."""


@cache
def installed() -> dict[str, EntryPoint]:
    """The plugged-in commands by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def missing(package: str, error: ModuleNotFoundError) -> MissingDependency:
    """What to install so that ``package`` finds the module it did not find."""
    extra = _EXTRAS.get(package.partition(".")[0], "all")
    return MissingDependency(
        f"this needs {error.name}, which is not installed; install sluice[{extra}]"
    )


class PluginGroup(TyperGroup):
    """A group of commands, its own and those plugged in under ``prefix``."""

    prefix: ClassVar[str] = ""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own context class is public
        """Names of the group's own commands, then of the plugged-in ones."""
        own = super().list_commands(ctx)
        names = (name.removeprefix(self.prefix) for name in installed() if self._is_mine(name))
        return [*own, *sorted(set(names) - set(own))]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ANN401  # as above; typer names no public type
        """The command, loaded now if it is plugged in; None if there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        point = installed().get(self.prefix + cmd_name)
        return None if point is None else _load(point, cmd_name)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  # as above
        """Run a sub-command; a plug-in that finds a module missing says what to install."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            point = installed().get(f"{self.prefix}{ctx.invoked_subcommand}")
            if point is None:
                raise
            raise missing(point.module, error) from error

    def _is_mine(self, name: str) -> bool:
        return name.startswith(self.prefix) and "." not in name.removeprefix(self.prefix)


def _load(point: EntryPoint, name: str) -> TyperCommand | TyperGroup:
    try:
        loaded = point.load()
    except ModuleNotFoundError as error:
        return _stand_in(name, missing(point.module, error))
    app = loaded
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(loaded)
    command: TyperCommand | TyperGroup = get_command(app)  # type: ignore[assignment]  # typer says no more than its base class
    command.name = name
    return command


def _stand_in(name: str, error: MissingDependency) -> TyperCommand | TyperGroup:
    """A command that takes any arguments and says what to install."""
    app = typer.Typer(add_completion=False)
    settings = {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }

    @app.command(name, help=f"Not installed: {error}.", context_settings=settings)
    def stand_in(_: typer.Context) -> None:
        raise error

    return get_command(app)  # type: ignore[return-value]  # as in _load
