"""Puts HDFS's listing of a folder into the order of the names' code points, as it streams.

A name node compares the bytes of names as signed numbers (Hadoop's ``DFSUtilClient.compareBytes``):
where two names part, what is beyond ASCII comes before what is ASCII. Among ASCII names nothing
changes. A name beyond ASCII is held back for as long as names follow that begin with the same ASCII
characters as it does; in a folder whose names begin beyond ASCII that is to its end, at some 200
bytes an entry.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

from ingestor.storage.listing import MAX_BATCH
from ingestor.storage.storages import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASCII = re.compile(r"[\x00-\x7f]*")


def in_order(folder: str, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks of a folder, ascending; an empty one where all of a chunk is held back."""
    skipped = len(folder) + 1 if folder else 0
    held = _Held()
    prefix: str | None = None  # of all that is held
    for chunk in chunks:
        paths = chunk.paths
        names = [path[skipped:] for path in paths] if skipped else paths
        if prefix is None and all(map(str.isascii, names)):
            yield chunk
            continue
        folders = {place for place, _ in chunk.others}
        ready = _Held()
        for place, name in enumerate(names):
            if prefix is not None and not name.startswith(prefix):
                yield from held.taken()
                prefix = None
            if prefix is None and not name.isascii():
                yield from ready.taken()
                prefix = _ASCII.match(name)[0]  # type: ignore[index]  # it matches anything
            row = (paths[place], chunk.sizes[place], chunk.modified_us[place], place in folders)
            (ready if prefix is None else held).add(*row)
        yield from ready.taken()
        if prefix is not None:
            yield Chunk([], [], [], [])
    yield from held.taken()


class _Held:
    """Entries by columns, since they may be many."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._numbers = array("q")  # size and modification time of each
        self._folders: set[str] = set()

    def add(self, path: str, size: int, modified_us: int, is_folder: bool) -> None:  # noqa: FBT001 — a column
        self._paths.append(path)
        self._numbers.extend((size, modified_us))
        if is_folder:
            self._folders.add(path)

    def taken(self) -> Iterator[Chunk]:
        """Everything, ascending; nothing is left."""
        paths, numbers, folders = self._paths, self._numbers, self._folders
        self._paths, self._numbers, self._folders = [], array("q"), set()
        places = sorted(range(len(paths)), key=paths.__getitem__)
        for start in range(0, len(places), MAX_BATCH):
            part = places[start : start + MAX_BATCH]
            names = [paths[place] for place in part]
            yield Chunk(
                names,
                [numbers[2 * place] for place in part],
                [numbers[2 * place + 1] for place in part],
                [(place, None) for place, name in enumerate(names) if name in folders],
            )
