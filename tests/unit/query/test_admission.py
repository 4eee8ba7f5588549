"""Searches run within one bound, wait within another, and are refused beyond both."""

import asyncio

import pytest

from common.errors import Overloaded
from query.admission import Admission
from query.settings import QuerySettings


async def test_beyond_both_bounds_a_search_is_refused_with_a_delay():
    admission = Admission(running=1, waiting=1)
    assert admission.refusal() is None
    turn, begun = asyncio.Event(), asyncio.Event()
    entered: list[str] = []

    async def search(name: str) -> None:
        async with admission.slot():
            entered.append(name)
            begun.set()
            await turn.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(search("first"))
        second = tasks.create_task(search("second"))
        await begun.wait()
        with pytest.raises(Overloaded) as refused:
            await search("third")
        assert refused.value.retry_after_ms
        known = admission.refusal()
        assert known is not None
        assert known.retry_after_ms == refused.value.retry_after_ms
        assert entered == ["first"]
        turn.set()
        await second
    assert entered == ["first", "second"]
    assert admission.refusal() is None


async def test_who_stops_waiting_makes_room():
    admission = Admission(running=1, waiting=1)
    async with admission.slot():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001), admission.slot():
                    raise AssertionError
    async with asyncio.timeout(5), admission.slot():
        pass


def test_by_default_searches_are_refused_with_a_delay_before_the_server_refuses_without_one():
    settings = QuerySettings()
    assert settings.max_searches + settings.max_waiting < settings.server.max_concurrent_rpcs
