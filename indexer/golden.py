"""Golden queries: how well a version finds what it should, beside the version that is active.

The score of a query is the share of its expected sources among its first hits; that of a version
is the mean over all queries. It is recall at a depth, whose ideal is 1 also where more sources are
expected than hits are looked at. A query that fails ends the examination with its error: a version
never passes because it could not be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from common.coordination import GoldenScore
from common.errors import DeadlineExceeded, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from common.coordination import Pointer, VersionRecord

logger = logging.getLogger(__name__)

MAX_QUERIES: Final = 2_000
MAX_QUERY_BYTES: Final = 8_192
MAX_EXPECTED: Final = 1_000
MAX_DEPTH: Final = 100
MAX_MISSES: Final = 100

_QUERIES_IN_FLIGHT = 4
_QUERY_TIMEOUT_S = 30.0
# Scores are sums of quotients: 0.9 must pass a threshold of 0.9.
_TOLERANCE = 1e-9
_FOUND_TOLD = 10
_MISSES_TOLD = 10
_MISSING_TOLD = 3
_QUERY_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query and what must be found: source URIs, ends of such after a slash, document ids."""

    query: str
    expected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """What a version must know.

    Attributes:
        queries: 1 to 2,000, each with 1 to 1,000 expected sources.
        threshold: least score to pass, 0 to 1.
        max_drop: how much less than the active version it may score, 0 to 1.
        depth: hits looked at for each query, 1 to 100.

    Raises:
        InvalidArgument: names the field of the contract.
    """

    queries: tuple[GoldenQuery, ...]
    threshold: float = 0.9
    max_drop: float = 0.02
    depth: int = 10

    def __post_init__(self) -> None:
        if not 1 <= len(self.queries) <= MAX_QUERIES:
            raise InvalidArgument(f"must be 1 to {MAX_QUERIES:,}", field="golden_queries")
        for number, one in enumerate(self.queries):
            if not one.query.strip() or len(one.query.encode()) > MAX_QUERY_BYTES:
                raise InvalidArgument(
                    f"must be 1 to {MAX_QUERY_BYTES:,} bytes, not blank",
                    field=f"golden_queries[{number}].query",
                )
            if not 1 <= len(one.expected) <= MAX_EXPECTED or not all(one.expected):
                raise InvalidArgument(
                    f"must be 1 to {MAX_EXPECTED:,} sources, none of them empty",
                    field=f"golden_queries[{number}].expected",
                )
        for field, share in (("threshold", self.threshold), ("max_drop", self.max_drop)):
            if not 0 <= share <= 1:
                raise InvalidArgument("must be 0 to 1", field=f"golden_{field}")
        if not 1 <= self.depth <= MAX_DEPTH:
            raise InvalidArgument(f"must be 1 to {MAX_DEPTH}", field="golden_depth")


@dataclass(frozen=True, slots=True)
class FoundSource:
    """What a hit is a part of."""

    source_uri: str
    document_id: str

    def is_called(self, name: str) -> bool:
        """Whether it is what a golden query expects under this name."""
        uri = self.source_uri
        return name in {uri, self.document_id} or uri.endswith(f"/{name}")


# Tenant, collection, version, query and depth: the sources of the first hits, best first.
Ask: TypeAlias = Callable[[str, str, int, str, int], Awaitable[list[FoundSource]]]


@dataclass(frozen=True, slots=True)
class Miss:
    """A golden query that did not find all it should.

    Attributes:
        query: its text.
        missing: what it did not find.
        found: source URIs of its first hits, each once, at most 10.
        active_finds: whether the active version finds all it should.
    """

    query: str
    missing: tuple[str, ...]
    found: tuple[str, ...]
    active_finds: bool


