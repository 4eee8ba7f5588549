import random
from collections.abc import Iterable, Iterator

from ingestor.storage.hdfs_order import in_order
from ingestor.storage.listing import MAX_BATCH, ListingFault
from ingestor.storage.storages import Chunk

CHARACTERS = "a~\x7f\u00e9\ud7ff\ue000\uffee\uffff😀𐀀\U0010ffff"


def of_name_node(name: str) -> list[int]:
    """What a name node compares."""
    return [byte - 256 if byte > 127 else byte for byte in name.encode()]


def listed(folder: str, names: Iterable[str], size: int = 3) -> Iterator[Chunk]:
    """As chunks, in the name node's order; every name with an 'a' in it is a folder."""
    paths = [f"{folder}/{name}".lstrip("/") for name in sorted(names, key=of_name_node)]
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        folders: list[tuple[int, ListingFault | None]] = [
            (place, None) for place, path in enumerate(part) if "a" in path
        ]
        yield Chunk(part, [len(path) for path in part], [hash(path) for path in part], folders)


def test_any_names_come_in_the_order_of_code_points():
    shuffle = random.Random(7)
    for folder in ("", "a/é"):
        for _ in range(200):
            lengths = (shuffle.randint(1, 4) for _ in range(40))
            names = {"".join(shuffle.choices(CHARACTERS, k=length)) for length in lengths}
            chunks = list(in_order(folder, listed(folder, names)))
            paths = [path for chunk in chunks for path in chunk.paths]
            assert paths == sorted(f"{folder}/{name}".lstrip("/") for name in names)
            for chunk in chunks:
                assert chunk.sizes == [len(path) for path in chunk.paths]
                assert chunk.modified_us == [hash(path) for path in chunk.paths]
                folders = [place for place, path in enumerate(chunk.paths) if "a" in path]
                assert chunk.others == [(place, None) for place in folders]


def test_a_name_is_held_back_no_longer_than_needed():
    given = 0

    def counted():
        nonlocal given
        for chunk in listed("", [f"{letter}{tail}" for letter in "abcd" for tail in "é2"], size=2):
            given += 1
            yield chunk

    chunks = in_order("", counted())
    found: list[str] = []
    while len(found) < 2:
        found += next(chunks).paths
    assert found == ["a2", "aé"]
    assert given == 2


def test_ascii_names_stream_and_what_is_held_comes_in_bounded_chunks():
    plain = [Chunk([f"{n:05d}"], [1], [1], []) for n in range(3)]
    assert list(in_order("", iter(plain))) == plain
    names = [f"é{number:05d}" for number in range(2 * MAX_BATCH + 5)]
    sizes = [len(chunk.paths) for chunk in in_order("", listed("", names, size=MAX_BATCH))]
    assert sizes == [0, 0, 0, MAX_BATCH, MAX_BATCH, 5]
