from hypothesis import given
from hypothesis import strategies as st

from ingestor.faults import Fault, FaultStage
from ingestor.job.difference import Found, Same, Unknown, Unlisted, Vanished, differences
from ingestor.state.file_records import FileRecord
from ingestor.state.rows import Rows, to_batch
from ingestor.storage.listing import Batch, FileBatch, FileEntry, ListingFault, order

paths = st.lists(st.sampled_from(["a", "b", "a.b", "!"]), min_size=1, max_size=4).map("/".join)
states = st.integers(1, 3)


async def stream(items, size=1000):
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


async def rows(records, size=4096):
    for begin in range(0, len(records), size):
        yield Rows(to_batch(records[begin : begin + size]))


def record(path, size=1, outcome="indexed", recipe=""):
    return FileRecord(path, f"u/{path}", size, 1, outcome, recipe, documents=size)


def told(groups):
    """What was told, one item a file; a run as its rows."""
    for group in groups:
        for item in group:
            if isinstance(item, Same):
                for row in range(item.begin, item.end):
                    yield Same, item.rows.record(row).path
            elif isinstance(item, Found):
                yield (Found, item.record is not None), item.entry.path
            elif isinstance(item, Unlisted):
                yield (Unlisted, item.record is not None), item.fault.path
            else:
                yield type(item), item.record.path


@given(
    st.dictionaries(paths, states),
    st.dictionaries(paths, states),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 5),
)
async def test_every_file_is_met_once(listed, known, columns, batch, row_batch):
    ascending = sorted(listed, key=order)
    sizes = [listed[path] for path in ascending]
    listing: Batch
    if columns:
        listing = FileBatch("u/", ascending, sizes, [1] * len(ascending))
    else:
        listing = [FileEntry(path, f"u/{path}", listed[path], 1) for path in ascending]
    records = [record(path, known[path]) for path in sorted(known, key=order)]
    groups = [
        group async for group in differences(stream(listing, batch), rows(records, row_batch))
    ]
    expected: dict[str, object] = dict.fromkeys(listed.keys() - known.keys(), (Found, False))
    expected |= dict.fromkeys(known.keys() - listed.keys(), Vanished)
    for path in listed.keys() & known.keys():
        expected[path] = Same if listed[path] == known[path] else (Found, True)
    found = [(path, kind) for kind, path in told(groups)]
    assert len(found) == len(expected)
    assert dict(found) == expected
    assert [path for path, _ in found] == sorted(expected, key=order)


async def test_beneath_an_unlisted_folder_files_are_unknown_not_gone():
    fault = ListingFault("d", "u/d", Fault(FaultStage.LIST, "permission_denied", ""))
    listing = [FileEntry("a", "u/a", 1, 1), fault, FileEntry("z", "u/z", 1, 1)]
    records = [record(path) for path in ["a", "b", "d", "d/x", "d/y/z", "d.txt", "z"]]
    groups = [group async for group in differences(stream(listing), rows(records))]
    assert list(told(groups)) == [
        (Same, "a"),
        (Vanished, "b"),
        ((Unlisted, True), "d"),
        (Unknown, "d/x"),
        (Unknown, "d/y/z"),
        (Vanished, "d.txt"),
        (Same, "z"),
    ]


async def test_only_what_is_settled_by_todays_recipe_is_the_same():
    outcomes = ["indexed", "superseded", "dead_letter", "dropped", "partial"]
    records = [record(f"{n}", outcome=outcome) for n, outcome in enumerate(outcomes)]
    records += [record("5", recipe="old"), record("6", recipe="new")]
    listing = [FileEntry(row.path, row.uri, row.size, row.modified_us) for row in records]
    groups = [group async for group in differences(stream(listing), rows(records))]
    assert [path for kind, path in told(groups) if kind is Same] == ["0", "1"]
    recipes = {"6": "new", "1": "new"}
    groups = [
        group
        async for group in differences(
            stream(listing), rows(records), lambda path: recipes.get(path, "")
        )
    ]
    assert [path for kind, path in told(groups) if kind is Same] == ["0", "6"]


async def test_nothing_comes_in_large_groups():
    records = [record(f"{n:06}") for n in range(20_000)]
    listing = [FileEntry("999999", "u/999999", 1, 1)]
    groups = [group async for group in differences(stream(listing), rows(records))]
    assert sum(len(group) for group in groups) == 20_001
    assert max(len(group) for group in groups) <= 4096