@dataclass(frozen=True, slots=True)
class Graded:
    """The score, at most 100 misses, worst first, and why it falls short: empty if it passed."""

    score: GoldenScore
    misses: tuple[Miss, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    """One query's scores; ``active`` is None where the active version was not asked."""

    score: float
    active: float | None
    miss: Miss | None


async def grade(exam: Exam, ask: Ask, candidate: VersionRecord, active: Pointer | None) -> Graded:
    """Ask a version all golden queries, and the active one where one embedder serves both.

    Raises:
        SluiceError: what a query failed with; DeadlineExceeded after 30 s.
    """
    if active is not None and active.embedder != candidate.embedder:
        logger.info(
            "the active version was written with another embedder and is not asked golden queries",
            extra={"collection": active.collection, "index_version": active.version},
        )
        active = None
    examiner = _Examiner(exam, ask, candidate, active)
    answers = await examiner.answers()
    score = GoldenScore(
        queries=len(answers),
        depth=exam.depth,
        threshold=exam.threshold,
        candidate=_mean(answer.score for answer in answers),
        active=None if active is None else _mean(answer.active or 0.0 for answer in answers),
        active_version=0 if active is None else active.version,
    )
    # Worst first; of those that are equally bad, what would be lost by a swap.
    missed = sorted(
        ((answer.score, answer.miss) for answer in answers if answer.miss),
        key=lambda pair: (pair[0], not pair[1].active_finds),
    )
    misses = tuple(miss for _, miss in missed[:MAX_MISSES])
    return Graded(score, misses, tuple(_findings(exam, score, misses)))


class _Examiner:
    """Asks the queries of one exam, a few at a time."""

    def __init__(
        self, exam: Exam, ask: Ask, candidate: VersionRecord, active: Pointer | None
    ) -> None:
        self._exam = exam
        self._ask = ask
        self._candidate = candidate
        self._active = active

    async def answers(self) -> list[_Answer]:
        """In the order of the queries."""
        found: dict[int, _Answer] = {}
        waiting = enumerate(self._exam.queries)

        async def work() -> None:
            for number, golden in waiting:
                found[number] = await self._answer(golden)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_QUERIES_IN_FLIGHT):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [found[number] for number in range(len(found))]

    async def _answer(self, golden: GoldenQuery) -> _Answer:
        expected = tuple(dict.fromkeys(golden.expected))
        hits = await self._hits(self._candidate.number, golden.query)
        missing = _missing(expected, hits)
        score = self._score(expected, missing)
        active = await self._active_score(golden.query, expected, score)
        if score == 1:
            return _Answer(score, active, None)
        found = tuple(dict.fromkeys(hit.source_uri for hit in hits))[:_FOUND_TOLD]
        return _Answer(score, active, Miss(golden.query, missing, found, active == 1))

    async def _active_score(
        self, query: str, expected: Sequence[str], score: float
    ) -> float | None:
        if self._active is None:
            return None
        if self._active.version == self._candidate.number:
            return score
        hits = await self._hits(self._active.version, query)
        return self._score(expected, _missing(expected, hits))

    async def _hits(self, version: int, query: str) -> list[FoundSource]:
        tenant, collection = self._candidate.tenant, self._candidate.collection
        depth = self._exam.depth
        try:
            async with asyncio.timeout(_QUERY_TIMEOUT_S):
                return (await self._ask(tenant, collection, version, query, depth))[:depth]
        except TimeoutError:
            raise DeadlineExceeded(
                f"a golden query to version {version} of collection {collection} was not answered "
                f"within {_QUERY_TIMEOUT_S:.0f} s; look at the query servers, then verify again"
            ) from None

    def _score(self, expected: Sequence[str], missing: Sequence[str]) -> float:
        """0 to 1; a single hit may be what several names call."""
        return min(1.0, (len(expected) - len(missing)) / min(len(expected), self._exam.depth))


def _missing(expected: Sequence[str], hits: Sequence[FoundSource]) -> tuple[str, ...]:
    return tuple(name for name in expected if not any(hit.is_called(name) for hit in hits))


def _mean(scores: Iterable[float]) -> float:
    values = list(scores)
    return sum(values) / len(values)


def _findings(exam: Exam, score: GoldenScore, misses: Sequence[Miss]) -> Iterator[str]:
    scored = f"golden queries score {score.candidate:.4f}"
    short = False
    if score.candidate < score.threshold - _TOLERANCE:
        short = True
        yield f"{scored}, below the threshold of {score.threshold:g}"
    if score.active is not None and score.candidate < score.active - exam.max_drop - _TOLERANCE:
        short = True
        yield (
            f"{scored}, more than {exam.max_drop:g} below the {score.active:.4f} of the active "
            f"version {score.active_version}"
        )
    if short:
        yield from map(_line, islice(misses, _MISSES_TOLD))


def _line(miss: Miss) -> str:
    query = " ".join(miss.query.split())
    if len(query) > _QUERY_CHARACTERS:
        query = query[: _QUERY_CHARACTERS - 1] + "…"
    told = ", ".join(miss.missing[:_MISSING_TOLD])
    more = len(miss.missing) - _MISSING_TOLD
    besides = f" and {more} more" if more > 0 else ""
    lost = "; the active version finds all" if miss.active_finds else ""
    return f'golden query "{query}" does not find {told}{besides}{lost}'
