import pytest

from ingestor.state.file_records import (
    FileOutcome,
    FileRecord,
    Holding,
    Kinds,
    is_same,
    listed,
    next_version,
    unread,
)
from ingestor.storage.listing import FileEntry

ENTRY = FileEntry("a", "u/a", 10, 1000)
ALL = Kinds.PARTS | Kinds.OF_THIS_STATE


def record(version, *, size=10, modified_us=1000, recipe="r", kinds=ALL):
    return FileRecord(
        "a",
        "u/a",
        size,
        modified_us,
        FileOutcome.PARTIAL,
        recipe,
        version=version,
        kinds=int(kinds),
    )


@pytest.mark.parametrize(
    ("known", "held", "version"),
    [
        (None, 0, 1000),
        # What only the index tells of: its time is the file's, or it is of another state.
        (None, 999, 1000),
        (None, 1000, 1000),
        (None, 1001, 1002),
        (unread("a", "u/a", Holding(1000, Kinds.PARTS, 1)), 0, 1000),
        (unread("a", "u/a", Holding(1001, Kinds.PARTS, 1)), 0, 1002),
        # This very state, some of it sent before: the same version again.
        (record(1000), 0, 1000),
        (record(5000), 0, 5000),
        # This state, but nothing of it was sent: the version is an older state's.
        (record(1000, kinds=Kinds.PARTS), 0, 1001),
        (record(5000, kinds=Kinds.PARTS), 0, 5001),
        # Another state.
        (record(999, modified_us=999), 0, 1000),
        (record(5000, modified_us=5000), 0, 5001),
        (record(1000, size=9), 0, 1001),
        (record(1000, recipe="other"), 0, 1001),
        # The row is of an older state, and a job that was killed has sent this one.
        (record(900, modified_us=900), 1000, 1000),
        (record(900, modified_us=900), 1001, 1002),
    ],
)
def test_a_state_has_one_version_and_no_two_states_the_same(known, held, version):
    holding = known.holding if known else Holding()
    if held:
        holding = holding.joined(Holding(held, Kinds.PARTS, 1))
    assert next_version(ENTRY, "r", known, holding) == version


def test_without_a_time_versions_count_up():
    timeless = FileEntry("a", "u/a", 10, 0)
    assert next_version(timeless, "", None, Holding()) == 1
    assert next_version(timeless, "", None, Holding(1, Kinds.PARTS, 3)) == 2


def test_the_same_is_size_time_and_recipe():
    row = record(1)
    assert is_same(ENTRY, "r", row)
    assert not is_same(ENTRY, "", row)
    assert not is_same(FileEntry("a", "u/a", 10, 1001), "r", row)
    assert not is_same(FileEntry("a", "u/a", 11, 1000), "r", row)
    assert not is_same(FileEntry("a", "u/a", 0, 0), "", unread("a", "u/a", Holding()))


def test_what_holds_nothing_holds_no_kind():
    row = listed(ENTRY, "r", FileOutcome.DEAD_LETTER, Holding(0, ALL, 3))
    assert row.holding == Holding()
