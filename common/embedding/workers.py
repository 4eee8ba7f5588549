"""Bounded concurrency over a finite amount of work.

Each worker takes the next piece when it is done with one, so no more pieces are under way, or
waiting in an executor, than there are workers. It must never hide or wrap a failure.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

_Piece = TypeVar("_Piece")


async def work_through(
    pieces: Iterable[_Piece], work: Callable[[_Piece], Awaitable[None]], *, workers: int
) -> None:
    """Work on every piece, at most `workers` at once; the first failure ends it and is raised."""
    remaining = iter(pieces)

    async def take() -> None:
        for piece in remaining:
            await work(piece)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(take())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
