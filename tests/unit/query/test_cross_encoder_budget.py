"""As many texts as time allows, at the rate that was measured: on a real model and a clock of ours.

A token takes an eighth of a second on this clock, unless a test says that it takes longer.
"""

from __future__ import annotations

import asyncio
import threading
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.random_cross_encoder import write_tokenizer
from query.onnx_cross_encoder import OnnxCrossEncoder
from query.pair_model import Pair, PairModel
from query.token_rate import OUTLIER, RELIEF, WEIGHT, TokenRate
from tests.unit.query.cross_encoder_folders import QUERY, TEXTS, tokens_of, write_tiny, write_toy

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_S = 1 / 8
BOUND_S = 30.0


class TimedModel(PairModel):
    """A real model whose runs move a clock by what they take on it; `gate` holds them up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, file="", max_tokens=0)
        self.now_s = 1000.0
        self.slowness = 1.0
        self.runs = 0
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def clock(self) -> float:
        return self.now_s

    def score(self, pair: Pair) -> float:
        self.started.set()
        assert self.gate.wait(BOUND_S)
        self.runs += 1
        self.now_s += len(pair.ids) * TOKEN_S * self.slowness
        return super().score(pair)

    def times_s(self, texts: list[str]) -> list[float]:
        question = self.question(QUERY)
        return [len(self.pair(question, text).ids) * TOKEN_S for text in texts]

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.wait, BOUND_S)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("cross-encoder"))


def timed(folder: Path, *, threads: int = 1) -> tuple[TimedModel, OnnxCrossEncoder]:
    model = TimedModel(folder)
    encoder = OnnxCrossEncoder(model, threads=threads, clock=model.clock)
    model.runs = 0
    return model, encoder


@given(share=st.floats(0, 1.2))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_exactly_what_fits_is_scored(tiny: Path, share: float) -> None:
    model, encoder = timed(tiny)
    times_s = model.times_s(TEXTS)
    budget_s = share * sum(times_s)
    start_s = model.now_s

    async def run() -> int:
        scores = await encoder.score(QUERY, TEXTS, budget_s=budget_s)
        await encoder.aclose()
        return len(scores)

    scored = asyncio.run(run())
    assert scored == sum(start_s + end_s <= start_s + budget_s for end_s in accumulate(times_s))
    assert model.runs == scored


async def test_a_model_that_slows_down_stops_earlier_and_is_foreseen_next_time(tiny: Path) -> None:
    model, encoder = timed(tiny)
    texts = [TEXTS[0]] * 30
    (each_s,) = set(model.times_s(texts))
    budget_s = 12.5 * each_s
    assert len(await encoder.score(QUERY, texts, budget_s=budget_s)) == 12
    model.slowness = 3.0
    start_s = model.now_s
    first = len(await encoder.score(QUERY, texts, budget_s=budget_s))
    # over its time by no more than what the last text took longer than foreseen
    assert model.now_s - start_s <= budget_s + 2 * each_s
    second = len(await encoder.score(QUERY, texts, budget_s=budget_s))
    assert 12 > first >= second
    for _ in range(5):
        await encoder.score(QUERY, texts, budget_s=budget_s)
    start_s = model.now_s
    assert len(await encoder.score(QUERY, texts, budget_s=budget_s)) == 4
    assert model.now_s - start_s <= budget_s
    await encoder.aclose()


async def test_a_short_text_does_not_overtake_a_long_one_that_does_not_fit(tiny: Path) -> None:
    model, encoder = timed(tiny)
    texts = ["block", tokens_of("block", 300), "block"]
    short_s, _, _ = model.times_s(texts)
    assert len(await encoder.score(QUERY, texts, budget_s=5 * short_s)) == 1
    assert model.runs == 1
    await encoder.aclose()


async def test_a_text_that_does_not_fit_stops_every_thread(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoder = timed(tiny, threads=2)
    texts = [tokens_of("block", 300), *["block"] * 50]
    budget_s = 0.9 * model.times_s(texts)[0]
    model.started.clear()
    model.gate.clear()
    encode = model.pair

    def pair(question: list[int], text: str) -> Pair:
        if text == texts[0]:
            assert model.started.wait(BOUND_S)
        return encode(question, text)

    monkeypatch.setattr(model, "pair", pair)
    call = asyncio.create_task(encoder.score(QUERY, texts, budget_s=budget_s))
    await model.has_started()
    # one thread runs the second text; this is done by the other, once it refused the first
    await asyncio.get_running_loop().run_in_executor(encoder._executor, int)
    model.gate.set()
    assert (await call).shape == (0,)
    assert model.runs == 1
    await encoder.aclose()


@pytest.mark.parametrize("threads", [2, 3])
async def test_threads_share_the_texts_and_keep_the_order(tiny: Path, threads: int) -> None:
    model, encoder = timed(tiny, threads=threads)
    whole = await encoder.score(QUERY, TEXTS * 5, budget_s=1e9)
    budget_s = sum(model.times_s(TEXTS * 2))
    scores = await encoder.score(QUERY, TEXTS * 5, budget_s=budget_s)
    assert 0 < len(scores) < len(whole)
    np.testing.assert_array_equal(scores, whole[: len(scores)])
    await encoder.aclose()


async def test_a_call_that_waits_past_its_budget_gives_up_waiting(tiny: Path) -> None:
    model, encoder = timed(tiny)
    model.started.clear()
    model.gate.clear()
    first = asyncio.create_task(encoder.score(QUERY, TEXTS, budget_s=1e9))
    await model.has_started()
    waited = await encoder.score("other", TEXTS, budget_s=0.01)
    assert waited.shape == (0,)
    assert not first.done()
    model.gate.set()
    assert len(await first) == len(TEXTS)
    assert model.runs == len(TEXTS)
    await encoder.aclose()


async def test_waiting_counts_against_the_budget(tiny: Path) -> None:
    model, encoder = timed(tiny)
    times_s = model.times_s(TEXTS)
    model.started.clear()
    model.gate.clear()
    first = asyncio.create_task(encoder.score(QUERY, TEXTS, budget_s=1e9))
    await model.has_started()
    # by the event loop's clock it may wait long; by the model's, the first takes nearly all of it
    second = asyncio.create_task(
        encoder.score(QUERY, TEXTS, budget_s=sum(times_s) + times_s[0] + 0.5 * times_s[1])
    )
    await asyncio.sleep(0)  # it asks for its turn
    assert not second.done()
    model.gate.set()
    assert len(await first) == len(TEXTS)
    assert len(await second) == 1
    assert model.runs == len(TEXTS) + 1
    await encoder.aclose()


async def test_a_cancelled_call_leaves_nothing_but_the_running_pair(tiny: Path) -> None:
    model, encoder = timed(tiny)
    model.started.clear()
    model.gate.clear()
    running = asyncio.create_task(encoder.score(QUERY, TEXTS * 10, budget_s=1e9))
    await model.has_started()
    waiting = asyncio.create_task(encoder.score(QUERY, TEXTS * 10, budget_s=1e9))
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    model.gate.set()
    async with asyncio.timeout(BOUND_S):
        assert len(await encoder.score(QUERY, TEXTS, budget_s=1e9)) == len(TEXTS)
    assert model.runs == 1 + len(TEXTS)
    await encoder.aclose()


async def test_a_score_that_is_no_number_ends_what_is_scored(tmp_path: Path) -> None:
    # log(512.5 - n) is a number up to the length it is probed with, and never one beyond
    folder = write_toy(tmp_path / "toy", [("Log", 512.5)])
    model = TimedModel(folder)
    encoder = OnnxCrossEncoder(model, threads=1, clock=model.clock)
    model.runs, model.max_tokens = 0, 600
    short, long = tokens_of("a", 5), tokens_of("a", 590)
    scores = await encoder.score("a", [short, short, long, short], budget_s=1e9)
    assert len(scores) == 2
    assert model.runs == 3
    assert (await encoder.score("a", [long, short], budget_s=1e9)).shape == (0,)
    await encoder.aclose()


async def test_a_text_that_the_model_fails_on_ends_what_is_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tiny(tmp_path / "tiny", vocabulary=1400)
    write_tokenizer(folder / "tokenizer.json", 1460)  # the word table lacks the last, "zz" is one
    model, encoder = timed(folder)
    scores = await encoder.score("a", ["block", "zz secret", "block"], budget_s=1e9)
    assert len(scores) == 1
    assert model.runs == 2
    assert "failed on a pair of" in caplog.text
    assert "secret" not in caplog.text
    await encoder.aclose()


async def test_an_estimate_that_lets_nothing_run_falls_until_something_does(tiny: Path) -> None:
    model, encoder = timed(tiny)
    (each_s,) = model.times_s(TEXTS[:1])
    model.slowness = 40.0
    await encoder.score(QUERY, TEXTS[:1] * 30, budget_s=1e9)
    model.slowness = 1.0
    model.runs = 0
    budget_s = 2 * each_s
    calls = 0
    while not len(await encoder.score(QUERY, TEXTS[:1], budget_s=budget_s)):
        calls += 1
        assert calls < 40
    assert calls > 1
    await encoder.aclose()


async def test_what_never_fitted_is_never_tried(tiny: Path) -> None:
    model, encoder = timed(tiny)
    (each_s,) = model.times_s(TEXTS[:1])
    for _ in range(50):
        assert not len(await encoder.score(QUERY, TEXTS[:1], budget_s=0.99 * each_s))
    assert model.runs == 0
    await encoder.aclose()


def test_the_rate_follows_what_is_measured() -> None:
    rate = TokenRate(2.0, 100)
    assert rate.expected_s(50) == pytest.approx(1.0)
    rate.measured(4.0, 100)
    assert rate.expected_s(100) == pytest.approx(2.0 + WEIGHT * 2.0)
    for _ in range(60):
        rate.measured(4.0, 100)
    assert rate.expected_s(100) == pytest.approx(4.0, rel=1e-4)


def test_one_run_that_hung_counts_a_few_times_and_no_more() -> None:
    rate = TokenRate(1.0, 100)
    rate.measured(3600.0, 100)
    assert rate.expected_s(100) == pytest.approx(1 + WEIGHT * (OUTLIER - 1))


def test_refusals_lower_the_estimate_to_the_fastest_run() -> None:
    rate = TokenRate(2.0, 100)
    rate.measured(1.0, 100)
    before_s = rate.expected_s(100)
    rate.refused()
    assert rate.expected_s(100) == pytest.approx(RELIEF * before_s)
    for _ in range(20):
        rate.refused()
    assert rate.expected_s(100) == pytest.approx(1.0)
