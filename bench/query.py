"""Queries on a large collection: Sluice beside a plain server and beside Chroma alone.

An etcd, a Chroma server, a query server and a plain one run as processes of this machine, and the
clients in this one. Both query servers have one core, by turns, and all else shares the others. The
contestants take turns, each with clients that ask without pause; then Sluice is asked three times
as fast as it answered. Of each answer the server's own stages are told, and from its log the time
of the whole call, so that what is neither Chroma's nor the embedder's is known for each query.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import chromadb
from chromadb.config import Settings as ClientOptions

from bench.cores import Cores, on_cores
from bench.passages import read_passages
from bench.query_index import COLLECTION, write_index
from bench.query_load import Load, closed_loop, open_loop, percentiles
from client.answers import SearchQuery
from client.client import SluiceClient
from common.embedding.hashing_embedder import HashingEmbedder
from common.rpc import ChannelSettings
from common.telemetry import Stage, current_trace_id, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.passages import Passage
    from bench.query_load import Ask
    from common.embedding import Embedder
    from tests.cluster import Cluster, Served

SEED = 20_251_104
CHUNKS, QUICK_CHUNKS = 100_000, 2_000
BYTES = 1_024
DIMENSION = 384
CANDIDATES, HITS = 200, 10
CLIENTS = 8
OURS = "ours"
# Seconds that a contestant is asked in one turn, and its turns.
TURN_S, TURNS = 10.0, 3
QUICK_TURN_S, QUICK_TURNS = 2.0, 1
# Questions that are not asked again. They fill what Sluice keeps, as a day's work would; the others
# keep nothing.
WARMING, QUICK_WARMING = 4_000, 200
CONNECTING = 50
QUESTIONS = 4_000
OVERLOAD = 3
OVERLOAD_S, QUICK_OVERLOAD_S = 10.0, 4.0
TIMEOUT_S = 20.0
STATISTICS_S = 300.0
LOOK_EVERY_S = 0.1
QUESTION_WORDS = (3, 9)
# Stages in which the server waits for others; what is left of a call is its own.
CHROMAS = frozenset({"retrieve", "fetch"})
EMBEDDERS = frozenset({"embed"})
INCLUDES = (
    "all of a call at the server, from its interceptor to its response message, but for the stages "
    f"{', '.join(sorted(CHROMAS))} (Chroma) and {', '.join(sorted(EMBEDDERS))} (embedding); gRPC's "
    "own parsing and sending is not in it"
)
METHOD = "sluice.query.v1.QueryService/Search"


class Sizes(NamedTuple):
    """How much of everything."""

    chunks: int
    turn_s: float
    turns: int
    warming: int
    overload_s: float


@dataclass(slots=True)
class Told:
    """What the servers' answers said: of each query its stages in milliseconds, by trace id."""

    stages: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def figures(self, rpc_ms: Mapping[str, float]) -> dict[str, Any]:
        """Percentiles by stage, and of what was neither Chroma's nor the embedder's.

        Args:
            rpc_ms: of each query the time of the whole call at the server, by trace id.
        """
        by_stage: defaultdict[str, list[float]] = defaultdict(list)
        own, rest = [], []
        for trace, stages in self.stages.items():
            for stage, duration in stages.items():
                by_stage[stage].append(duration)
            own.append(_sum(stages, without=CHROMAS | EMBEDDERS))
            rest.append(rpc_ms[trace] - sum(stages.values()))
        outside = [a + b for a, b in zip(own, rest, strict=True)]
        return {
            "stages": {stage: _ms(values) for stage, values in by_stage.items()},
            "outside_ms": _ms(outside, "p50", "p99")
            | {
                "own_stages": _ms(own, "p50", "p99"),
                "rest_of_call": _ms(rest, "p50", "p99"),
                "queries": len(outside),
                "includes": INCLUDES,
            },
            "server_call_ms": _ms(rpc_ms[trace] for trace in self.stages),
        }


