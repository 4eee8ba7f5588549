"""Sources: where files come from, listed in a stable order and read whole.

A listing streams: only one folder's entries are in memory at a time. Its order is that of the
paths' components, so that it can be merged with a manifest in the same order. A folder that cannot
be listed is an item of the listing, not the end of it. Links to folders are not followed, which
rules out loops. Blocking calls run on the executor given; nothing is ever written.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from common.errors import FailedPrecondition, NotFound
from ingestor.faults import Cause, Fault, FaultStage, os_fault
from ingestor.filesystems import Location, locate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from concurrent.futures import Executor

    from ingestor.settings import HdfsSettings

T = TypeVar("T")

_READ_BYTES = 4 * 2**20


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


def order(path: str) -> str:
    """Sort key of a path: compares component by component."""
    return path.replace("/", "\0")


class Source(Protocol):
    """A root and the files under it."""

    @property
    def root_uri(self) -> str:
        """Canonical URI; a folder's ends with a slash."""

    def walk(self, enters: Callable[[str], bool]) -> AsyncGenerator[FileEntry | ListingFault, None]:
        """Walk the folders that ``enters`` admits, ascending by ``order(path)``.

        Raises FailedPrecondition if the root itself cannot be listed.
        """

    async def stat(self, path: str) -> FileEntry | Fault | None:
        """The file as it is now; None if there is none, a fault if nobody can tell."""

    async def read(self, entry: FileEntry, max_bytes: int) -> bytes | Fault:
        """The whole content, or why not; ``Cause.GONE`` if it vanished since it was listed."""


