"""What a source needs of a file system, blocking: a root, its folders in order, and its files.

Errors are those of the operating system: FileNotFoundError, PermissionError and so on, and what
``outage.is_passing`` knows of a storage that is out of reach. Nothing is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestor.storage.listing import FileEntry, ListingFault


@dataclass(frozen=True, slots=True)
class Chunk:
    """Children of one folder: at most ``listing.MAX_BATCH``, as columns; none while it takes time.

    Attributes:
        paths: relative to the root; ascending, unless the storage breaks its own order.
        sizes: bytes; of a file only.
        modified_us: modification times in µs; of a file only.
        others: places of what is no file, ascending; None there is a folder.
    """

    paths: list[str]
    sizes: list[int]
    modified_us: list[int]
    others: list[tuple[int, ListingFault | None]]


class StoredFile(Protocol):
    """A file opened for reading at any place; from one thread at a time."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the file."""

    def close(self) -> None:
        """Close it."""


class Storage(Protocol):
    """A root in a file system; safe from many threads.

    Attributes:
        file_name: of a root that is a single file; None if it is a folder.
        root_uri: canonical; a folder's ends with a slash.
        generation: grows with ``renew``.
    """

    file_name: str | None
    root_uri: str

    def open_root(self) -> None:
        """Look what is there; before any other call.

        FileNotFoundError if nothing is, FailedPrecondition if it is neither a file nor a folder.
        """

    @property
    def generation(self) -> int:
        """How often it was renewed."""

    def renew(self, generation: int) -> None:
        """Connect anew after a call of this generation did not return in time."""

    def chunks(self, folder: str) -> Iterator[Chunk]:
        """The children of a folder, given relative to the root; may be asked for at once."""

    def stat(self, path: str) -> FileEntry | None:
        """The file as it is now; None if there is none."""

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """The whole file; None if it is longer than that."""

    def open(self, path: str) -> StoredFile:
        """Open a file."""