def run(*, corpus: Path | None, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        corpus: folder in BEIR layout whose texts become chunks; the samples without one.
        quick: fewer chunks and less time.

    Raises:
        ValueError: the folder is not as the layout says.
    """
    from tests.cluster import running_cluster  # noqa: PLC0415 — only from a clone

    sizes = (
        Sizes(QUICK_CHUNKS, QUICK_TURN_S, QUICK_TURNS, QUICK_WARMING, QUICK_OVERLOAD_S)
        if quick
        else Sizes(CHUNKS, TURN_S, TURNS, WARMING, OVERLOAD_S)
    )
    found = read_passages(corpus, sizes.chunks, size=BYTES, seed=SEED)
    environ = {"SLUICE_EMBEDDING__KIND": "hashing", "SLUICE_EMBEDDING__DIMENSION": str(DIMENSION)}
    cores = Cores.shared()
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as home,
        on_cores(cores.others),
        running_cluster(Path(home), environ=environ) as cluster,
    ):
        with on_cores(cores.server):
            cluster.start("query")
        figures = asyncio.run(_measure(cluster, found.passages, sizes, cores))
    return {
        "chunks": sizes.chunks,
        **figures,
        "clients": CLIENTS,
        "candidates": CANDIDATES,
        "hits": HITS,
        "bytes": BYTES,
        "dimension": DIMENSION,
        "corpus": {"name": found.corpus, "drawn_from_snippets": found.drawn},
        "cores": cores.figures(),
        "turns": {"count": sizes.turns, "seconds": sizes.turn_s},
        "seed": SEED,
    }


async def _measure(
    cluster: Cluster, passages: Sequence[Passage], sizes: Sizes, cores: Cores
) -> dict[str, Any]:
    embedder = HashingEmbedder(DIMENSION)
    _say(f"query: writing {len(passages)} chunks")
    stored = await write_index(cluster, passages, embedder, _written)
    port = cluster.settings["chroma"]["port"]
    [server] = cluster.named("query")
    warming = _questions(passages, sizes.warming, SEED)
    questions = cycle(_questions(passages, QUESTIONS, SEED + 1))
    told = Told()
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(SluiceClient(server.address))
        corpus_statistics = await _await_statistics(cluster, ours, warming[0])
        address = stack.enter_context(_plain_server(port, stored, cores))
        plain = await stack.enter_async_context(SluiceClient(address))
        contestants: dict[str, Ask] = {
            OURS: partial(_ask_ours, ours, told),
            "plain": partial(_ask, plain),
            **await _chroma_alone(port, stored, embedder),
        }
        loads = await _take_turns(contestants, warming, questions, told, sizes)
        figures = {name: load.figures() for name, load in loads.items()}
        stages = told.figures(_calls(server))
        _say("query: overload")
        one_try = await stack.enter_async_context(
            SluiceClient(server.address, ChannelSettings(max_attempts=1))
        )
        overload = await _overload(one_try, questions, figures[OURS]["rate"], sizes.overload_s)
    return {**figures, "overload": overload, **stages, "corpus_statistics": corpus_statistics}


async def _take_turns(
    contestants: Mapping[str, Ask],
    warming: Sequence[str],
    questions: Iterator[str],
    told: Told,
    sizes: Sizes,
) -> dict[str, Load]:
    """Ask each of them for a while, in an order drawn anew for every turn."""
    for name, ask in contestants.items():
        _say(f"query: warming {name}")
        warm, left = Load(), iter(warming if name == OURS else warming[:CONNECTING])
        while part := [question for question, _ in zip(left, range(CLIENTS), strict=False)]:
            await asyncio.gather(*(warm.ask(ask, question) for question in part))
        if warm.failed or warm.refused:
            raise RuntimeError(f"{name} failed: {dict(warm.failed)}, {warm.refused} refused")
    told.stages.clear()
    loads = {name: Load() for name in contestants}
    order = random.Random(SEED)  # noqa: S311 — the same order on every run
    for turn in range(sizes.turns):
        for name in order.sample(sorted(contestants), len(contestants)):
            _say(f"query: turn {turn + 1} of {sizes.turns}, {name}")
            await closed_loop(
                loads[name], contestants[name], questions, clients=CLIENTS, seconds=sizes.turn_s
            )
    return loads


async def _overload(
    sluice: SluiceClient, questions: Iterator[str], rate: float, seconds: float
) -> dict[str, Any]:
    """Ask three times as fast as it answered, without repeating what is refused."""
    load = Load()
    offered = await open_loop(
        load, partial(_ask, sluice), questions, rate=OVERLOAD * rate, seconds=seconds
    )
    served = load.figures()
    return {
        "offered_rate": round(offered, 1),
        "served_rate": served["rate"],
        "served": served["answers"],
        "refused": load.refused,
        "p50_ms": served["p50_ms"],
        "p99_ms": served["p99_ms"],
        "errors": load.failed.total(),
        "error_kinds": dict(load.failed),
        "seconds": seconds,
    }


async def _ask(sluice: SluiceClient, question: str) -> None:
    query = SearchQuery(question, COLLECTION, top_k=HITS, candidates=CANDIDATES)
    await sluice.search(query, timeout_s=TIMEOUT_S)


async def _ask_ours(sluice: SluiceClient, told: Told, question: str) -> None:
    query = SearchQuery(question, COLLECTION, top_k=HITS, candidates=CANDIDATES)
    with span(Stage.CLIENT_SEARCH):  # the server goes on with its trace
        answer = await sluice.search(query, timeout_s=TIMEOUT_S)
        told.stages[current_trace_id()] = {
            timing.stage: timing.duration_ms for timing in answer.timings
        }


async def _chroma_alone(port: int, name: str, embedder: Embedder) -> dict[str, Ask]:
    """Chroma's own client: what candidates cost without anything around."""
    client = await chromadb.AsyncHttpClient(
        "127.0.0.1", port, settings=ClientOptions(anonymized_telemetry=False)
    )
    collection: Any = await client.get_collection(name, embedding_function=None)

    async def ask(question: str, *, include: Sequence[str]) -> None:
        await collection.query(
            query_embeddings=[await embedder.embed_query(question)],
            n_results=CANDIDATES,
            include=list(include),
        )

    return {
        "chroma": partial(ask, include=("distances",)),
        "chroma_with_documents": partial(ask, include=("distances", "documents")),
    }


async def _await_statistics(cluster: Cluster, sluice: SluiceClient, question: str) -> bool:
    """Let an indexer count the words, which the query server then follows."""
    query = SearchQuery(question, COLLECTION, explain=True)
    [indexer] = await asyncio.to_thread(cluster.start, "indexer")
    _say("query: waiting for the statistics of words")
    try:
        async with asyncio.timeout(STATISTICS_S):
            while True:
                explanation = (await sluice.search(query, timeout_s=TIMEOUT_S)).explanation
                if explanation is not None and explanation.corpus_statistics:
                    return True
                await asyncio.sleep(LOOK_EVERY_S)  # an answer tells, nothing announces it
    finally:
        await asyncio.to_thread(indexer.drain)


@contextmanager
def _plain_server(chroma_port: int, collection: str, cores: Cores) -> Iterator[str]:
    """The peer as a process of its own; its address."""
    command = [sys.executable, "-m", "bench.query_plain", "--chroma-port", str(chroma_port)]
    command += ["--collection", collection, "--dimension", str(DIMENSION)]
    with on_cores(cores.server):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 — our own program
    with process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise RuntimeError("the plain server did not start")
            yield address
        finally:
            process.terminate()


def _calls(server: Served) -> dict[str, float]:
    """What each call took at the server, in milliseconds by trace id."""
    return {
        line["trace_id"]: line["duration_ms"]
        for line in server.lines("rpc")
        if line["method"] == METHOD
    }


def _questions(passages: Sequence[Passage], count: int, seed: int) -> list[str]:
    """Words that follow each other somewhere in the passages."""
    choice = random.Random(seed)  # noqa: S311 — the same questions on every run
    asked: list[str] = []
    while len(asked) < count:
        words = choice.choice(passages).text.split()
        length = choice.randint(*QUESTION_WORDS)
        start = choice.randrange(max(1, len(words) - length))
        asked.append(" ".join(words[start : start + length]))
    return asked


def _sum(stages: Mapping[str, float], *, without: frozenset[str]) -> float:
    return sum(duration for stage, duration in stages.items() if stage not in without)


def _ms(values: Any, *names: str) -> dict[str, float]:  # noqa: ANN401 — any numbers
    return dict(zip(names or ("p50_ms", "p99_ms"), percentiles(values), strict=True))


def _written(chunks: int) -> None:
    if chunks % 20_000 == 0:
        _say(f"query: {chunks} chunks written")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
