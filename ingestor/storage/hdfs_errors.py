"""What the errors of HDFS mean, as the kinds of OSError that the rest of the program knows.

hdfs-native raises RuntimeError with a dump of a Rust value, OSError without a number, or panics.
This is the one place that reads them. A message is one line: never a stack trace of the server.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_MESSAGE = 300
# RPCError("org.apache.hadoop.…", "message\n\tat …"), as Rust's Debug writes it
_REMOTE = re.compile(r'(Fatal)?RPCError\("([\w.$]*)", "(.*?)(?:\\n|"\)$)', re.DOTALL)
_LOCAL = re.compile(r'(\w+)\(?(?:"(.*?)(?:\\n|"?\)$))?', re.DOTALL)
_GSS = re.compile(r'GSSAPIError\(.*, (\d+), "(.*)"\)$', re.DOTALL)
_GSS_PREAMBLE = "Unspecified GSS failure.  Minor code may provide more information: "
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

# Classes of Hadoop's exceptions without their packages; as in org.apache.hadoop 3.5.
_PASSING = {
    "CallQueueTooBigException",
    "NotReplicatedYetException",
    "ObserverRetryOnActiveException",
    "RetriableException",
    "SafeModeException",
    "ServerTooBusyException",
    "StandbyException",
}
_UNAUTHENTICATED = {
    "AuthorizationException",
    "ExpiredTokenException",
    "GSSException",
    "InvalidToken",
    "SaslException",
}
# MIT's minor codes KRB5_KDC_UNREACH and KRB5_REALM_CANT_RESOLVE.
_KDC_IS_AWAY = {"2529639068", "2529639132"}
_NUMBERS = {
    "AccessControlException": errno.EACCES,
    "DSQuotaExceededException": errno.EDQUOT,
    "FileAlreadyExistsException": errno.EEXIST,
    "FileNotFoundException": errno.ENOENT,
    "InvalidPathException": errno.EINVAL,
    "NSQuotaExceededException": errno.EDQUOT,
    "ParentNotDirectoryException": errno.ENOTDIR,
    "PathIsNotEmptyDirectoryException": errno.ENOTEMPTY,
}
_BLOCK_ERRORS = {"BlocksNotFound", "ChecksumError", "DataTransferError", "ErasureCodingError"}


class RefusedError(ConnectionError):
    """One end does not accept the other: no file is at fault, and waiting does not help."""

    cure = ""

    def with_cure(self) -> RefusedError:
        """The same, and what to do."""
        return type(self)(self.errno, f"{self.strerror}: {self.cure}")


class UnauthenticatedError(RefusedError):
    """The cluster does not accept who we are: no ticket, an expired one, or a wrong principal."""

    cure = (
        "log in by kinit or set ingest.hdfs.kerberos, for webhdfs:// ingest.hdfs.web; "
        "`sluice doctor` tells more"
    )


class UntrustedError(RefusedError):
    """The cluster's certificate is not accepted, or it does not speak TLS."""

    cure = (
        "set ingest.hdfs.web.ca_file to what certifies the cluster, and see that the port is right"
    )


class BlockError(OSError):
    """No replica of a block of the file could be read."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the block raises as an OSError; what is no error of the client stays as it is."""
    try:
        yield
    except OSError as error:
        raise _of_system(error) from None
    except RuntimeError as error:
        raise _of_client(str(error)) from None
    except NotImplementedError as error:
        raise OSError(errno.ENOTSUP, f"hdfs-native cannot: {_line(str(error))}") from None
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of pyo3; it cannot be imported
            raise OSError(errno.EIO, f"hdfs-native panicked: {_line(str(error))}") from None
        raise


def _of_system(error: OSError) -> OSError:
    if error.errno is not None:
        return error
    message = _line(str(error))
    if isinstance(error, FileNotFoundError):
        # Reading a folder is reported as a file that does not exist.
        number = errno.EISDIR if message.startswith("Path is not a file") else errno.ENOENT
        return OSError(number, message)
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, message)
    if isinstance(error, IsADirectoryError):
        return IsADirectoryError(errno.EISDIR, message)
    if (numbered := _OS_ERROR.search(message)) is not None:
        number = int(numbered[1])
        known = OSError(number, os.strerror(number))
        is_kind = isinstance(known, ConnectionError | TimeoutError | PermissionError)
        return known if is_kind else ConnectionError(number, os.strerror(number))
    return ConnectionError(errno.ECONNABORTED, message)


def _of_client(text: str) -> OSError:
    if (remote := _REMOTE.match(text)) is not None:
        fatal, name, message = remote.groups()
        return of_server(name.rpartition(".")[2], message, fatal=bool(fatal))
    local = _LOCAL.match(text)
    name, message = (local[1], local[2] or "") if local is not None else ("", text)
    message = f"{name}: {_line(message)}" if message else name
    if name in _BLOCK_ERRORS:
        return BlockError(errno.EIO, message)
    if name in {"GSSAPIError", "NoSASLMechanism", "SASLError"}:
        return _of_login(text)
    if name in {"InvalidArgument", "InvalidPath", "UrlParseError"}:
        return OSError(errno.EINVAL, message)
    return OSError(errno.EIO, message)


def _of_login(text: str) -> OSError:
    if (known := _GSS.match(text)) is None:
        return UnauthenticatedError(errno.EACCES, _line(text))
    message = _line(known[2].removeprefix(_GSS_PREAMBLE))
    if known[1] in _KDC_IS_AWAY:
        return ConnectionError(errno.EHOSTUNREACH, message)
    return UnauthenticatedError(errno.EACCES, message)


def of_server(name: str, message: str, *, fatal: bool = False) -> OSError:
    """What an exception of Hadoop's means.

    Args:
        name: its class without the package.
        message: as sent; its first line is taken.
        fatal: whether it ended the connection, rather than one call.
    """
    message = _line(message)
    if name in _PASSING:
        return ConnectionError(errno.EAGAIN, f"{name}: {message}")
    if name in _UNAUTHENTICATED or (fatal and name == "AccessControlException"):
        return UnauthenticatedError(errno.EACCES, f"{name}: {message}")
    if name == "AccessControlException" and message.endswith("(is not a directory)"):
        return NotADirectoryError(errno.ENOTDIR, message)
    if fatal:
        return ConnectionError(errno.EPROTO, f"{name}: {message}")
    number = _NUMBERS.get(name)
    return OSError(errno.EIO, f"{name}: {message}") if number is None else OSError(number, message)


def _line(text: str) -> str:
    first = text.partition("\n")[0].partition("\\n")[0]
    return first.replace('\\"', '"').replace("\\'", "'").strip()[:_MAX_MESSAGE]
