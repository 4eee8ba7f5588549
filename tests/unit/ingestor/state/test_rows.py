from hypothesis import given
from hypothesis import strategies as st

from ingestor.state.file_records import FileOutcome, FileRecord
from ingestor.state.rows import Rows, merged, to_batch
from ingestor.storage.listing import order

NAMES = ["a", "a/b", "a.b", "c", "a/\U0001f600"]
changes_of_names = st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=30)


def record(path, version=1, outcome=FileOutcome.INDEXED):
    return FileRecord(path, f"u/{path}", 1, 1, outcome, version=version, documents=version)


def test_a_row_is_a_record_again():
    written = FileRecord(
        "ü/a", "u/a", 1, 2, "dead_letter", "r", 3, 5, 7, "d", "read", "gone", "why", 1, 8, 9
    )
    rows = Rows(to_batch([record("a"), written]))
    assert len(rows) == 2
    assert rows.record(1) == written
    assert list(rows.records()) == [record("a"), written]
    assert list(rows.records(FileOutcome.DEAD_LETTER)) == [written]
    assert rows.documents(0, 2) == 8
    assert rows.documents(1, 2) == 7
    assert rows.documents(1, 1) == 0


@given(changes_of_names, st.integers(1, 7), st.booleans())
def test_merging_agrees_with_a_dictionary(changes, size, keep_removed):
    expected: dict[str, FileRecord] = {}
    segments: list[dict[str, FileRecord]] = []
    for version, (path, removed) in enumerate(changes, 1):
        outcome = FileOutcome.REMOVED if removed else FileOutcome.INDEXED
        row = record(path, version, outcome)
        if version % size == 1 or not segments:
            segments.append({})
        segments[-1][path] = row
        expected[path] = row
    streams = [
        [to_batch([row]) for row in sorted(segment.values(), key=lambda row: order(row.path))]
        for segment in reversed(segments)
    ]
    found = [
        row for batch in merged(streams, keep_removed=keep_removed) for row in Rows(batch).records()
    ]
    kept = [row for row in expected.values() if keep_removed or row.outcome != FileOutcome.REMOVED]
    assert found == sorted(kept, key=lambda row: order(row.path))
