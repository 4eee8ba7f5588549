"""Asks a server every judged query in several modes, and scores what comes back.

What is measured is what a user gets: chunks, candidates and ranking of the server as it is. Every
query is asked twice: as a user asks it, which is timed, and for the long list that is scored. The
best-ranked chunk of a document stands for it. The modes take turns, each query begun by another
one, so that warm caches and a machine that slows down touch all of them alike. Nothing is written.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

from client.answers import SearchQuery
from client.evaluating import metrics
from client.evaluating.judged_collection import document_names
from common.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from client.answers import RerankMode, SearchResponse
    from client.client import SluiceClient
    from client.evaluating.judged_collection import Progress, Written
    from client.evaluating.judged_set import JudgedQuery, JudgedSet

T = TypeVar("T")

# What people call a ranking, and how a server is asked for it.
MODES: Final[Mapping[str, RerankMode]] = {
    "dense": "dense",
    "bm25": "lexical",
    "fused": "fused",
    "reranked": "cross_encoder",
    "lexical": "lexical",
}
# Chunks asked for: enough that 100 documents are among them where documents are a few chunks long,
# and no more than the candidates a server takes by default, so that ranking is what users get.
DEFAULT_DEPTH: Final = 200
# The most that the contract allows: by words alone the candidates come as near to the whole corpus
# as they can.
MOST_CANDIDATES: Final = 2_000
WARM_UP_QUERIES: Final = 10
MAX_CONCURRENCY: Final = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """How queries are asked.

    Attributes:
        modes: names of ``MODES``, in the order they are told.
        depth: chunks ranked for each query, and returned where they are scored.
        concurrency: queries under way at once.
    """

    modes: tuple[str, ...]
    depth: int = DEFAULT_DEPTH
    concurrency: int = 1

    def candidates(self, mode: str) -> int:
        """Chunks that a mode takes from the vector store."""
        return MOST_CANDIDATES if MODES[mode] == "lexical" else self.depth


@dataclass(frozen=True, slots=True)
class Asked:
    """One query in one mode.

    Attributes:
        ranking: document ids with the scores of their best chunks, best first, each once.
        ndcg_at_10: with the gain 2^grade - 1.
        linear_ndcg_at_10: with the grade as gain.
        recall_at_100: share of the relevant documents.
        reciprocal_rank_at_10: of the first relevant document.
        call_ms: a whole call for as many hits as the server gives unasked, as the client saw it.
        stages_ms: the server's stages of that call, by name.
        degraded: why the answer was less than it could be.
    """

    ranking: tuple[tuple[str, float], ...]
    ndcg_at_10: float
    linear_ndcg_at_10: float
    recall_at_100: float
    reciprocal_rank_at_10: float
    call_ms: float
    stages_ms: Mapping[str, float]
    degraded: tuple[str, ...]

    @property
    def documents(self) -> list[str]:
        """The ranking without its scores."""
        return [document for document, _ in self.ranking]


@dataclass(frozen=True, slots=True)
class _Timed:
    """How long one answer took."""

    call_ms: float
    stages_ms: Mapping[str, float]


async def ask_all(
    client: SluiceClient, judged: JudgedSet, written: Written, plan: Plan, progress: Progress
) -> dict[str, tuple[Asked, ...]]:
    """Ask every query in every mode, after a warm-up: first all that is timed, then the long lists.

    Returns:
        For each mode what became of the queries, in their order.

    Raises:
        FailedPrecondition: the collection holds what is not of the corpus.
        SluiceError: as a search ends.
    """
    names = document_names(judged)
    # The first calls connect and fill caches that every later one finds.
    for query in judged.queries[:WARM_UP_QUERIES]:
        for mode in plan.modes:
            await client.search(_usual(query, written, mode, plan, at_least=written.token))

    async def time(query: JudgedQuery, mode: str) -> _Timed:
        question = _usual(query, written, mode, plan)
        started = perf_counter()
        response = await client.search(question)
        return _Timed((perf_counter() - started) * 1000, _stages(response))

    async def rank(query: JudgedQuery, mode: str) -> SearchResponse:
        return await client.search(_long(query, written, mode, plan))

    timed = await _in_turn(judged, plan, time, lambda done, all_: progress("timing", done, all_))
    ranked = await _in_turn(judged, plan, rank, lambda done, all_: progress("ranking", done, all_))
    return {
        mode: tuple(
            _scored(query, ranked[mode, index], names, timed[mode, index])
            for index, query in enumerate(judged.queries)
        )
        for mode in plan.modes
    }


async def _in_turn(
    judged: JudgedSet,
    plan: Plan,
    ask: Callable[[JudgedQuery, str], Awaitable[T]],
    progress: Callable[[int, int], None],
) -> dict[tuple[str, int], T]:
    """What asking gave, by mode and query; as many queries at once as planned."""
    given: dict[tuple[str, int], T] = {}
    waiting = iter(enumerate(judged.queries))

    async def work() -> None:
        for index, query in waiting:
            first = index % len(plan.modes)
            for mode in plan.modes[first:] + plan.modes[:first]:
                given[mode, index] = await ask(query, mode)
            progress(len(given) // len(plan.modes), len(judged.queries))

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(plan.concurrency):
                workers.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return given


def _usual(
    query: JudgedQuery, written: Written, mode: str, plan: Plan, *, at_least: str = ""
) -> SearchQuery:
    """As a user asks, who says nothing of how many hits."""
    return SearchQuery(
        text=query.text,
        collection=written.collection,
        candidates=plan.candidates(mode),
        rerank=MODES[mode],
        at_least=at_least,
    )


def _long(query: JudgedQuery, written: Written, mode: str, plan: Plan) -> SearchQuery:
    # Judgements are of documents: one that repeats another is judged by itself.
    return replace(_usual(query, written, mode, plan), top_k=plan.depth, keep_duplicates=True)


def _stages(response: SearchResponse) -> dict[str, float]:
    stages: defaultdict[str, float] = defaultdict(float)
    for timing in response.timings:
        stages[timing.stage] += timing.duration_ms
    return dict(stages)


def _scored(
    query: JudgedQuery, response: SearchResponse, names: Mapping[str, str], timed: _Timed
) -> Asked:
    best: dict[str, float] = {}
    for hit in response.hits:
        if hit.document_id not in names:
            raise FailedPrecondition(
                f"the collection holds {hit.document_id}, which is not of this corpus; delete the"
                " collection, so that it is written anew"
            )
        best.setdefault(names[hit.document_id], hit.score)
    ranking = list(best)
    return Asked(
        ranking=tuple(best.items()),
        ndcg_at_10=metrics.ndcg(ranking, query.grades, 10),
        linear_ndcg_at_10=metrics.ndcg(ranking, query.grades, 10, metrics.linear_gain),
        recall_at_100=metrics.recall(ranking, query.grades, 100),
        reciprocal_rank_at_10=metrics.reciprocal_rank(ranking, query.grades, 10),
        call_ms=timed.call_ms,
        stages_ms=timed.stages_ms,
        degraded=response.degraded,
    )


def run_lines(judged: JudgedSet, asked: Mapping[str, Sequence[Asked]]) -> list[dict[str, object]]:
    """What each query got in each mode, for a run file of JSON lines that others can check."""
    return [
        {
            "query_id": query.id,
            "mode": mode,
            "ndcg@10": found.ndcg_at_10,
            "recall@100": found.recall_at_100,
            "mrr@10": found.reciprocal_rank_at_10,
            "call_ms": round(found.call_ms, 3),
            "documents": [list(ranked) for ranked in found.ranking],
        }
        for mode, answers in asked.items()
        for query, found in zip(judged.queries, answers, strict=True)
    ]
