"""Any file system of ``pyarrow.fs``, as a storage: one folder is listed at a time, and sorted.

On the local file system an entry that cannot be looked at costs itself, not its folder, and links
to folders are left out. Through libhdfs a name with characters beyond the Basic Multilingual Plane
arrives in Java's own encoding: such a file is a fault; and times are whole seconds.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pyarrow import fs

from common.errors import FailedPrecondition
from ingestor.faults import Cause, Fault, FaultStage, os_fault
from ingestor.storage.listing import MAX_BATCH, FileEntry, ListingFault
from ingestor.storage.storages import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

_READ_BYTES = 4 * 2**20


class PyArrowStorage:
    """A root in a file system of pyarrow; see ``storages.Storage``."""

    def __init__(self, filesystem: fs.FileSystem, path: str, uri: str) -> None:
        self._filesystem = filesystem
        self._is_local = filesystem.type_name == "local"
        self._path = path
        self.file_name: str | None = None
        self.root_uri = f"{uri}/"
        self.generation = 0

    def open_root(self) -> None:
        """See ``Storage``."""
        match self._look(self._path).type:
            case fs.FileType.Directory:
                pass
            case fs.FileType.File:
                self.file_name = self._path.rpartition("/")[2]
                self.root_uri = self.root_uri.rstrip("/")
            case fs.FileType.NotFound:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            case _:
                raise FailedPrecondition(
                    f"{self.root_uri.rstrip('/')} is neither a file nor a folder"
                )

    def renew(self, generation: int) -> None:
        """Nothing to do: these clients have bounds of their own."""

    def chunks(self, folder: str) -> Iterator[Chunk]:
        """See ``Storage``."""
        items: dict[str, tuple[int, int, bool, ListingFault | None]] = {}
        for info in self._infos(folder):
            fault = info if isinstance(info, ListingFault) else self._add(items, folder, info)
            if fault is not None:
                items[fault.path] = (0, 0, True, fault)
        paths = sorted(items)
        for start in range(0, len(paths), MAX_BATCH):
            part = paths[start : start + MAX_BATCH]
            rows = [items[path] for path in part]
            others = [(place, row[3]) for place, row in enumerate(rows) if row[2]]
            yield Chunk(part, [row[0] for row in rows], [row[1] for row in rows], others)

    def stat(self, path: str) -> FileEntry | None:
        """See ``Storage``."""
        info = self._look(self._full(path))
        if info.type is not fs.FileType.File:
            return None
        return FileEntry(path, self._uri(path), info.size, _modified_us(info))

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See ``Storage``."""
        pieces: list[bytes] = []
        size = 0
        with self._filesystem.open_input_stream(self._full(path), compression=None) as stream:
            while piece := stream.read(min(_READ_BYTES, max_bytes + 1 - size)):
                pieces.append(piece)
                size += len(piece)
                if size > max_bytes:
                    return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def open(self, path: str) -> PyArrowFile:
        """See ``Storage``."""
        return PyArrowFile(self._filesystem.open_input_file(self._full(path)))

    def _look(self, full: str) -> fs.FileInfo:
        info = self._filesystem.get_file_info(full)
        if info.type is fs.FileType.NotFound and self._filesystem.type_name == "hdfs":
            # Through libhdfs every failure looks like absence; opening tells which it is.
            with suppress(FileNotFoundError):
                self._filesystem.open_input_file(full).close()
        return info

    def _infos(self, folder: str) -> Iterator[fs.FileInfo | ListingFault]:
        full = self._full(folder)
        try:
            yield from self._filesystem.get_file_info(fs.FileSelector(full))
        except OSError as error:
            if not self._is_local or isinstance(error, FileNotFoundError):
                raise
        else:
            return
        for entry in Path(full).iterdir():
            try:
                yield self._filesystem.get_file_info(str(entry))
            except UnicodeEncodeError:
                yield self._undecodable(folder, os.fsencode(entry.name))
            except OSError as error:
                path = f"{folder}/{entry.name}" if folder else entry.name
                fault = os_fault(FaultStage.LIST, error)
                yield ListingFault(path, self._uri(path), fault, may_be_folder=True)

    def _add(
        self,
        items: dict[str, tuple[int, int, bool, ListingFault | None]],
        folder: str,
        info: fs.FileInfo,
    ) -> ListingFault | None:
        try:
            name = info.base_name
        except UnicodeDecodeError as error:
            return self._undecodable(folder, error.object.rpartition(b"/")[2])
        path = f"{folder}/{name}" if folder else name
        match info.type:
            case fs.FileType.File:
                items[path] = (info.size, _modified_us(info), False, None)
            case fs.FileType.Directory:
                if not (self._is_local and Path(self._full(path)).is_symlink()):
                    items[path] = (0, 0, True, None)
            case fs.FileType.NotFound:
                pass
            case _:
                fault = Fault(FaultStage.LIST, Cause.NOT_A_FILE, "a pipe, socket or device")
                return ListingFault(path, self._uri(path), fault)
        return None

    def _undecodable(self, folder: str, name: bytes) -> ListingFault:
        shown = name.decode("utf-8", "replace")
        path = f"{folder}/{shown}" if folder else shown
        message = "the name is not UTF-8: rename it"
        fault = Fault(FaultStage.LIST, Cause.UNDECODABLE_NAME, message)
        return ListingFault(path, self._uri(path), fault)

    def _uri(self, path: str) -> str:
        return self.root_uri if self.file_name is not None else self.root_uri + quote(path)

    def _full(self, path: str) -> str:
        if self.file_name is not None or not path:
            return self._path
        return f"{self._path.rstrip('/')}/{path}"


class PyArrowFile:
    """A file opened for reading; see ``storages.StoredFile``."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 — pyarrow ships no types
        self._file = file
        self.size: int = file.size()

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``StoredFile``."""
        length = min(length, self.size - offset)
        read: bytes = self._file.read_at(length, offset) if length > 0 else b""
        return read

    def close(self) -> None:
        """See ``StoredFile``."""
        self._file.close()


def _modified_us(info: fs.FileInfo) -> int:
    # Some object stores tell no time.
    return (info.mtime_ns or 0) // 1000
