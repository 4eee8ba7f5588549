"""A folder of small files that are replaced whole: where manifests live, on any file system.

Every call here blocks; callers run them on an executor. A file is either the old one or the new one
at any moment: it is written beside its name and then moved over it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pyarrow import fs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestor.filesystems import Location

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished-"


class StateFolder:
    """One folder; names are relative to it."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    @classmethod
    def at(cls, location: Location) -> StateFolder:
        """The folder at a location; it need not exist."""
        return cls(location.filesystem, location.path)

    def folder(self, *names: str) -> StateFolder:
        """A folder beneath this one; it need not exist."""
        return StateFolder(self._filesystem, "/".join((self._path, *names)))

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
            with self._filesystem.open_output_stream(unfinished) as sink:
                yield sink
        except BaseException:
            with suppress(OSError):  # it may not have been made; why it failed is what counts
                self._filesystem.delete_file(unfinished)
            raise
        self._filesystem.move(unfinished, f"{self._path}/{name}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, which is made, against other holders; the system frees it at a crash.

        Where the file system has no locks (HDFS, object stores) nothing is held.
        BlockingIOError if another holds it.
        """
        self._filesystem.create_dir(self._path, recursive=True)
        if self._filesystem.type_name != "local":
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
