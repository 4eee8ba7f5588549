import asyncio

import pytest

from ingestor.stopping import CalledOffError, pause, unless


async def test_work_that_ends_first_has_its_result():
    async def work():
        return 7

    assert await unless(asyncio.Event(), work()) == 7


async def test_an_event_calls_it_off_after_what_comes_first():
    event, begun = asyncio.Event(), asyncio.Event()
    seen = []

    async def work():
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    running = asyncio.create_task(unless(event, work(), first=lambda: seen.append("first")))
    await begun.wait()
    event.set()
    with pytest.raises(CalledOffError):
        await running
    assert seen == ["first", "cancelled"]


async def test_whoever_is_cancelled_cancels_the_work():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work():
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(unless(asyncio.Event(), work()))
    await begun.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert ended.is_set()


async def test_an_error_passes():
    async def work():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await unless(asyncio.Event(), work())


async def test_a_pause_ends_with_its_time_or_the_event():
    event = asyncio.Event()
    await pause(event, 0.001)
    event.set()
    async with asyncio.timeout(5):
        await pause(event, 3600)
