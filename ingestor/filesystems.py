"""Opens any URI or local path as a ``pyarrow.fs`` file system and a path in it.

The one place that knows which client serves which scheme. It lists and reads nothing itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from common.errors import ConfigurationError, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from ingestor.settings import HdfsSettings

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file system; ``uri`` is canonical and has no trailing slash."""

    filesystem: fs.FileSystem
    path: str
    uri: str

    @property
    def is_local(self) -> bool:
        """Whether the operating system knows the path."""
        return bool(self.filesystem.type_name == "local")


class _HdfsHandler(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow ships no types
    """hdfs-native's file system as pyarrow sees it: with modification times and atomic replacing.

    The generic handler looks for a time under a name that hdfs-native does not use, asks for the
    status of each entry again, and never overwrites on a move.
    """

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> fs.FileInfo:
        kind = fs.FileType.Directory if info["type"] == "directory" else fs.FileType.File
        size = info["size"] if kind is fs.FileType.File else None
        modified = datetime.fromtimestamp(info["modification_time"] / 1000, UTC)
        return fs.FileInfo(path, kind, size=size, mtime=modified)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        if selector.recursive:
            return list(super().get_file_info_selector(selector))
        try:
            infos = self.fs.ls(selector.base_dir, detail=True)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        return [self._create_file_info(info["name"], info) for info in infos]

    def move(self, src: str, dest: str) -> None:
        self.fs.mv(src, dest, overwrite=True)


def locate(uri: str, hdfs: HdfsSettings) -> Location:
    """Open the file system of a URI, or of a local path where there is no scheme.

    Raises:
        InvalidArgument: no file system here knows the URI.
        ConfigurationError: the client that the scheme needs cannot start.
        FailedPrecondition: the storage does not answer.
    """
    if not uri:
        raise InvalidArgument("give a path or a URI", field="uri")
    if not _SCHEME.match(uri):
        return _local(uri)
    try:
        scheme = urlsplit(uri).scheme.lower()
    except ValueError as error:
        raise InvalidArgument(f"it is malformed: {error}", field="uri") from None
    if scheme == "file":
        return _local(unquote(urlsplit(uri).path))
    if scheme == "hdfs":
        return _hdfs(uri, hdfs)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgument(f"no file system opens it: {reason}", field="uri") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise FailedPrecondition(f"{uri} cannot be opened: {reason}") from None
    parts = urlsplit(uri)  # its options are no part of the name
    return Location(filesystem, path, f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}")


def _local(path: str) -> Location:
    absolute = os.path.normpath(os.path.abspath(path))  # noqa: PTH100 — links stay as named
    try:
        encoded = quote(absolute)
    except UnicodeEncodeError:
        raise InvalidArgument("the path is not UTF-8", field="uri") from None
    return Location(fs.LocalFileSystem(), absolute, f"file://{encoded.rstrip('/')}")


def _hdfs(uri: str, settings: HdfsSettings) -> Location:
    parts = urlsplit(uri)
    path = os.path.normpath(unquote(parts.path) or "/")
    canonical = f"hdfs://{parts.netloc}{quote(path).rstrip('/')}"
    try:
        host, port = parts.hostname or "default", parts.port
    except ValueError as error:
        raise InvalidArgument(f"it is malformed: {error}", field="uri") from None
    try:
        if settings.client == "native":
            from hdfs_native.fsspec import (  # noqa: PLC0415 — an optional client
                HdfsFileSystem,
            )

            client = HdfsFileSystem(host=parts.hostname, port=port, **settings.options)
            return Location(fs.PyFileSystem(_HdfsHandler(client)), path, canonical)
        client = fs.HadoopFileSystem(host, port or 0, extra_conf=settings.options or None)
        return Location(client, path, canonical)
    except Exception as error:  # noqa: BLE001 — the clients raise classes of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"hdfs client {settings.client} cannot start: {reason}") from None
