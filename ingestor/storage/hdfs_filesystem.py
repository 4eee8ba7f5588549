"""HDFS by the native client as a file system of ``pyarrow.fs``, for what is kept there.

Every call is bounded in time and repeated in an outage, as ``HdfsClient.call`` does. A move
replaces what is at the target, atomically. A file that is being written is not repeated: its writer
begins again.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import hdfs_native
import pyarrow as pa
from pyarrow import fs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hdfs_native import FileReader, FileStatus, FileWriter

    from ingestor.storage.hdfs_client import HdfsClient

_COPY_BYTES = 4 * 2**20
_BLOCK_BYTES = 2**20


def hdfs_filesystem(client: HdfsClient) -> fs.FileSystem:
    """The whole of a cluster, as pyarrow sees it."""
    return fs.PyFileSystem(_Handler(client))


class _Handler(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow ships no types
    """See ``pyarrow.fs.FileSystemHandler`` for what each method promises."""

    def __init__(self, client: HdfsClient) -> None:
        self._client = client

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handler) and other._client is self._client

    def __hash__(self) -> int:
        return hash(id(self._client))

    def get_type_name(self) -> str:
        return "hdfs-native"

    def normalize_path(self, path: str) -> str:
        return posixpath.normpath(path)

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        def listed() -> list[FileStatus]:
            found = self._client.native.list_status(selector.base_dir, selector.recursive)
            return list(found)

        try:
            statuses = self._client.call(listed)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        return [_file_info(status) for status in statuses]

    def create_dir(self, path: str, recursive: bool) -> None:  # noqa: FBT001 — pyarrow's signature
        self._client.call(lambda: self._client.native.mkdirs(path, 0o755, create_parent=recursive))

    def delete_dir(self, path: str) -> None:
        self._delete(path, recursive=True)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:  # noqa: FBT001, FBT002 — likewise
        selector = fs.FileSelector(path, allow_not_found=missing_dir_ok)
        for info in self.get_file_info_selector(selector):
            self._delete(info.path, recursive=True)

    def delete_root_dir_contents(self) -> None:
        raise OSError(errno.EPERM, "the root folder is not emptied")

    def delete_file(self, path: str) -> None:
        self._delete(path, recursive=False)

    def move(self, src: str, dest: str) -> None:
        def moved() -> None:
            native = self._client.native
            try:
                native.rename(src, dest, overwrite=True)
            except FileNotFoundError:
                # A rename whose answer was lost in a failover may have been done.
                if not attempts or _exists(native, src) or not _exists(native, dest):
                    raise
            finally:
                attempts.append(None)

        attempts: list[None] = []
        self._client.call(moved)

    def copy_file(self, src: str, dest: str) -> None:
        source = self._reader(src)
        with self._writer(dest) as sink:
            while block := source.read(_COPY_BYTES):
                sink.write(block)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self._reader(path), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self._reader(path), mode="r")

    def open_output_stream(self, path: str, metadata: object) -> pa.PythonFile:  # noqa: ARG002 — likewise
        return pa.PythonFile(self._writer(path), mode="w")

    def open_append_stream(self, path: str, metadata: object) -> pa.PythonFile:  # noqa: ARG002 — likewise
        raise OSError(errno.ENOTSUP, f"{path}: files are replaced whole, not appended to")

    def _info(self, path: str) -> fs.FileInfo:
        try:
            return _file_info(self._client.call(lambda: self._client.native.get_file_info(path)))
        except (FileNotFoundError, NotADirectoryError):
            return fs.FileInfo(path, fs.FileType.NotFound)

    def _delete(self, path: str, *, recursive: bool) -> None:
        if not self._client.call(lambda: self._client.native.delete(path, recursive)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _reader(self, path: str) -> _Reader:
        return _Reader(self._client, lambda: self._client.native.read(path))

    def _writer(self, path: str) -> _Writer:
        options = hdfs_native.WriteOptions(overwrite=True, create_parent=False)
        return _Writer(
            self._client, self._client.call(lambda: self._client.native.create(path, options))
        )


class _Reader(io.RawIOBase):
    """A file of HDFS as Python's files are; it is opened again if it hung."""

    def __init__(self, client: HdfsClient, opened: Callable[[], FileReader]) -> None:
        self._client = client
        self._opened = opened
        self._generation = client.generation
        self._file = client.call(opened)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return len(self._file)

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: len(self._file)}[whence]
        self._place = max(0, begin + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, len(self._file) - self._place)
        length = left if size < 0 else min(size, left)
        read = self._client.call(self._read, self._place, length) if length else b""
        self._place += len(read)
        return read

    def _read(self, offset: int, length: int) -> bytes:
        if self._generation != self._client.generation:
            self._generation = self._client.generation
            self._file = self._opened()
        read: bytes = self._file.read_range(offset, length)
        return read


class _Writer(io.RawIOBase):
    """A file of HDFS that is being written, by whole blocks."""

    def __init__(self, client: HdfsClient, file: FileWriter) -> None:
        self._client = client
        self._file = file
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, block: bytes) -> int:  # type: ignore[override]  # pyarrow gives bytes
        self._buffer += block
        if len(self._buffer) >= _BLOCK_BYTES:
            self._flush()
        return len(block)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._flush()
            self._client.once(self._file.close)

    def _flush(self) -> None:
        block, self._buffer = bytes(self._buffer), bytearray()
        if block:
            self._client.once(self._file.write, block)


def _exists(native: hdfs_native.Client, path: str) -> bool:
    try:
        native.get_file_info(path)
    except FileNotFoundError:
        return False
    return True


def _file_info(status: FileStatus) -> fs.FileInfo:
    kind = fs.FileType.Directory if status.isdir else fs.FileType.File
    modified = datetime.fromtimestamp(status.modification_time / 1000, UTC)
    size = None if status.isdir else status.length
    return fs.FileInfo(status.path, kind, size=size, mtime=modified)