class PyArrowSource:
    """A folder or a single file in any file system of ``pyarrow.fs``."""

    def __init__(self, location: Location, executor: Executor, *, is_file: bool) -> None:
        self._location = location
        self._executor = executor
        self._is_file = is_file
        self.root_uri = location.uri if is_file else f"{location.uri}/"

    def uri(self, path: str) -> str:
        """Canonical URI of a path under the root."""
        return self.root_uri if self._is_file else self.root_uri + quote(path)

    async def walk(
        self, enters: Callable[[str], bool]
    ) -> AsyncGenerator[FileEntry | ListingFault, None]:
        """See ``Source``."""
        if self._is_file:
            path = self._location.path.rpartition("/")[2]
            entry = await self.stat(path)
            if isinstance(entry, Fault):
                yield ListingFault(path, self.root_uri, entry)
            elif entry is not None:
                yield entry
            return
        # Folders and found items still to come, the next one last.
        ahead: list[FileEntry | ListingFault | str] = [""]
        while ahead:
            item = ahead.pop()
            if isinstance(item, str):
                if enters(item):
                    ahead += reversed(await self._blocking(self._list_folder, item))
            else:
                yield item

    async def stat(self, path: str) -> FileEntry | Fault | None:
        """See ``Source``."""
        try:
            info = await self._blocking(self._location.filesystem.get_file_info, self._full(path))
        except (OSError, pa.ArrowException) as error:
            return os_fault(FaultStage.READ, error)
        if info.type is not fs.FileType.File:
            return None
        return FileEntry(path, self.uri(path), info.size, _modified_us(info))

    async def read(self, entry: FileEntry, max_bytes: int) -> bytes | Fault:
        """See ``Source``."""
        return await self._blocking(self._read, entry, max_bytes)

    def _list_folder(self, folder: str) -> list[FileEntry | ListingFault | str]:
        """The folder's items by name; a sub-folder is its path."""
        try:
            infos = self._infos(folder)
        except (OSError, pa.ArrowException) as error:
            fault = os_fault(FaultStage.LIST, error)
            if not folder:
                raise FailedPrecondition(
                    f"{self.root_uri} cannot be listed: {fault.message}"
                ) from None
            if fault.cause == Cause.GONE:
                return []
            return [ListingFault(folder, self.uri(folder), fault, may_be_folder=True)]
        items: dict[str, FileEntry | ListingFault | str] = {}
        for info in infos:
            item = info if isinstance(info, ListingFault) else self._item(folder, info)
            if item is not None:
                items[item if isinstance(item, str) else item.path] = item
        return [items[path] for path in sorted(items)]

    def _infos(self, folder: str) -> list[fs.FileInfo | ListingFault]:
        """What is in the folder; an entry that cannot be looked at costs itself, not the folder."""
        filesystem, full = self._location.filesystem, self._full(folder)
        try:
            return list(filesystem.get_file_info(fs.FileSelector(full)))
        except OSError as error:
            if not self._location.is_local or isinstance(error, FileNotFoundError):
                raise
        infos: list[fs.FileInfo | ListingFault] = []
        for entry in Path(full).iterdir():
            try:
                infos.append(filesystem.get_file_info(str(entry)))
            except UnicodeEncodeError:
                infos.append(self._undecodable(folder, os.fsencode(entry.name)))
            except OSError as error:
                path = f"{folder}/{entry.name}" if folder else entry.name
                fault = os_fault(FaultStage.LIST, error)
                infos.append(ListingFault(path, self.uri(path), fault, may_be_folder=True))
        return infos

    def _undecodable(self, folder: str, name: bytes) -> ListingFault:
        shown = name.decode("utf-8", "replace")
        path = f"{folder}/{shown}" if folder else shown
        message = "the name is not UTF-8: rename it"
        fault = Fault(FaultStage.LIST, Cause.UNDECODABLE_NAME, message)
        return ListingFault(path, self.uri(path), fault)

    def _item(self, folder: str, info: fs.FileInfo) -> FileEntry | ListingFault | str | None:
        try:
            name = info.base_name
        except UnicodeDecodeError as error:
            return self._undecodable(folder, error.object.rpartition(b"/")[2])
        path = f"{folder}/{name}" if folder else name
        match info.type:
            case fs.FileType.Directory:
                linked = self._location.is_local and Path(self._full(path)).is_symlink()
                return None if linked else path
            case fs.FileType.File:
                return FileEntry(path, self.uri(path), info.size, _modified_us(info))
            case fs.FileType.NotFound:
                return None
            case _:
                fault = Fault(FaultStage.LIST, Cause.NOT_A_FILE, "a pipe, socket or device")
                return ListingFault(path, self.uri(path), fault)

    def _read(self, entry: FileEntry, max_bytes: int) -> bytes | Fault:
        pieces: list[bytes] = []
        size = 0
        try:
            with self._location.filesystem.open_input_stream(self._full(entry.path)) as stream:
                while piece := stream.read(min(_READ_BYTES, max_bytes + 1 - size)):
                    pieces.append(piece)
                    size += len(piece)
                    if size > max_bytes:
                        return Fault(FaultStage.READ, Cause.TOO_LARGE, f"over {max_bytes} bytes")
        except (OSError, pa.ArrowException) as error:
            return os_fault(FaultStage.READ, error)
        return b"".join(pieces)

    def _full(self, path: str) -> str:
        if self._is_file or not path:
            return self._location.path
        return f"{self._location.path.rstrip('/')}/{path}"

    async def _blocking(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, function, *arguments
        )


def _modified_us(info: fs.FileInfo) -> int:
    # Some object stores tell no time.
    return (info.mtime_ns or 0) // 1000


async def open_source(uri: str, hdfs: HdfsSettings, executor: Executor) -> PyArrowSource:
    """Open a root; NotFound if nothing is there, else as ``filesystems.locate``."""
    loop = asyncio.get_running_loop()
    location = await loop.run_in_executor(executor, locate, uri, hdfs)
    try:
        info = await loop.run_in_executor(
            executor, location.filesystem.get_file_info, location.path
        )
    except (OSError, pa.ArrowException) as error:
        fault = os_fault(FaultStage.LIST, error)
        raise FailedPrecondition(f"{location.uri} cannot be opened: {fault.message}") from None
    match info.type:
        case fs.FileType.NotFound:
            raise NotFound(f"{location.uri}: there is no such file or folder")
        case fs.FileType.File | fs.FileType.Directory:
            return PyArrowSource(location, executor, is_file=info.type is fs.FileType.File)
        case _:
            raise FailedPrecondition(f"{location.uri} is neither a file nor a folder")
