"""A terminal of a test: what a person would see, as text."""

import io

from rich.console import Console


def shown(renderable, *, width=80, color=False):
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=color,
        markup=False,
        highlight=False,
        emoji=False,
        color_system="standard" if color else None,
    )
    console.print(renderable)
    return file.getvalue()


def lines(text):
    return [line.rstrip() for line in text.splitlines()]
