"""What stands in an answer: groups once, neighbours joined, no document beyond its share."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from common import records
from common.identity import ChunkId, chunk_id
from query.duplicates import MAX_DUPLICATES
from query.passages import MAX_GAP, Arrangement, Located, joined

if TYPE_CHECKING:
    from query.passages import Passage

TEXT = "".join(f"Sentence {n} of it.{' ' if n % 3 else chr(10) * 2}" for n in range(400))


def located(
    rank: int, document: str, ordinal: int, *, span: tuple[int, int] | None = None
) -> Located:
    """A chunk of 30 characters of TEXT, of which 10 are the next one's too."""
    start, end = span or (20 * ordinal, 20 * ordinal + 30)
    name = ChunkId(document, "r", ordinal)
    return Located(
        rank=rank,
        index=100 + rank,
        id=name,
        chunk_id=chunk_id(*name),
        chunk={records.START: start, records.END: end, records.PAGE: ordinal + 1},
        head={records.SOURCE_URI: f"file:///{document}", records.TITLE: document.upper()},
        text=TEXT[start:end].encode(),
    )


def arranged(
    places: list[str],
    groups: dict[int, int] | None = None,
    *,
    count: int = 10,
    share: int = 0,
    merge: bool = False,
) -> tuple[list[Passage], Arrangement]:
    """Take chunks by rank, "a3" being chunk 3 of document a; ``groups`` has leaders by rank."""
    chunks = [located(rank, place[0], int(place[1:])) for rank, place in enumerate(places)]
    arrangement = Arrangement(count, max_per_document=share, merge_neighbours=merge)
    leaders = [(groups or {}).get(chunk.rank, chunk.rank) for chunk in chunks]
    arrangement.expect(zip(chunks, leaders, strict=True))
    for chunk, leader in zip(chunks, leaders, strict=True):
        arrangement.take(chunk, leader)
    return arrangement.passages(), arrangement


def told(passages: list[Passage]) -> list[str]:
    """Of each passage its chunks, best first, and after a bar its duplicates."""
    return [
        " ".join(_short(name) for name in passage.merged or [passage.chunk_id])
        + "".join(f" |{_short(copy.chunk_id)}" for copy in passage.duplicates)
        for passage in passages
    ]


def _short(name: str) -> str:
    document, _, ordinal = name.split(":")
    return document + ordinal


def test_with_nothing_asked_every_chunk_stands_for_itself():
    passages, arrangement = arranged(["a1", "b0", "a2", "c7"], count=3)
    assert told(passages) == ["a1", "b0", "a2"]
    assert arrangement.is_full
    assert [passage.index for passage in passages] == [100, 101, 102]
    first = passages[0]
    assert (first.text, first.span, first.page) == (TEXT[20:50], (20, 50), 2)
    assert (first.document_id, first.head[records.TITLE]) == ("a", "A")
    assert first.merged == ()


def test_a_text_counts_once_and_lists_its_other_places():
    groups = {2: 0, 3: 1, 5: 0}
    passages, _ = arranged(["a0", "b0", "c0", "c1", "d0", "a9"], groups, count=3)
    assert told(passages) == ["a0 |c0 |a9", "b0 |c1", "d0"]
    copy = passages[0].duplicates[0]
    assert (copy.document_id, copy.source_uri, copy.title) == ("c", "file:///c", "C")
    assert copy.span == (0, 30)


def test_duplicates_are_listed_beyond_the_last_place():
    passages, _ = arranged(["a0", "b0", "c0"], {2: 0}, count=1)
    assert told(passages) == ["a0 |c0"]


def test_a_bounded_number_of_duplicates_is_listed():
    places = ["a0", *(f"b{n}" for n in range(MAX_DUPLICATES + 5))]
    passages, _ = arranged(places, dict.fromkeys(range(1, len(places)), 0))
    assert [copy.chunk_id for copy in passages[0].duplicates] == [
        chunk_id("b", "r", n) for n in range(MAX_DUPLICATES)
    ]


def test_no_document_has_more_than_its_share():
    passages, arrangement = arranged(["a0", "a2", "a4", "b0", "a6", "b2"], share=2, count=5)
    assert told(passages) == ["a0", "a2", "b0", "b2"]
    assert not arrangement.is_full


def test_a_text_is_shown_by_the_first_of_its_documents_that_has_a_place():
    passages, _ = arranged(["a0", "a2", "b0", "c0"], {2: 1, 3: 1}, share=1)
    assert told(passages) == ["a0", "b0 |a2 |c0"]
    assert [passage.index for passage in passages] == [100, 102]


def test_neighbours_become_one_passage_where_the_best_of_them_stood():
    passages, _ = arranged(["b0", "a3", "c0", "a1", "a2"], merge=True)
    assert told(passages) == ["b0", "a1 a2 a3", "c0"]
    merged = passages[1]
    assert (merged.index, merged.chunk_id) == (101, chunk_id("a", "r", 3))
    assert (merged.span, merged.text, merged.page) == ((20, 90), TEXT[20:90], 2)


def test_neighbours_that_are_not_to_merge_do_not():
    passages, _ = arranged(["a3", "a2", "b2"])
    assert told(passages) == ["a3", "a2", "b2"]


