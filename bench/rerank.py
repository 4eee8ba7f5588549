"""Scoring 200 candidates of 1 KB beside its peers: latency and CPU time of a query, in one run.

All arms score the same candidates for the same questions; they take turns in an order that is
drawn anew every round, so that none has the machine's better minutes. A turn of a fast arm asks one
question after the other; its first call, which finds the processor's caches full of the other arms'
data, is told apart too (``first_p50_us``).

The candidates of a question are the passages nearest to it by vectors, as a query server has them.
Those that hold most of its words, the most work for whatever looks for words, are the worst case: a
block of its own for our own arms.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import bm25s
import numpy as np
from tokenizers import Tokenizer

from bench.passages import read_passages, turns
from bench.random_cross_encoder import POSITIONS, write_cross_encoder
from bench.rerank_arms import Question, cross_encoder_arm, fast_arms, python_arms, whole
from common.embedding import EmbeddingSettings, default_models_dir, open_embedder
from common.errors import ConfigurationError
from query.cross_encoder import CrossEncoderSettings, open_cross_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bench.passages import Passage
    from bench.rerank_arms import Arm
    from query.cross_encoder import CrossEncoder

SEED = 20_251_104
CANDIDATES, FEWER = 200, 50
BYTES = 1_024
PASSAGES, QUICK_PASSAGES = 4_000, 1_000
QUESTIONS, QUICK_QUESTIONS = 64, 16
ROUNDS, QUICK_ROUNDS = 30, 10
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
OURS = ("zig_cached", "zig_raw")


class Block(NamedTuple):
    """Arms that score the same candidates of the same questions."""

    questions: Sequence[Question]
    arms: dict[str, Arm]


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
    # bm25s asks for debug messages itself, which would cost it time as soon as anybody logs.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    found = read_passages(corpus, QUICK_PASSAGES if quick else PASSAGES, size=BYTES, seed=SEED)
    asked = turns(found.questions, QUICK_QUESTIONS if quick else QUESTIONS, SEED)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    _say(f"rerank: {len(asked)} questions, {len(found.passages)} passages, {rounds} rounds")
    nearest, most_words, model = _questions(found.passages, asked, quick=quick)
    with ExitStack() as stack:
        fast = fast_arms(found.passages)
        arms = fast | python_arms(found.passages)
        encoders, tokenizer = stack.enter_context(_cross_encoders(found.passages))
        tokens = _pair_tokens(tokenizer, found.passages, nearest)
        fewer = encoders(rounds // (QUICK_ENCODED if quick else ENCODED))
        many = {} if quick else encoders(rounds // ENCODED_ALL)
        blocks = {
            "arms": Block(nearest, arms | many),
            "fifty": Block([question.first(FEWER) for question in nearest], arms | fewer),
            "worst_case": Block(most_words, {name: fast[name] for name in OURS}),
        }
        timings = _measure(blocks, rounds)
    return {
        "candidates": CANDIDATES,
        "bytes": BYTES,
        "candidates_of": {
            "arms": f"the {CANDIDATES} nearest by vectors of {model}",
            "fifty": f"the {FEWER} nearest likewise",
            "worst_case": f"the {CANDIDATES} best by bm25s; similarities of {model}",
        },
        **{name: _figures(timing) for name, timing in timings.items()},
        "includes": {name: arm.includes for name, arm in (arms | fewer).items()},
        "base_of_ratios": BASE,
        "corpus": {
            "name": found.corpus,
            "passages": len(found.passages),
            "drawn_from_snippets": found.drawn,
            "mean_bytes": round(np.mean([len(one.text.encode()) for one in found.passages])),
            "questions": len(asked),
        },
        "rounds": rounds,
        "seed": SEED,
        "cross_encoder": MINI_LM_L6 | {"mean_pair_tokens": tokens},
    }


def _questions(
    pool: Sequence[Passage], asked: Sequence[str], *, quick: bool
) -> tuple[list[Question], list[Question], str]:
    """The nearest passages of each question, those that hold most of its words, and the model.

    That is the one whose vectors say how near they are.
    """
    passages, questions, model = asyncio.run(_embed(pool, asked, quick=quick))
    similarities = questions @ passages.T
    index = bm25s.BM25()
    tokens = bm25s.tokenize([whole(one) for one in pool], stopwords="en", show_progress=False)
    index.index(tokens, show_progress=False)
    best, _ = index.retrieve(
        bm25s.tokenize(list(asked), stopwords="en", show_progress=False),
        k=CANDIDATES,
        show_progress=False,
    )
    every = np.broadcast_to(np.arange(len(pool)), similarities.shape)
    return _first(asked, every, similarities), _first(asked, best, similarities), model


def _first(
    asked: Sequence[str], places: NDArray[np.integer], similarities: NDArray[np.float32]
) -> list[Question]:
    """Each question with those of its places that are most similar, nearest first."""
    chosen = []
    for text, some, row in zip(asked, places, similarities, strict=True):
        order = some[np.argsort(-row[some], kind="stable")][:CANDIDATES].astype(np.intp)
        chosen.append(Question(text, order, row[order]))
    return chosen


async def _embed(
    pool: Sequence[Passage], asked: Sequence[str], *, quick: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    """Vectors of passages and questions, and of which model.

    The default one where it was fetched and there is time for it, else words hashed.
    """
    hashing = EmbeddingSettings(kind="hashing")
    try:
        embedder = open_embedder(hashing if quick else EmbeddingSettings())
    except ConfigurationError as error:
        _say(f"rerank: vectors by hashing, since {error.message}")
        embedder = open_embedder(hashing)
    _say(f"rerank: embedding by {embedder.spec.model}")
    try:
        passages = await embedder.embed_documents([whole(one) for one in pool])
        questions = np.stack([await embedder.embed_query(text) for text in asked])
    finally:
        await embedder.aclose()
    return passages, questions, embedder.spec.model


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


def _measure(blocks: dict[str, Block], rounds: int) -> dict[str, dict[str, Timings]]:
    """Time every arm of every block, in turns."""
    arms = {(block, name): arm for block, one in blocks.items() for name, arm in one.arms.items()}
    calls = {
        key: cycle([arm.prepare(question) for question in blocks[key[0]].questions])
        for key, arm in arms.items()
    }
    timings: defaultdict[str, dict[str, Timings]] = defaultdict(dict)
    for (block, name), prepared in calls.items():
        timings[block][name] = Timings()
        next(prepared)()  # what is loaded or filled on the first call is no part of any other
    order = random.Random(SEED)  # noqa: S311 — the same order on every run
    gc.collect()
    gc.freeze()  # or each collection walks everything that was prepared
    try:
        for number in range(rounds):
            turn = [key for key, arm in arms.items() if number % arm.every == 0]
            order.shuffle(turn)
            for block, name in turn:
                some = islice(calls[block, name], arms[block, name].calls)
                timings[block][name].turn(list(some))
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
