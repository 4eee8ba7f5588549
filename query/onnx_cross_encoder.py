"""Runs a cross-encoder in this process, as far as time allows.

Threads take the texts in their order, so what is scored is always a beginning, and before each they
look at the clock. One call has all threads to itself and the others wait, within their budget: so
the measured rate holds, and a call that ends early leaves nothing behind but the pairs that run.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from query.token_rate import TokenRate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from query.pair_model import PairModel


class _Call:
    """One call's texts, its scores so far and whether more are wanted."""

    def __init__(self, query: str, texts: Sequence[str], until_s: float) -> None:
        self.query, self.texts, self.until_s = query, texts, until_s
        self.stopped = False
        self.scores = np.full(len(texts), np.nan, np.float32)
        self._question: list[int] | None = None
        self._next = 0
        self._lock = Lock()

    def question(self, model: PairModel) -> list[int]:
        """The query's tokens, made by the first thread that asks."""
        with self._lock:
            if self._question is None:
                self._question = model.question(self.query)
            return self._question

    def take(self) -> int | None:
        """The next text to score; None where none is left or wanted."""
        with self._lock:
            if self.stopped or self._next == len(self.texts):
                return None
            self._next += 1
            return self._next - 1

    def beginning(self) -> NDArray[np.float32]:
        """The scores before the first text that has none."""
        finite = np.isfinite(self.scores)
        return self.scores if finite.all() else self.scores[: int(np.argmin(finite))]


class OnnxCrossEncoder:
    """The cross-encoder on ONNX Runtime and the CPU.

    Args:
        model: scores a pair.
        threads: pairs scored at once; 0 is one for each core this process may use.
        clock: seconds, monotonic.
    """

    def __init__(
        self, model: PairModel, *, threads: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model = model
        self._clock = clock
        self._threads = threads or len(os.sched_getaffinity(0))
        self._executor = ThreadPoolExecutor(self._threads, "cross-encode")
        self._turn = asyncio.Lock()
        probe = model.full_pair()
        start_s = clock()
        model.score(probe)
        self._rate = TokenRate(clock() - start_s, len(probe.ids))

    async def score(
        self, query: str, texts: Sequence[str], *, budget_s: float
    ) -> NDArray[np.float32]:
        """Score the first texts: shape (m,)."""
        call = _Call(query, texts, self._clock() + budget_s)
        try:
            async with asyncio.timeout(budget_s):
                await self._turn.acquire()
        except TimeoutError:
            return call.beginning()
        loop = asyncio.get_running_loop()
        try:
            await asyncio.gather(
                *(
                    loop.run_in_executor(self._executor, self._work, call)
                    for _ in range(min(self._threads, len(texts)))
                )
            )
        finally:
            call.stopped = True
            self._turn.release()
        return call.beginning()

    async def aclose(self) -> None:
        """End the threads once their current pairs are done."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def _work(self, call: _Call) -> None:
        """Score texts, one after the other, as long as there are texts and time."""
        while (index := call.take()) is not None:
            pair = self._model.pair(call.question(self._model), call.texts[index])
            start_s = self._clock()
            if start_s + self._rate.expected_s(len(pair.ids)) > call.until_s:
                call.stopped = True
                if index == 0:
                    self._rate.refused()
                return
            score = self._model.score(pair)
            call.scores[index] = score
            self._rate.measured(self._clock() - start_s, len(pair.ids))
            # what follows a text without a score would not be used
            call.stopped |= not math.isfinite(score)
