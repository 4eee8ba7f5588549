"""The command line ``sluice``: its commands, its exit codes and how it tells of a failure.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done with dead letters; 130 interrupted. A failure is
one line on stderr that says what to do. Commands import what they need when they run, so that the
command line starts fast; nothing heavy may be imported here.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from client.commands import collections_app, diagnose, evaluate, models_app, probe, search
from client.plugins import MissingDependency, PluginGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 1
WRONG_USAGE = 2


class RootGroup(PluginGroup):
    """The root of the command line: turns what a command raised into one line and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  # as in PluginGroup
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            if ctx.params.get("debug") or _is_closed_pipe(error):
                raise
            message, code = _told(error)
            typer.echo(f"error: {message}", err=True)
            raise typer.Exit(code) from error


class ServeGroup(PluginGroup):
    """The services, plugged in by themselves."""

    prefix = "serve."


def _is_closed_pipe(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    from common.errors import InvalidArgument, SluiceError  # noqa: PLC0415  # brings gRPC in

    if isinstance(error, MissingDependency):
        return str(error), FAILED
    if isinstance(error, SluiceError):
        return _shown(error.message), WRONG_USAGE if isinstance(error, InvalidArgument) else FAILED
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return _shown(f"{named}{error.strerror}"), FAILED
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = ""
    if place is not None:
        where = f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
    return (
        f"unexpected {type(error).__name__}{where}; run `sluice --debug …` to see all of it",
        FAILED,
    )


def _shown(message: str) -> str:
    """A server's text or a file's name may hold anything; a wrong filter has lines of its own."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in message)


app = typer.Typer(
    cls=RootGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Turns a Hadoop data lake into something that answers questions."""
    del debug  # read by RootGroup


app.command("search")(search.search)
app.add_typer(collections_app.app, name="collections")
app.command("eval")(evaluate.evaluate)
app.add_typer(models_app.app, name="models")
app.command("doctor")(diagnose.doctor)
app.command("health")(probe.health)
app.add_typer(
    typer.Typer(cls=ServeGroup, no_args_is_help=True, help="Run one service."), name="serve"
)


@app.command("version")
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed_version  # noqa: PLC0415  # as above

    typer.echo(f"sluice {installed_version('sluice')}")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code unless the run ends the process itself."""
    command = get_command(app)
    command.main(args=None if args is None else list(args), prog_name="sluice")
    return 0
