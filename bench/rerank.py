"""Scoring 200 candidates of 1 KB beside its peers: latency and CPU time of a query, in one run.

All arms score the same candidates for the same questions; they take turns in an order that is
drawn anew every round, so that none has the machine's better minutes. A turn of a fast arm is a few
calls with different questions; the first of them, which finds the processor's caches full of the
other arms' data, is told apart too. The candidates of a question are the passages that hold most of
its words, which is the most work for whatever looks for words.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import tempfile
import time
from array import array
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bm25s
import numpy as np
from tokenizers import Tokenizer

from bench.passages import read_passages, turns
from bench.random_cross_encoder import POSITIONS, write_cross_encoder
from bench.rerank_arms import Question, cross_encoder_arm, fast_arms, python_arms, whole
from common.embedding import default_models_dir
from query.cross_encoder import CrossEncoderSettings, open_cross_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.passages import Passage
    from bench.rerank_arms import Arm
    from query.cross_encoder import CrossEncoder

SEED = 20_251_104
CANDIDATES, FEWER = 200, 50
BYTES = 1_024
PASSAGES, QUICK_PASSAGES = 4_000, 1_000
QUESTIONS, QUICK_QUESTIONS = 64, 16
ROUNDS, QUICK_ROUNDS = 300, 100
# Calls of a cross-encoder in a run, and with all candidates.
ENCODED, QUICK_ENCODED, ENCODED_ALL = 12, 3, 5
MINI_LM_L6 = {
    "layers": 6,
    "hidden": 384,
    "heads": 12,
    "intermediate": 1536,
    "vocabulary": 30_522,
}
BASE = "zig_cached"


class Timings:
    """What the calls of one arm took, in nanoseconds of the clock and of all threads' CPU time."""

    def __init__(self) -> None:
        self._wall = array("q")
        self._cpu = array("q")
        self._turns = array("q")

    @property
    def calls(self) -> int:
        """How many were timed."""
        return len(self._wall)

    def turn(self, calls: Sequence[Callable[[], object]]) -> None:
        """Call each of them once."""
        self._turns.append(self.calls)
        for call in calls:
            self._time(call)

    def _time(self, call: Callable[[], object]) -> None:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        call()
        self._wall.append(time.perf_counter_ns() - wall)
        self._cpu.append(time.process_time_ns() - cpu)

    def figures(self) -> dict[str, float]:
        """Percentiles of the latency and the mean CPU time of a call, in microseconds.

        ``first_p50_us`` is of the first calls of the turns.
        """
        wall = np.array(self._wall)
        p50, p99 = np.percentile(wall, (50, 99)) / 1e3
        return {
            "p50_us": round(float(p50), 1),
            "p99_us": round(float(p99), 1),
            "cpu_us": round(float(np.mean(self._cpu)) / 1e3, 1),
            "first_p50_us": round(float(np.median(wall[self._turns])) / 1e3, 1),
            "calls": self.calls,
        }


