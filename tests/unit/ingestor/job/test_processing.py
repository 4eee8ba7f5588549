import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ingestor.job import processing


@pytest.mark.parametrize(
    ("readers", "workers", "most"), [(8, 2, 1), (8, 4, 3), (4, 64, 2), (1, 64, 1)]
)
async def test_containers_in_hand_leave_a_parser_and_half_the_readers(
    monkeypatch, readers, workers, most
):
    # One that waits for a parser holds bytes that those with a parser may wait for.
    in_hand = 0
    reached = asyncio.Event()
    go = asyncio.Event()

    async def read_container(_candidate, _means):
        nonlocal in_hand
        in_hand += 1
        if in_hand >= most:
            reached.set()
        await go.wait()

    monkeypatch.setattr(processing, "read_container", read_container)
    means: Any = SimpleNamespace(
        settings=SimpleNamespace(
            max_files_listed_ahead=100,
            readers=readers,
            extraction=SimpleNamespace(workers=workers),
        ),
        stop=asyncio.Event(),
        outcomes=SimpleNamespace(is_deletion_due=False),
    )
    containers = processing.Processing(means)
    candidate: Any = SimpleNamespace(plan=SimpleNamespace(is_container=True))
    for _ in range(20):
        await containers.take(candidate)
    async with asyncio.timeout(10):
        running = asyncio.create_task(containers.run())
        await reached.wait()
        for _ in range(readers + workers):  # every reader had its turn
            await asyncio.sleep(0)
        assert in_hand == most
        go.set()
        await containers.close()
        await running
    assert in_hand == 20
