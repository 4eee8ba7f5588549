"""A folder of files that are replaced whole: where manifests live, on any file system.

Every call here blocks; callers run them on an executor. A file is either the old one or the new one
at any moment: it is written beside its name and then moved over it. On a remote file system it is
kept aside on the local disk until it is whole, so that writing it there can be repeated when the
storage was out of reach for a while.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from pyarrow import fs

from ingestor.storage.outage import Outage, is_passing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestor.storage.filesystems import Location

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished-"
_SPOOLED_BYTES = 8 * 2**20
_BLOCK_BYTES = 4 * 2**20
_OUTAGE_S = 120.0


class StateFolder:
    """One folder; names are relative to it."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self._is_local: bool = filesystem.type_name == "local"

    @classmethod
    def at(cls, location: Location) -> StateFolder:
        """The folder at a location; it need not exist."""
        return cls(location.filesystem, location.path)

    def folder(self, *names: str) -> StateFolder:
        """A folder beneath this one; it need not exist."""
        return StateFolder(self._filesystem, "/".join((self._path, *names)))

    @property
    def has_locks(self) -> bool:
        """Whether ``locked`` holds anything: HDFS and object stores have no locks."""
        return self._is_local

    def names(self) -> dict[str, int]:
        """Names in the folder, ascending, with their modification times in ns."""
        selector = fs.FileSelector(self._path, allow_not_found=True)
        infos = self._filesystem.get_file_info(selector)
        return {info.base_name: info.mtime_ns or 0 for info in sorted(infos, key=_name)}

    def open_input(self, name: str) -> Any:  # noqa: ANN401 — pyarrow ships no types
        """Open a file for reading; FileNotFoundError if there is none."""
        return self._filesystem.open_input_file(f"{self._path}/{name}")

    @contextmanager
    def replacing(self, name: str) -> Iterator[Any]:
        """Write a file; it takes its name only when the block ends well."""
        self._filesystem.create_dir(self._path, recursive=True)
        unfinished = f"{self._path}/{_UNFINISHED}{secrets.token_hex(8)}-{name}"
        try:
            if self._is_local:
                with self._filesystem.open_output_stream(unfinished) as sink:
                    yield sink
            else:
                with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as aside:
                    yield aside
                    self._send(aside, unfinished)
        except BaseException:
            with suppress(OSError):  # it may not have been made; why it failed is what counts
                self._filesystem.delete_file(unfinished)
            raise
        self._filesystem.move(unfinished, f"{self._path}/{name}")

    def _send(self, aside: IO[bytes], unfinished: str) -> None:
        outage = Outage(_OUTAGE_S)
        while True:
            aside.seek(0)
            try:
                with self._filesystem.open_output_stream(unfinished) as sink:
                    while block := aside.read(_BLOCK_BYTES):
                        sink.write(block)
            except OSError as error:
                # No data node takes a block just now, or the one that did is gone.
                is_broken = error.errno == errno.EIO
                delay_s = outage.delay_s() if is_broken or is_passing(error) else None
                if delay_s is None:
                    raise
                time.sleep(delay_s)
            else:
                return

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, which is made, against other holders; the system frees it at a crash.

        Nothing is held without ``has_locks``.
        BlockingIOError if another holds it.
        """
        self._filesystem.create_dir(self._path, recursive=True)
        if not self.has_locks:
            yield
            return
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a mount without locks
                logger.warning("the state folder cannot be locked: run one job at a time")
            yield
        finally:
            os.close(folder)

    def delete(self, name: str) -> None:
        """Delete a file; that it is not there is no error."""
        with suppress(FileNotFoundError):
            self._filesystem.delete_file(f"{self._path}/{name}")

    def delete_unfinished(self) -> None:
        """Delete what an interrupted writer left."""
        for name in self.names():
            if name.startswith(_UNFINISHED):
                self.delete(name)

    def delete_all(self) -> None:
        """Delete the folder with all in it; that it is not there is no error."""
        with suppress(FileNotFoundError):
            self._filesystem.delete_dir(self._path)


def _name(info: fs.FileInfo) -> str:
    return str(info.base_name)