def test_merging_goes_on_until_one_more_passage_would_begin():
    passages, arrangement = arranged(["a0", "a1", "b0", "b1", "c0", "b2"], count=2, merge=True)
    assert told(passages) == ["a0 a1", "b0 b1"]
    assert arrangement.is_full
    # A bridge makes room for one more.
    passages, _ = arranged(["a0", "a2", "a1", "b0", "c0"], count=2, merge=True)
    assert told(passages) == ["a0 a1 a2", "b0"]


def test_a_passage_is_one_of_its_documents_share():
    passages, _ = arranged(["a0", "a5", "a1", "b0", "a2"], share=1, merge=True)
    assert told(passages) == ["a0 a1 a2", "b0"]


def test_a_chunk_beyond_the_share_joins_when_its_neighbour_comes():
    passages, _ = arranged(["a1", "a3", "a4", "b0", "a2"], share=1, merge=True)
    assert told(passages) == ["a1 a2 a3 a4", "b0"]


def test_the_share_that_a_bridge_frees_goes_to_the_best_that_waits():
    passages, _ = arranged(["a1", "a3", "a7", "a9", "a2"], share=2, merge=True)
    assert told(passages) == ["a1 a2 a3", "a7"]


def test_copies_of_a_document_merge_in_one_of_them():
    places = ["a0", "b0", "b1", "a1", "b3", "c3", "a3", "c2", "b2", "a2"]
    groups = {1: 0, 3: 2, 5: 4, 6: 4, 8: 7, 9: 7}
    passages, _ = arranged(places, groups, merge=True)
    assert told(passages) == ["a0 a1 a2 a3 |b0 |b1 |b3 |c3 |c2 |b2"]
    assert passages[0].index == 100


@pytest.mark.parametrize("gap", [1, 2, 3, 8])
def test_white_space_between_chunks_keeps_its_length(gap: int):
    texts = [("one", (10, 13)), ("two", (13 + gap, 16 + gap))]
    text = joined(texts)
    assert text.split() == ["one", "two"]
    assert len(text) == 6 + gap


def test_white_space_as_it_most_often_is():
    assert joined([("a.", (0, 2)), ("B.", (3, 5))]) == "a. B."
    assert joined([("a.", (0, 2)), ("B.", (4, 6))]) == "a.\n\nB."
    assert joined([("if a:", (0, 5)), ("b()", (10, 13))]) == "if a:\n    b()"


def test_a_chunk_within_another_adds_nothing():
    assert joined([("one two", (0, 7)), ("two", (4, 7)), ("three", (8, 13))]) == "one two three"


def test_beyond_a_bounded_gap_chunks_stay_apart():
    for gap, expected in ((MAX_GAP, 1), (MAX_GAP + 1, 2)):
        arrangement = Arrangement(5, max_per_document=0, merge_neighbours=True)
        chunks = [located(0, "a", 0), located(1, "a", 1, span=(30 + gap, 60 + gap))]
        arrangement.expect((chunk, chunk.rank) for chunk in chunks)
        for chunk in chunks:
            arrangement.take(chunk, chunk.rank)
        assert len(arrangement.passages()) == expected


@pytest.mark.parametrize("seed", range(200))
def test_what_holds_of_any_arrangement(seed: int):
    rng = random.Random(seed)
    places = [f"{d}{n}" for d in "abc" for n in range(12)]
    places = rng.sample(places, rng.randint(1, len(places)))
    groups: dict[int, int] = {}
    for rank in range(1, len(places)):
        if rng.random() < 0.2:
            other = rng.randrange(rank)
            groups[rank] = groups.get(other, other)
    count, share, merge = rng.randint(1, 12), rng.choice([0, 1, 2, 5]), rng.random() < 0.7
    passages, arrangement = arranged(places, groups, count=count, share=share, merge=merge)
    assert arrangement.is_full == (len(passages) == count)
    indices = [passage.index for passage in passages]
    assert indices == sorted(set(indices))
    stands = [name for passage in passages for name in passage.merged or [passage.chunk_id]]
    listed = [copy.chunk_id for passage in passages for copy in passage.duplicates]
    assert len({*stands, *listed}) == len(stands) + len(listed)
    ranks = {chunk_id(place[0], "r", int(place[1:])): rank for rank, place in enumerate(places)}
    leaders = [groups.get(ranks[name], ranks[name]) for name in stands]
    assert len(set(leaders)) == len(leaders), "no text twice"
    for passage in passages:
        start, end = passage.span
        assert passage.text == TEXT[start:end]
    spans: dict[str, list[tuple[int, int]]] = {}
    for passage in passages:
        spans.setdefault(passage.document_id, []).append(passage.span)
    for of_document in spans.values():
        assert len(of_document) <= (share or count)
        if merge:
            # Neighbours overlap by 10 characters, so what stands apart does not touch.
            assert all(left[1] <= right[0] for left, right in pairwise(sorted(of_document)))
    if not arrangement.is_full and not share:
        shown = {groups.get(rank, rank) for rank in range(len(places))}
        assert set(leaders) == shown, "with room left nothing is lost"
