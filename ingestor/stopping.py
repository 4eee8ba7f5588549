"""Waiting that can be called off."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class CalledOffError(Exception):
    """What was waited for was given up."""


async def unless(
    event: asyncio.Event, work: Coroutine[Any, Any, T], *, first: Callable[[], None] | None = None
) -> T:
    """Do the work unless the event is set before its end.

    Args:
        event: calls it off.
        work: what to do.
        first: called before the work is cancelled.

    Raises:
        CalledOffError: it was; the work is cancelled, and has ended.
    """
    working = asyncio.ensure_future(work)
    calling_off = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((working, calling_off), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if first is not None:
            first()
        raise CalledOffError
    finally:
        calling_off.cancel()
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError, Exception):  # it is called off, however it ends
                await working


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the event is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
