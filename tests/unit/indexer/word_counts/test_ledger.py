"""A ledger of words agrees with itself at every moment, and is made anew where it cannot."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

import pytest

from common.errors import Unavailable
from indexer.word_counts.ledger import DamagedLedger, Ledger
from tests.unit.indexer.word_counts.counting_by_hand import counts, recount, said

if TYPE_CHECKING:
    from pathlib import Path

ANALYSIS = 1


@pytest.fixture(params=["file", "temporary"])
def ledger(request, tmp_path):
    path = tmp_path / "ledger" if request.param == "file" else None
    opened = Ledger.open(path, ANALYSIS)
    yield opened
    opened.close()


def compare(ledger, held):
    """One pass: bring the ledger to these chunks, three at a time."""
    ledger.begin_listing()
    names = list(held)
    for start in range(0, len(names), 5):
        ledger.list_held(names[start : start + 6])  # pages may overlap
    gone = ledger.discount_unlisted()
    after, added = "", 0
    while lot := ledger.uncounted(after, 3):
        after = lot[-1]
        ledger.count(lot, counts(held[name] for name in lot))
        added += len(lot)
    return added, gone


def written(path, held):
    ledger = Ledger.open(path, ANALYSIS)
    compare(ledger, held)
    ledger.close()


def test_a_new_ledger_counts_nothing(ledger):
    assert said(ledger.table()) == recount({})


def test_a_ledger_follows_whatever_the_store_holds(ledger):
    rng = random.Random(7)
    held: dict[str, list[int]] = {}
    for _ in range(40):
        for name in rng.sample(sorted(held), len(held) // 3):
            del held[name]
        fresh = {f"c{rng.randrange(400)}" for _ in range(rng.randrange(30))} - held.keys()
        for name in sorted(fresh):
            # A chunk's name fixes its words, and the highest hash is one too.
            words = random.Random(name)
            held[name] = [
                words.choice((1, 5, 2**32 - 1, words.randrange(60) + 9)) for _ in range(9)
            ]
        compare(ledger, held)
        assert said(ledger.table()) == recount(held)


def test_only_what_changed_is_counted_and_taken_back(ledger):
    assert compare(ledger, {"a": [1], "b": [2]}) == (2, 0)
    assert compare(ledger, {"b": [2], "c": [3]}) == (1, 1)
    assert compare(ledger, {"b": [2], "c": [3]}) == (0, 0)


def test_more_chunks_than_one_step_takes_back_go(ledger):
    held = {f"c{n:05d}": [n % 7, 8] for n in range(2_500)}
    ledger.begin_listing()
    ledger.list_held(list(held))
    ledger.count(list(held), counts(held.values()))
    kept = {name: words for name, words in held.items() if name > "c02400"}
    assert compare(ledger, kept) == (0, 2_401)
    assert said(ledger.table()) == recount(kept)


def test_a_chunk_without_words_counts_as_a_chunk(ledger):
    compare(ledger, {"a": []})
    assert said(ledger.table()) == recount({"a": []})


def test_a_file_outlives_who_wrote_it(tmp_path):
    held = {"a": [1, 2], "b": [2]}
    written(tmp_path / "ledger", held)
    again = Ledger.open(tmp_path / "ledger", ANALYSIS)
    assert compare(again, held) == (0, 0)
    assert said(again.table()) == recount(held)
    again.close()


def test_a_step_that_fails_leaves_the_ledger_as_it_was(ledger):
    compare(ledger, {"a": [1], "b": [2]})
    with pytest.raises(DamagedLedger):
        ledger.count(["c", "a"], counts([[3], [1]]))  # one of them was counted
    assert said(ledger.table()) == recount({"a": [1], "b": [2]})


def test_a_ledger_of_other_rules_is_begun_anew(tmp_path):
    written(tmp_path / "ledger", {"a": [1]})
    later = Ledger.open(tmp_path / "ledger", ANALYSIS + 1)
    assert said(later.table()) == recount({})
    assert later.table().analysis == ANALYSIS + 1
    later.close()


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database at all, but long enough to be one" * 100),
        lambda path: path.write_bytes(b""),
        foreign,
    ],
)
def test_what_is_no_ledger_is_begun_anew(tmp_path, spoil):
    spoil(tmp_path / "ledger")
    ledger = Ledger.open(tmp_path / "ledger", ANALYSIS)
    compare(ledger, {"a": [1]})
    assert said(ledger.table()) == recount({"a": [1]})
    ledger.close()


def meddle(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE totals",
        "UPDATE terms SET frequency = frequency + 1 WHERE hash = 2",
        "UPDATE terms SET frequency = -1 WHERE hash = 1",
        "DELETE FROM terms WHERE hash = 1",
        "DELETE FROM chunks WHERE chunk_id = 'a'",
        "UPDATE totals SET chunks = 1",
    ],
)
def test_a_sum_that_is_not_that_of_the_chunks_is_found(tmp_path, statement):
    written(tmp_path / "ledger", {"a": [1, 2], "b": [2], "c": [9]})
    meddle(tmp_path / "ledger", statement)
    ledger = Ledger.open(tmp_path / "ledger", ANALYSIS)
    with pytest.raises(DamagedLedger):
        ledger.table()
    ledger.close()


def test_a_ledger_is_one_process_at_a_time(tmp_path):
    first = Ledger.open(tmp_path / "ledger", ANALYSIS)
    compare(first, {"a": [1]})
    with pytest.raises(Unavailable, match="folder of its own"):
        Ledger.open(tmp_path / "ledger", ANALYSIS)
    assert said(first.table()) == recount({"a": [1]})
    first.close()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unavailable, match=r"indexer\.word_counts\.folder"):
        Ledger.open(tmp_path / "absent" / "ledger", ANALYSIS)
