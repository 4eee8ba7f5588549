"""What a walk over a source yields: batches of files and what could not be listed.

A batch of files is columns, so that a listing of millions makes no object a file; a ``FileEntry``
is made when one is asked for. Values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, overload
from urllib.parse import quote

if TYPE_CHECKING:
    from ingestor.faults import Fault

MAX_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as listed; ``path`` is relative to the root, sizes in bytes, times in µs."""

    path: str
    uri: str
    size: int
    modified_us: int


@dataclass(frozen=True, slots=True)
class ListingFault:
    """A folder that could not be listed, or an entry that is no file or cannot be looked at.

    Files may be beneath it, unseen, if it ``may_be_folder``.
    """

    path: str
    uri: str
    fault: Fault
    may_be_folder: bool = False


class FileBatch(Sequence[FileEntry]):
    """Files of a walk, in its order.

    Attributes:
        root_uri: ends with a slash; a file's URI is it and the percent-encoded path.
        paths: relative to the root.
        sizes: bytes.
        modified_us: modification times in µs.
    """

    __slots__ = ("modified_us", "paths", "root_uri", "sizes")

    def __init__(
        self, root_uri: str, paths: list[str], sizes: list[int], modified_us: list[int]
    ) -> None:
        self.root_uri = root_uri
        self.paths = paths
        self.sizes = sizes
        self.modified_us = modified_us

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> FileEntry: ...
    @overload
    def __getitem__(self, place: slice) -> FileBatch: ...
    def __getitem__(self, place: int | slice) -> FileEntry | FileBatch:
        if isinstance(place, slice):
            return FileBatch(
                self.root_uri, self.paths[place], self.sizes[place], self.modified_us[place]
            )
        path = self.paths[place]
        uri = self.root_uri + quote(path)
        return FileEntry(path, uri, self.sizes[place], self.modified_us[place])


# What a walk yields at a time; never empty.
Batch: TypeAlias = FileBatch | Sequence[FileEntry | ListingFault]


def order(path: str) -> str:
    """Sort key of a path: compares component by component."""
    return path.replace("/", "\0")
