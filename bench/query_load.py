"""Clients that ask: so many without pause, or at a rate that does not wait for answers.

Nothing here knows what is asked or how; whoever asks raises what went wrong.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import grpc
import httpx
import numpy as np

from common.errors import Overloaded, SluiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    Ask: TypeAlias = "Callable[[str], Awaitable[None]]"

# Characters of an error that tell it from others.
MAX_TOLD = 120
# What a call may end with; anything else is a fault of the benchmark.
FAILURES = (SluiceError, grpc.aio.AioRpcError, httpx.HTTPError)


@dataclass(slots=True)
class Load:
    """What became of the questions of one contestant.

    Attributes:
        seconds: how long each answered one took.
        lasted_s: time in which they were answered.
        refused: how many were refused for too much load.
        failed: what others ended with, as their beginnings say.
    """

    seconds: array[float] = field(default_factory=lambda: array("d"))
    lasted_s: float = 0.0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    async def ask(self, ask: Ask, question: str) -> None:
        """Ask once and note how it ended."""
        began = time.perf_counter()
        try:
            await ask(question)
        except Overloaded:
            self.refused += 1
        except FAILURES as error:
            self.failed[f"{type(error).__name__}: {error}"[:MAX_TOLD]] += 1
        else:
            self.seconds.append(time.perf_counter() - began)

    def figures(self) -> dict[str, float]:
        """Answers a second, percentiles of their latency, and what was not answered.

        Raises:
            RuntimeError: nothing was answered.
        """
        if not self.seconds:
            raise RuntimeError(f"no answer; {self.refused} refused, failed: {dict(self.failed)}")
        p50, p99 = percentiles(second * 1e3 for second in self.seconds)
        return {
            "rate": round(len(self.seconds) / self.lasted_s, 1),
            "p50_ms": p50,
            "p99_ms": p99,
            "errors": self.failed.total() + self.refused,
            "answers": len(self.seconds),
        }


async def closed_loop(
    load: Load, ask: Ask, questions: Iterator[str], *, clients: int, seconds: float
) -> None:
    """Let so many clients ask one question after another."""
    began = time.perf_counter()
    until = began + seconds

    async def client() -> None:
        while time.perf_counter() < until:
            await load.ask(ask, next(questions))

    await asyncio.gather(*(client() for _ in range(clients)))
    load.lasted_s += time.perf_counter() - began


async def open_loop(
    load: Load, ask: Ask, questions: Iterator[str], *, rate: float, seconds: float
) -> float:
    """Ask at a rate, whether answers come or not; all calls have ended when it returns.

    Returns:
        The rate that was really asked at.
    """
    began, number = time.perf_counter(), round(rate * seconds)
    async with asyncio.TaskGroup() as asking:
        for sent in range(number):
            # Behind its time it asks at once, so that lateness does not add up.
            await asyncio.sleep(max(0.0, began + sent / rate - time.perf_counter()))
            asking.create_task(load.ask(ask, next(questions)))
        sending_s = time.perf_counter() - began
    load.lasted_s += time.perf_counter() - began
    return number / sending_s


def percentiles(values: Iterable[float]) -> tuple[float, float]:
    """The 50th and the 99th, to the thousandth."""
    p50, p99 = np.percentile(list(values), (50, 99))
    return round(float(p50), 3), round(float(p99), 3)
