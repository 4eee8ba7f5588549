from hypothesis import given
from hypothesis import strategies as st

from ingestor.difference import Found, Unknown, Unlisted, Vanished, differences
from ingestor.faults import Fault, FaultStage
from ingestor.file_records import FileRecord
from ingestor.sources import FileEntry, ListingFault, order

paths = st.lists(st.sampled_from(["a", "b", "a.b", "!"]), min_size=1, max_size=4).map("/".join)


async def stream(items):
    for item in items:
        yield item


def record(path):
    return FileRecord(path, f"u/{path}", 1, 1, "indexed")


@given(st.sets(paths), st.sets(paths))
async def test_every_file_is_met_once(listed, known):
    listing = [FileEntry(path, "", 1, 1) for path in sorted(listed, key=order)]
    records = [record(path) for path in sorted(known, key=order)]
    found, vanished = {}, set()
    async for item in differences(stream(listing), stream(records)):
        if isinstance(item, Found):
            assert item.entry.path not in found
            found[item.entry.path] = item.record
        else:
            assert isinstance(item, Vanished)
            assert item.record.path not in vanished
            vanished.add(item.record.path)
    assert found.keys() == listed
    assert {path for path, row in found.items() if row} == listed & known
    assert vanished == known - listed


async def test_beneath_an_unlisted_folder_files_are_unknown_not_gone():
    fault = ListingFault("d", "u/d", Fault(FaultStage.LIST, "permission_denied", ""))
    listing = [FileEntry("a", "", 1, 1), fault, FileEntry("z", "", 1, 1)]
    records = [record(path) for path in ["a", "b", "d", "d/x", "d/y/z", "d.txt", "z"]]
    kinds = [
        (type(item), item.record and item.record.path)
        async for item in differences(stream(listing), stream(records))
    ]
    assert kinds == [
        (Found, "a"),
        (Vanished, "b"),
        (Unlisted, "d"),
        (Unknown, "d/x"),
        (Unknown, "d/y/z"),
        (Vanished, "d.txt"),
        (Found, "z"),
    ]
