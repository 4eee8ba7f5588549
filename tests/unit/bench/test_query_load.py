"""What the clients of the query benchmark count is what happened."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from bench.query_load import Load, closed_loop, open_loop, percentiles
from common.errors import Overloaded, Unavailable


def numbers():
    return (str(number) for number in count())


async def test_so_many_clients_ask_at_once_and_no_more():
    load, running, most = Load(), 0, 0

    async def ask(_question):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await closed_loop(load, ask, numbers(), clients=3, seconds=0.05)
    figures = load.figures()
    assert most == 3
    assert figures["rate"] == pytest.approx(figures["answers"] / load.lasted_s, abs=0.1)
    assert load.lasted_s >= 0.05


async def test_an_open_loop_does_not_wait_for_answers():
    load, free = Load(), asyncio.Event()
    started = []

    async def ask(question):
        started.append(question)
        if len(started) == 20:
            free.set()
        await free.wait()

    async with asyncio.timeout(10):
        await open_loop(load, ask, numbers(), rate=1_000, seconds=0.02)
    assert started == [str(number) for number in range(20)]
    assert load.figures()["answers"] == 20


async def test_refusals_are_told_from_other_failures():
    load = Load()
    ends = iter([None, Overloaded("full", retry_after_ms=1), Unavailable("away"), None])

    async def ask(_question):
        if (end := next(ends)) is not None:
            raise end

    for _ in range(4):
        await load.ask(ask, "q")
    load.lasted_s = 1.0
    assert (load.refused, load.failed) == (1, {"Unavailable: away": 1})
    assert (load.figures()["errors"], load.figures()["rate"]) == (2, 2.0)


async def test_a_fault_of_the_benchmark_is_no_failure_of_a_contestant():
    async def ask(_question):
        raise KeyError

    with pytest.raises(KeyError):
        await Load().ask(ask, "q")


def test_figures_of_nothing_are_refused():
    with pytest.raises(RuntimeError, match="no answer"):
        Load().figures()


def test_percentiles():
    assert percentiles(range(101)) == (50.0, 99.0)
