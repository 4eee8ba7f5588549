"""Opens any URI or local path as a ``pyarrow.fs`` file system and a path in it.

The one place that knows which client serves which scheme. It lists and reads nothing itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from common.errors import ConfigurationError, FailedPrecondition, InvalidArgument
from ingestor.storage.hadoop_configuration import configuration
from ingestor.storage.hdfs_storage import HdfsStorage
from ingestor.storage.pyarrow_storage import PyArrowStorage

if TYPE_CHECKING:
    from ingestor.settings import HdfsSettings
    from ingestor.storage.hdfs_client import HdfsClient
    from ingestor.storage.storages import Storage

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file system; ``uri`` is canonical and has no trailing slash.

    ``hdfs`` is the native client under the file system, where there is one.
    """

    filesystem: fs.FileSystem
    path: str
    uri: str
    hdfs: HdfsClient | None = None

    @property
    def is_local(self) -> bool:
        """Whether the operating system knows the path."""
        return bool(self.filesystem.type_name == "local")

    def storage(self) -> Storage:
        """What a source reads there."""
        if self.hdfs is not None:
            return HdfsStorage(self.hdfs, self.path, self.uri)
        return PyArrowStorage(self.filesystem, self.path, self.uri)


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
    if scheme in {"webhdfs", "swebhdfs"}:
        return _webhdfs(uri, hdfs)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidArgument(
            f"no file system opens it: {_first_line(error)}", field="uri"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise FailedPrecondition(f"{uri} cannot be opened: {_first_line(error)}") from None
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
    parts = _split(uri)
    authority = parts.netloc or _default_authority(settings)
    path = _absolute(parts.path)
    canonical = f"hdfs://{authority}{quote(path).rstrip('/')}"
    if settings.client == "native" or (settings.client == "auto" and find_spec("hdfs_native")):
        client = _native(authority, settings)
        from ingestor.storage.hdfs_filesystem import hdfs_filesystem  # noqa: PLC0415 — an optional client

        return Location(hdfs_filesystem(client), path, canonical, client)
    host, _, port = authority.rpartition(":") if parts.port else (authority, "", "0")
    options = configuration(settings)
    try:
        filesystem = fs.HadoopFileSystem(host, int(port), extra_conf=options or None)
    except Exception as error:  # noqa: BLE001 — pyarrow raises what the library or the JVM did
        raise ConfigurationError(
            f"hdfs client libhdfs cannot start: {_first_line(error)}"
        ) from None
    return Location(filesystem, path, canonical)


def _native(authority: str, settings: HdfsSettings) -> HdfsClient:
    try:
        from ingestor.storage.hdfs_client import HdfsClient  # noqa: PLC0415 — an optional client

        return HdfsClient(authority, settings)
    except (ImportError, OSError) as error:
        raise ConfigurationError(
            f"hdfs client native cannot start: {_first_line(error)}: if {authority} is a"
            " nameservice, core-site.xml and hdfs-site.xml in ingest.hdfs.conf_dir or"
            " HADOOP_CONF_DIR must tell of it; if it is a host, this machine must know its name"
        ) from None


def _webhdfs(uri: str, settings: HdfsSettings) -> Location:
    parts = _split(uri)
    if not parts.hostname:
        raise InvalidArgument("it names no host: write webhdfs://HOST:PORT/PATH", field="uri")
    path = _absolute(parts.path)
    from ingestor.storage.webhdfs import webhdfs_filesystem  # noqa: PLC0415 — loads an HTTP client

    filesystem = webhdfs_filesystem(parts.scheme, parts.hostname, parts.port, settings)
    return Location(filesystem, path, f"{parts.scheme}://{parts.netloc}{quote(path).rstrip('/')}")


def _absolute(path: str) -> str:
    return os.path.normpath("/" + unquote(path).lstrip("/"))


def _default_authority(settings: HdfsSettings) -> str:
    default = urlsplit(configuration(settings).get("fs.defaultFS", ""))
    if default.scheme != "hdfs" or not default.netloc:
        raise InvalidArgument(
            "it names no cluster, nor does fs.defaultFS: write hdfs://NAMESERVICE/PATH", field="uri"
        )
    return default.netloc


def _split(uri: str) -> SplitResult:
    # '?' and '#' are characters of a path here.
    scheme, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    try:
        parts = urlsplit(f"{scheme.lower()}://{authority}")
        parts.port  # noqa: B018 — it is checked when asked for
    except ValueError as error:
        raise InvalidArgument(f"it is malformed: {error}", field="uri") from None
    return parts._replace(path=slash + path)


def _first_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0]