def run(*, corpus: Path | None, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        corpus: folder in BEIR layout to take texts and questions of; the samples without one.
        quick: fewer rounds, and the cross-encoder on 50 candidates only.

    Raises:
        ValueError: the folder is not as the layout says.
    """
    # It asks for debug messages itself, which would cost it time as soon as anybody logs.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    found = read_passages(corpus, QUICK_PASSAGES if quick else PASSAGES, size=BYTES, seed=SEED)
    asked = turns(found.questions, QUICK_QUESTIONS if quick else QUESTIONS, SEED)
    questions = list(_questions(found.passages, asked))
    rounds = QUICK_ROUNDS if quick else ROUNDS
    _say(f"rerank: {len(questions)} questions, {len(found.passages)} passages, {rounds} rounds")
    with ExitStack() as stack:
        arms = fast_arms(found.passages) | python_arms(found.passages)
        encoders, tokenizer = stack.enter_context(_cross_encoders(found.passages))
        tokens = _pair_tokens(tokenizer, found.passages, questions)
        fewer = encoders(rounds // (QUICK_ENCODED if quick else ENCODED))
        many = {} if quick else encoders(rounds // ENCODED_ALL)
        blocks = {CANDIDATES: arms | many, FEWER: arms | fewer}
        timings = _measure(blocks, questions, rounds)
    return {
        "candidates": CANDIDATES,
        "bytes": BYTES,
        "arms": _figures(timings[CANDIDATES]),
        "fifty": _figures(timings[FEWER]),
        "includes": {name: arm.includes for name, arm in (arms | fewer).items()},
        "base_of_ratios": BASE,
        "corpus": {
            "name": found.corpus,
            "passages": len(found.passages),
            "drawn_from_snippets": found.drawn,
            "mean_bytes": round(np.mean([len(one.text.encode()) for one in found.passages])),
            "questions": len(questions),
        },
        "rounds": rounds,
        "seed": SEED,
        "cross_encoder": MINI_LM_L6 | {"mean_pair_tokens": tokens},
    }


def _questions(pool: Sequence[Passage], asked: Sequence[str]) -> Iterator[Question]:
    """Each with the passages that bm25s finds best for it."""
    index = bm25s.BM25()
    tokens = bm25s.tokenize([whole(one) for one in pool], stopwords="en", show_progress=False)
    index.index(tokens, show_progress=False)
    chosen, _ = index.retrieve(
        bm25s.tokenize(list(asked), stopwords="en", show_progress=False),
        k=CANDIDATES,
        show_progress=False,
    )
    similarities = np.random.default_rng(SEED).random((len(asked), CANDIDATES), np.float32)
    for text, places, row in zip(asked, chosen, similarities, strict=True):
        yield Question(text, places.astype(np.intp), -np.sort(-row))


@contextmanager
def _cross_encoders(
    pool: Sequence[Passage],
) -> Iterator[tuple[Callable[[int], dict[str, Arm]], Path]]:
    """Both of MiniLM-L6's shape, as arms that take part in every so-manieth round.

    Their tokenizer is that of the default embedder where it was fetched, so that texts have as many
    tokens as with a published model.
    """
    tokenizer = default_models_dir() / "all-MiniLM-L6-v2" / "tokenizer.json"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        runner = stack.enter_context(asyncio.Runner())
        encoders = {}
        for name, int8 in (("cross_encoder", False), ("cross_encoder_int8", True)):
            write_cross_encoder(
                folder / name,
                **MINI_LM_L6,
                seed=SEED,
                int8=int8,
                tokenizer=tokenizer if tokenizer.is_file() else None,
            )
            encoders[name] = open_cross_encoder(CrossEncoderSettings(folder=folder / name))
            stack.callback(_close, encoders[name], runner)
        yield (
            lambda every: {
                name: cross_encoder_arm(pool, encoder, runner, every=every)
                for name, encoder in encoders.items()
            },
            folder / "cross_encoder" / "tokenizer.json",
        )


def _pair_tokens(path: Path, pool: Sequence[Passage], questions: Sequence[Question]) -> int:
    """What the cross-encoders read of a question and a candidate, on average."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(POSITIONS)
    pairs = [
        (question.text, whole(pool[place]))
        for question in questions
        for place in question.candidates[:FEWER]
    ]
    return round(np.mean([len(pair.ids) for pair in tokenizer.encode_batch(pairs)]))


def _close(encoder: CrossEncoder, runner: asyncio.Runner) -> None:
    runner.run(encoder.aclose())


def _measure(
    blocks: dict[int, dict[str, Arm]], questions: Sequence[Question], rounds: int
) -> dict[int, dict[str, Timings]]:
    """Time every arm with each number of candidates, in turns."""
    arms = {(count, name): arm for count, arms in blocks.items() for name, arm in arms.items()}
    calls = {
        key: cycle([arm.prepare(question.first(key[0])) for question in questions])
        for key, arm in arms.items()
    }
    timings: defaultdict[int, dict[str, Timings]] = defaultdict(dict)
    for (count, name), prepared in calls.items():
        timings[count][name] = Timings()
        next(prepared)()  # what is loaded or filled on the first call is no part of any other
    order = random.Random(SEED)  # noqa: S311 — the same order on every run
    gc.collect()
    gc.freeze()  # or each collection walks everything that was prepared
    try:
        for number in range(rounds):
            turn = [key for key, arm in arms.items() if number % arm.every == 0]
            order.shuffle(turn)
            for count, name in turn:
                some = islice(calls[count, name], arms[count, name].calls)
                timings[count][name].turn(list(some))
            if number % (rounds // 10) == 0:
                _say(f"rerank: round {number} of {rounds}")
    finally:
        gc.unfreeze()
    return timings


def _figures(timings: dict[str, Timings]) -> dict[str, dict[str, float]]:
    figures = {name: one.figures() for name, one in timings.items()}
    base = figures[BASE]
    for one in figures.values():
        one["p50_ratio"] = round(one["p50_us"] / base["p50_us"], 2)
        one["cpu_ratio"] = round(one["cpu_us"] / base["cpu_us"], 2)
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
