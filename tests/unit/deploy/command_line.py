"""Reads a command line that a manifest holds with the parser of `sluice` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.main import get_command

from client import cli

if TYPE_CHECKING:
    from collections.abc import Sequence

# Where manifests mount the settings; a file of that name need not be on this machine.
MOUNTED = "/etc/sluice/sluice.yaml"


def parsed(arguments: Sequence[str]) -> Any:
    """The context of the command, with its parameters; nothing is run.

    Raises:
        typer.TyperException: there is no such command or option.
    """
    rest = [__file__ if argument == MOUNTED else argument for argument in arguments]
    command: Any = get_command(cli.app)
    context: Any = None
    while True:
        context = command.make_context(command.name or "sluice", rest, parent=context)
        if not hasattr(command, "get_command"):
            return context
        rest = context._protected_args + context.args
        command = command.get_command(context, rest.pop(0))
        assert command is not None, arguments
