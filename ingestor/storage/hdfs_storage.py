"""HDFS by the native client, as a storage: folders stream from the name node, files are read whole.

Status comes with the listing: no file is asked for by itself. The name node's own order is not that
of names' code points, so ``hdfs_order`` stands behind it.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from ingestor.storage.hdfs_errors import translated
from ingestor.storage.hdfs_order import in_order
from ingestor.storage.listing import MAX_BATCH, FileEntry
from ingestor.storage.storages import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from hdfs_native import FileReader, FileStatus

    from ingestor.storage.daemon_threads import DaemonThreads
    from ingestor.storage.hdfs_client import HdfsClient

# The client holds what it reads three times for a moment; by pieces, once and a piece.
_PIECE_BYTES = 4 * 2**20


class HdfsStorage:
    """A root in HDFS; see ``storages.Storage``."""

    def __init__(self, client: HdfsClient, path: str, uri: str) -> None:
        self._client = client
        self._path = path
        self.file_name: str | None = None
        self.root_uri = f"{uri}/"

    def open_root(self) -> None:
        """See ``Storage``."""
        with translated():
            is_folder = self._client.native.get_file_info(self._path).isdir
        if not is_folder:
            self.file_name = self._path.rpartition("/")[2]
            self.root_uri = self.root_uri.rstrip("/")

    @property
    def generation(self) -> int:
        """See ``Storage``."""
        return self._client.generation

    def renew(self, generation: int) -> None:
        """See ``Storage``."""
        self._client.renew(generation)

    def chunks(self, folder: str) -> Iterator[Chunk]:
        """See ``Storage``."""
        statuses = self._client.native.list_status(self._full(folder))
        skipped = len(self._path.rstrip("/")) + 1
        return in_order(folder, _Chunks(statuses, skipped, self._client.threads))

    def stat(self, path: str) -> FileEntry | None:
        """See ``Storage``."""
        try:
            with translated():
                status = self._client.native.get_file_info(self._full(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if status.isdir:
            return None
        uri = self.root_uri if self.file_name is not None else self.root_uri + quote(path)
        return FileEntry(path, uri, status.length, status.modification_time * 1000)

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See ``Storage``."""
        file = self.open(path)
        return None if file.size > max_bytes else file.read_at(0, file.size)

    def open(self, path: str) -> HdfsFile:
        """See ``Storage``."""
        with translated():
            return HdfsFile(self._client.native.read(self._full(path)))

    def _full(self, path: str) -> str:
        if self.file_name is not None or not path:
            return self._path
        return f"{self._path.rstrip('/')}/{path}"


class _Chunks:
    """A folder's listing, of which the next chunk is always on its way."""

    def __init__(
        self, statuses: Iterator[FileStatus], skipped: int, threads: DaemonThreads
    ) -> None:
        self._statuses = statuses
        self._skipped = skipped
        self._threads = threads
        self._coming: Future[list[FileStatus]] | None = threads.submit(self._fetch)

    def __iter__(self) -> _Chunks:
        return self

    def __next__(self) -> Chunk:
        found = [] if self._coming is None else self._coming.result()
        if not found:
            raise StopIteration
        is_full = len(found) == MAX_BATCH
        self._coming = self._threads.submit(self._fetch) if is_full else None
        folders = [status.isdir for status in found]
        return Chunk(
            [status.path[self._skipped :] for status in found],
            [status.length for status in found],
            [status.modification_time * 1000 for status in found],
            [(place, None) for place, is_folder in enumerate(folders) if is_folder]
            if True in folders
            else [],
        )

    def _fetch(self) -> list[FileStatus]:
        with translated():
            return list(islice(self._statuses, MAX_BATCH))


class HdfsFile:
    """A file opened for reading; see ``storages.StoredFile``."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self.size = len(reader)

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``StoredFile``."""
        end = min(offset + length, self.size)
        with translated():
            if end - offset <= _PIECE_BYTES:
                read: bytes = self._reader.read_range(offset, end - offset) if end > offset else b""
                return read
            return b"".join(
                self._reader.read_range(start, min(_PIECE_BYTES, end - start))
                for start in range(offset, end, _PIECE_BYTES)
            )

    def close(self) -> None:
        """See ``StoredFile``."""
