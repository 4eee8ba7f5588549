"""HDFS over HTTP (WebHDFS, HttpFS), where no other port of the cluster is open.

fsspec's client knows the protocol's addresses and how one says who one is. What it leaves out is
here: bounds of time, errors by their kind, listings by pages with their times, moves that replace,
reads that check the answer, and files that are sent whole. Hadoop's own page "WebHDFS REST API" has
the operations.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import requests
from fsspec.implementations.webhdfs import WebHDFS
from pyarrow import fs

from common.errors import ConfigurationError
from ingestor.storage.hdfs_errors import UntrustedError, of_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestor.settings import HdfsSettings

PORTS = {"webhdfs": 9870, "swebhdfs": 9871}
_CONNECT_S = 10.0
_SPOOLED_BYTES = 8 * 2**20


def webhdfs_filesystem(scheme: str, host: str, port: int | None, settings: HdfsSettings) -> Any:  # noqa: ANN401 — pyarrow ships no types
    """The whole of a cluster, as pyarrow sees it; nothing is called yet.

    ConfigurationError if a token cannot be read or Kerberos over HTTP is not installed.
    """
    web = settings.web
    token = None
    if web.token_file is not None:
        try:
            token = web.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigurationError(
                f"ingest.hdfs.web.token_file: {web.token_file} cannot be read: {reason}"
            ) from None
    try:
        client = _Client(
            host,
            port or PORTS[scheme],
            kerberos=web.kerberos,
            token=token,
            user=None if token or web.kerberos else web.user,
            use_https=scheme == "swebhdfs",
            session_verify=True if web.ca_file is None else str(web.ca_file),
            timeout_s=settings.timeout_s,
        )
    except ImportError:
        raise ConfigurationError(
            "ingest.hdfs.web.kerberos: install the package requests-kerberos"
        ) from None
    return fs.PyFileSystem(_Handler(client))


class _Session(requests.Session):
    """Every request bounded; what goes wrong with it is an OSError by its kind."""

    timeout_s: float

    def request(self, *arguments: Any, **options: Any) -> requests.Response:  # noqa: ANN401 — as the base
        options["timeout"] = (min(_CONNECT_S, self.timeout_s), self.timeout_s)
        if self.verify is not True:  # or else the environment would be asked first
            options["verify"] = self.verify
        with _translated():
            answer = super().request(*arguments, **options)
        if not answer.ok:
            raise _refusal(answer)
        return answer


class _Client(WebHDFS):  # type: ignore[misc]  # fsspec ships no types
    cachable = False
    session: Any

    def __init__(self, host: str, port: int, *, timeout_s: float, **options: Any) -> None:  # noqa: ANN401 — the base checks them
        self._timeout_s = timeout_s
        super().__init__(host, port, **options)

    def _connect(self) -> None:
        super()._connect()
        plain: requests.Session = self.session
        self.session = _Session()
        self.session.timeout_s = self._timeout_s
        self.session.verify, self.session.auth = plain.verify, plain.auth

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path  # '#' and '?' are characters of it

    def _call(
        self,
        op: str,
        method: str = "get",
        path: str | None = None,
        data: Any = None,  # noqa: ANN401 — what requests sends
        redirect: bool = True,  # noqa: FBT001, FBT002 — the base's signature
        **parameters: Any,  # noqa: ANN401 — likewise
    ) -> requests.Response:
        answer: requests.Response = self.session.request(
            method,
            self._apply_proxy(self.url + quote(path or "", safe="/=")),
            params={**parameters, **self.pars, "op": op.upper()},
            data=data,
            allow_redirects=redirect,
        )
        return answer

    def info(self, path: str, **_: object) -> dict[str, Any]:
        try:
            answer = self._call("GETFILESTATUS", path=path)
        except NotADirectoryError:  # one above it is a file
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        return _info(path, answer.json()["FileStatus"])

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:  # noqa: FBT001, FBT002 — likewise
        found: list[dict[str, Any]] = []
        for status in self._statuses(path):
            if not status["pathSuffix"]:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            found.append(_info(f"{path.rstrip('/')}/{status['pathSuffix']}", status))
        return found if detail else [info["name"] for info in found]

    def _statuses(self, path: str) -> Iterator[dict[str, Any]]:
        first = last = ""
        while True:
            # Hadoop 3.5 heeds the second name only, although its page has the first.
            begin: dict[str, Any] = {"startAfter": last, "startafter": last} if last else {}
            answer = self._call("LISTSTATUS_BATCH", path=path, **begin).json()["DirectoryListing"]
            page = answer["partialListing"]["FileStatuses"]["FileStatus"]
            if last and page and page[0]["pathSuffix"] == first:
                raise OSError(errno.EPROTO, "the server lists the same page again")
            yield from page
            if not page or not answer["remainingEntries"]:
                return
            first, last = page[0]["pathSuffix"], page[-1]["pathSuffix"]

    def mv(self, path1: str, path2: str, **_: object) -> None:
        # With an option the name node renames as rename2 does: replacing, or saying why not.
        # A gateway that does not know the option says whether it was done.
        answer = self._call(
            "RENAME", "put", path=path1, destination=path2, renameoptions="OVERWRITE"
        )
        if answer.content and not answer.json()["boolean"]:
            raise OSError(errno.EIO, "the server did not rename it")

    def rm(self, path: str, recursive: bool = False, **_: object) -> None:  # noqa: FBT001, FBT002 — likewise
        answer = self._call("DELETE", "delete", path=path, recursive=str(recursive).lower())
        if not answer.json()["boolean"]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _open(self, path: str, mode: str = "rb", **_: object) -> io.RawIOBase:
        if mode == "rb":
            return _Reader(self, path, self.info(path)["size"])
        if mode == "wb":
            return _Writer(self, path)
        raise OSError(errno.ENOTSUP, f"{path}: files are replaced whole, not appended to")

    def content(self, path: str, offset: int, length: int) -> bytes:
        answer = self._call("OPEN", path=path, offset=offset, length=length, redirect=False)
        if location := answer.headers.get("Location"):
            answer = self.session.get(self._apply_proxy(location))
        with _translated():
            content: bytes = answer.content
        return content

    def create(self, path: str, content: Any) -> None:  # noqa: ANN401 — a file or bytes
        answer = self._call("CREATE", "put", path=path, overwrite="true", redirect=False)
        self.session.put(
            self._apply_proxy(answer.headers["Location"]),
            data=content,
            headers={"content-type": "application/octet-stream"},
        )


class _Handler(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow ships no types
    """Asks for no more than is needed; see ``pyarrow.fs.FileSystemHandler``."""

    def get_type_name(self) -> str:
        return "webhdfs"

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        if selector.recursive:
            return list(super().get_file_info_selector(selector))
        try:
            infos = self.fs.ls(selector.base_dir)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        return [self._create_file_info(info["name"], info) for info in infos]

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def create_dir(self, path: str, recursive: bool) -> None:  # noqa: ARG002, FBT001 — MKDIRS makes the parents
        self.fs.mkdir(path)

    def delete_file(self, path: str) -> None:
        self.fs.rm(path)


class _Reader(io.RawIOBase):
    """One request each read: its readers ask for whole files or large pieces."""

    def __init__(self, client: _Client, path: str, size: int) -> None:
        self._client = client
        self._path = path
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self._size

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, begin + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        length = left if size < 0 else min(size, left)
        content = self._client.content(self._path, self._place, length) if length else b""
        self._place += len(content)
        return content


class _Writer(io.RawIOBase):
    """Kept aside, and sent whole when it is closed."""

    def __init__(self, client: _Client, path: str) -> None:
        self._client = client
        self._path = path
        self._content = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115 — closed with this

    def writable(self) -> bool:
        return True

    def write(self, block: bytes) -> int:  # type: ignore[override]  # pyarrow gives bytes
        return self._content.write(block)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        with self._content:
            size = self._content.tell()
            self._content.seek(0)
            self._client.create(self._path, self._content if size else b"")


def _info(path: str, status: dict[str, Any]) -> dict[str, Any]:
    modified = datetime.fromtimestamp(status["modificationTime"] / 1000, UTC)
    kind = "directory" if status["type"] == "DIRECTORY" else "file"
    return {"name": path, "type": kind, "size": status["length"], "mtime": modified}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except requests.Timeout as error:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
    except requests.exceptions.SSLError as error:
        reason = _reason(error)
        kind = ConnectionError if "EOF" in reason else UntrustedError  # it went away, or is refused
        raise kind(errno.EPROTO, f"TLS: {reason}") from None
    except requests.RequestException as error:
        raise ConnectionError(errno.ECONNREFUSED, _reason(error)) from None


def _refusal(answer: requests.Response) -> OSError:
    """The error of Hadoop's "Error Responses"; what speaks otherwise is a proxy or a gateway."""
    try:
        remote = answer.json()["RemoteException"]
        name, message = str(remote["exception"]), str(remote["message"])
    except (ValueError, KeyError, TypeError):
        status = f"HTTP status {answer.status_code}"
        if answer.status_code == requests.codes.not_found:
            return FileNotFoundError(errno.ENOENT, status)
        if answer.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
            return of_server("SaslException", status)
        return ConnectionError(errno.EPROTO, status)
    if name == "SecurityException" or answer.status_code == requests.codes.unauthorized:
        return of_server("SaslException", message)
    return of_server(name, message)


def _reason(error: Exception) -> str:
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return str(cause or error).partition("\n")[0][:300]
