"""Golden queries: scores by hand, thresholds to the last digit, and what ends an examination."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from common.errors import DeadlineExceeded, InvalidArgument, Unavailable
from indexer import golden
from indexer.golden import Exam, FoundSource, GoldenQuery, Graded, Miss, grade
from tests.unit.indexer.broken_documents import pointer, record
from tests.unit.indexer.corpus import EMBEDDER, id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACTIVE, CANDIDATE = 1, 2


class Answers:
    """Hits by version and query, best first; counts who asks at once."""

    def __init__(self, **versions: Mapping[str, Sequence[str]]) -> None:
        self.versions = {int(name[1:]): answers for name, answers in versions.items()}
        self.asked: list[tuple[int, str]] = []
        self.most = 0
        self._running = 0

    async def __call__(
        self, tenant: str, collection: str, version: int, query: str, depth: int
    ) -> list[FoundSource]:
        assert (tenant, collection, depth > 0) == ("default", "docs", True)
        self.asked.append((version, query))
        self._running += 1
        self.most = max(self.most, self._running)
        for _ in range(10):
            await asyncio.sleep(0)
        self._running -= 1
        hits = self.versions[version][query]
        return [FoundSource(f"file:///lake/{name}", id_of(name)) for name in hits]


def exam(queries: Mapping[str, tuple[str, ...]], *, depth: int = 3, threshold: float = 0.0) -> Exam:
    asked = tuple(GoldenQuery(query, expected) for query, expected in queries.items())
    return Exam(asked, threshold=threshold, depth=depth)


async def score(expected: tuple[str, ...], hits: Sequence[str], depth: int = 3) -> Graded:
    return await grade(exam({"q": expected}, depth=depth), Answers(v2={"q": hits}), record(), None)


@pytest.mark.parametrize(
    ("expected", "hits", "depth", "candidate"),
    [
        (("a",), ["x", "y", "a"], 3, 1.0),
        (("a",), ["x", "y", "z", "a"], 3, 0.0),  # beyond the depth
        (("a", "b"), ["b", "x"], 3, 0.5),
        (("a", "b", "c", "d"), ["a", "b", "c"], 3, 1.0),  # more cannot be found
        (("a", "b", "c", "d"), ["a", "b"], 3, 2 / 3),
        (("a", "a", "b"), ["a"], 3, 0.5),  # named twice
        (("a", "file:///lake/a"), ["a"], 1, 1.0),  # one hit, two names
        (("a",), [], 3, 0.0),
    ],
)
async def test_a_query_scores_its_share_of_what_its_first_hits_can_hold(
    expected: tuple[str, ...], hits: Sequence[str], depth: int, candidate: float
) -> None:
    graded = await score(expected, hits, depth)
    assert graded.score.candidate == pytest.approx(candidate, abs=1e-12)
    assert bool(graded.misses) == (candidate < 1)


@pytest.mark.parametrize(
    ("expected", "is_found"),
    [
        ("file:///lake/b/a.txt", True),
        ("a.txt", True),
        ("b/a.txt", True),
        (id_of("b/a.txt"), True),
        (".txt", False),
        ("/a.txt", False),
        ("lake", False),
        ("A.txt", False),
    ],
)
async def test_a_source_is_called_by_uri_end_or_document_id(expected: str, is_found: bool) -> None:  # noqa: FBT001 — a row
    assert (await score((expected,), ["b/a.txt"])).score.candidate == is_found


async def test_the_score_is_the_mean_and_the_worst_misses_come_first() -> None:
    asked = exam(
        {"whole": ("a",), "half": ("a", "b"), "none": ("c", "d"), "lost": ("e",)},
        depth=4,
        threshold=0.9,
    )
    answers = Answers(
        v2={"whole": "a", "half": "axax", "none": "xy", "lost": "x"},
        v1={"whole": "x", "half": "ab", "none": "cx", "lost": "e"},
    )
    graded = await grade(asked, answers, record(), pointer())
    assert graded.score.candidate == pytest.approx(1.5 / 4)
    assert graded.score.active == pytest.approx(2.5 / 4)
    assert (graded.score.queries, graded.score.depth) == (4, 4)
    assert (graded.score.threshold, graded.score.active_version) == (0.9, ACTIVE)
    assert graded.misses == (
        Miss("lost", ("e",), ("file:///lake/x",), active_finds=True),
        Miss("none", ("c", "d"), ("file:///lake/x", "file:///lake/y"), active_finds=False),
        Miss("half", ("b",), ("file:///lake/a", "file:///lake/x"), active_finds=True),
    )
    assert graded.findings == (
        "golden queries score 0.3750, below the threshold of 0.9",
        "golden queries score 0.3750, more than 0.02 below the 0.6250 of the active version 1",
        'golden query "lost" does not find e; the active version finds all',
        'golden query "none" does not find c, d',
        'golden query "half" does not find b; the active version finds all',
    )


@pytest.mark.parametrize(
    ("threshold", "passes"), [(0.3, True), (0.3 + 1e-10, True), (0.3 + 1e-8, False), (0.0, True)]
)
async def test_the_threshold_is_reached_in_spite_of_rounding(
    threshold: float,
    passes: bool,  # noqa: FBT001 — a row
) -> None:
    # 0.1 + 0.1 + 0.1 is not 0.3, nor is their mean 0.1.
    names = {f"q{n}": tuple("abcdefghij") for n in range(3)}
    answers = Answers(v2=dict.fromkeys(names, "abc"))
    graded = await grade(exam(names, depth=10, threshold=threshold), answers, record(), None)
    assert (not graded.findings) == passes
    assert len(graded.misses) == 3


@pytest.mark.parametrize(("found", "passes"), [(5, True), (4, True), (3, False)])
async def test_the_active_version_may_be_better_by_no_more_than_the_drop(
    found: int,
    passes: bool,  # noqa: FBT001 — a row
) -> None:
    expected = tuple("abcdefghij")
    answers = Answers(v2={"q": "abcdefghij"[:found]}, v1={"q": "abcde"})
    asked = replace(exam({"q": expected}, depth=10), max_drop=0.1)
    graded = await grade(asked, answers, record(), pointer())
    assert (not graded.findings) == passes
    if not passes:
        assert "more than 0.1 below the 0.5000 of the active version 1" in graded.findings[0]


async def test_an_active_version_of_another_embedder_is_not_asked() -> None:
    other = pointer(embedder=replace(EMBEDDER.spec, dimension=8))
    for active in (other, None):
        answers = Answers(v2={"q": "a"})
        graded = await grade(exam({"q": ("a",)}), answers, record(), active)
        assert (graded.score.active, graded.score.active_version) == (None, 0)
        assert graded.findings == ()
        assert answers.asked == [(CANDIDATE, "q")]


async def test_the_active_version_itself_is_asked_once() -> None:
    answers = Answers(v2={"q": "a"})
    graded = await grade(exam({"q": ("a", "b")}), answers, record(), pointer(CANDIDATE))
    assert (graded.score.candidate, graded.score.active) == (0.5, 0.5)
    assert answers.asked == [(CANDIDATE, "q")]
    assert not graded.misses[0].active_finds


async def test_no_more_than_four_queries_run_at_once_and_each_runs_once() -> None:
    names = {f"q{n}": ("a",) for n in range(50)}
    answers = Answers(v1=dict.fromkeys(names, "a"), v2=dict.fromkeys(names, "a"))
    graded = await grade(exam(names), answers, record(), pointer())
    assert answers.most == 4
    assert sorted(answers.asked) == sorted((v, q) for v in (ACTIVE, CANDIDATE) for q in names)
    assert graded.score.candidate == graded.score.active == 1


@pytest.mark.parametrize("version", [ACTIVE, CANDIDATE])
async def test_a_query_that_fails_ends_the_examination(version: int) -> None:
    asked = exam({f"q{n}": ("a",) for n in range(20)})
    begun = 0

    async def ask(
        tenant: str, collection: str, number: int, query: str, depth: int
    ) -> list[FoundSource]:
        nonlocal begun
        del tenant, collection, depth
        begun += 1
        await asyncio.sleep(0)
        if (number, query) == (version, "q3"):
            raise Unavailable("no server answers")
        return [FoundSource("a", "")]

    with pytest.raises(Unavailable, match="no server answers"):
        await grade(asked, ask, record(), pointer())
    assert begun < 20


async def test_a_query_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_QUERY_TIMEOUT_S", 0.01)

    async def never(*_: object) -> list[FoundSource]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(DeadlineExceeded, match="version 2 of collection docs"):
        await grade(exam({"q": ("a",)}), never, record(), None)


async def test_misses_and_lines_are_bounded() -> None:
    names = {f"{n} " + "why\n" * 100: tuple("abcde") for n in range(120)}
    graded = await grade(
        exam(names, threshold=1.0), Answers(v2=dict.fromkeys(names, "x" * 3)), record(), None
    )
    assert len(graded.misses) == 100
    assert len(graded.findings) == 11
    told = graded.findings[1]
    assert told.startswith('golden query "0 why why')
    assert told.endswith('…" does not find a, b, c and 2 more')
    assert len(told) < 250
    many = Answers(v2={"q": [f"s{n}" for n in range(40)]})
    graded = await grade(exam({"q": ("a",)}, depth=40), many, record(), None)
    assert graded.misses[0].found == tuple(f"file:///lake/s{n}" for n in range(10))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"queries": ()}, "golden_queries:"),
        ({"queries": (GoldenQuery("q", ("a",)),) * 2001}, "golden_queries:"),
        ({"queries": (GoldenQuery(" ", ("a",)),)}, r"golden_queries\[0\].query"),
        ({"queries": (GoldenQuery("q", ()),)}, r"golden_queries\[0\].expected"),
        ({"queries": (GoldenQuery("q", ("a", "")),)}, r"golden_queries\[0\].expected"),
        ({"threshold": 1.1}, "golden_threshold"),
        ({"threshold": float("nan")}, "golden_threshold"),
        ({"max_drop": -0.1}, "golden_max_drop"),
        ({"depth": 0}, "golden_depth"),
        ({"depth": 101}, "golden_depth"),
    ],
)
def test_an_exam_that_cannot_be_is_refused_by_its_field(
    wrong: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument, match=field):
        replace(exam({"q": ("a",)}), **wrong)  # type: ignore[arg-type]  # one of its fields
