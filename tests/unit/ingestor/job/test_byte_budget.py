import asyncio

import pytest

from ingestor.job.byte_budget import ByteBudget


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_first_is_served_first():
    budget = ByteBudget(10)
    first = await budget.take(6)
    large = asyncio.create_task(budget.take(8))
    await settle()
    small = asyncio.create_task(budget.take(1))
    await settle()
    assert not large.done()
    assert not small.done()
    assert budget.held == 6
    budget.give_back(first)
    await settle()
    assert large.done()
    assert small.done()
    assert budget.held == 9


async def test_more_than_all_travels_alone():
    budget = ByteBudget(10)
    lease = await budget.take(1000)
    assert budget.held == 10
    other = asyncio.create_task(budget.take(1))
    await settle()
    assert not other.done()
    budget.give_back(lease)
    await other
    assert budget.held == 1


async def test_resizing_never_waits_and_frees_what_is_not_needed():
    budget = ByteBudget(10)
    lease = await budget.take(10)
    waiting = asyncio.create_task(budget.take(4))
    await settle()
    budget.resize(lease, 25)
    await settle()
    assert not waiting.done()
    budget.resize(lease, 6)
    await waiting
    assert budget.held == 10


@pytest.mark.parametrize("granted", [False, True])
async def test_who_gives_up_holds_nothing(granted):
    budget = ByteBudget(10)
    lease = await budget.take(10)
    waiting = asyncio.create_task(budget.take(7))
    behind = asyncio.create_task(budget.take(3))
    await settle()
    if granted:
        budget.give_back(lease)
    waiting.cancel()
    if not granted:
        budget.give_back(lease)
    await asyncio.gather(waiting, return_exceptions=True)
    await behind
    assert waiting.cancelled()
    assert budget.held == 3


async def test_a_closed_budget_holds_nothing():
    budget = ByteBudget(10)
    await budget.take(7)
    budget.close()
    assert budget.held == 0
