"""A ``SluiceError`` as a gRPC status, and back.

The retry delay travels twice: as google.rpc.RetryInfo in ``grpc-status-details-bin`` for programs,
and as ``grpc-retry-pushback-ms`` (gRFC A6) for the retry policy of the client's own gRPC library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from google.rpc import (
    error_details_pb2,
    status_pb2,
)

from common.errors import (
    AlreadyExists,
    Contended,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Overloaded,
    SluiceError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
# A status travels in HTTP/2 headers, for which clients allow 8 KiB: the message percent-encoded
# (at worst three times as long) and once more in the details (base64).
MAX_MESSAGE_BYTES = 1536
# A longer wait than this is the caller's to decide: the library must not sit on it silently.
MAX_PUSHBACK_MS = 2000
_NO_RETRY = "-1"
_TOO_LARGE = "message larger than max"
_UNCONNECTED = ("failed to connect", "connections to all backends", "errors resolving")
# The most general class of each code.
_CLASSES: dict[grpc.StatusCode, type[SluiceError]] = {
    kind.code: kind
    for kind in (
        *(SluiceError, InvalidArgument, NotFound, AlreadyExists, FailedPrecondition),
        *(Contended, Overloaded, DeadlineExceeded, Unavailable),
    )
}


def clip(message: str) -> str:
    """The message, cut to what a status may carry."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"


def trailing_metadata(error: SluiceError) -> tuple[tuple[str, str | bytes], ...]:
    """What goes with the status of this error: its retry delay.

    Without a delay an UNAVAILABLE is left to the client's own backoff, while RESOURCE_EXHAUSTED
    says that a repeat is useless.
    """
    if error.retry_after_ms is None:
        overloaded = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        return ((PUSHBACK_KEY, _NO_RETRY),) if overloaded else ()
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(error.retry_after_ms)
    # Clients check that code and message here equal those of the status itself.
    status = status_pb2.Status(code=error.code.value[0], message=clip(error.message))
    status.details.add().Pack(info)
    soon = error.retry_after_ms <= MAX_PUSHBACK_MS
    pushback = str(error.retry_after_ms) if soon else _NO_RETRY
    return ((DETAILS_KEY, status.SerializeToString()), (PUSHBACK_KEY, pushback))


def is_unconnected(error: grpc.aio.AioRpcError) -> bool:
    """Whether no server was reached at all; gRPC says so in words only."""
    details = (error.details() or "").lower()
    said = any(words in details for words in _UNCONNECTED)
    return said and error.code() is grpc.StatusCode.UNAVAILABLE


def translate_rpc_error(error: grpc.aio.AioRpcError) -> SluiceError:
    """The error of Sluice that a failed call stands for, by its status code.

    The message and the retry delay are kept. A status that no class carries (a server that does
    not know the method, say) becomes the root class, its message led by the name of the status;
    CANCELLED becomes Unavailable. A message beyond a bound is a fault of the call, though gRPC
    gives it the status of a server that is overloaded.
    """
    code, message = error.code(), error.details() or ""
    if code is grpc.StatusCode.CANCELLED:
        # Who cancels a call himself gets CancelledError; this came from a server that stops, or
        # from its gRPC core, which keeps a thousand or so calls that it has not taken yet.
        return Unavailable(
            "the server stopped before it answered, or had no room for the call; try again"
        )
    if is_unconnected(error):
        return Unavailable(
            "no server answers; start one with `sluice up`, or name its address with --target or "
            "client.target"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in message:
        return InvalidArgument(
            f"{message}; ask for less or send less at once, or raise max_message_bytes of the "
            "client's channel and of the server"
        )
    retry_after_ms = _retry_delay_ms(error.trailing_metadata() or ())
    found = _CLASSES.get(code)
    if found is None:
        return SluiceError(f"{code.name}: {message}", retry_after_ms=retry_after_ms)
    translated = found(message or code.name)
    translated.retry_after_ms = retry_after_ms
    return translated


def _retry_delay_ms(metadata: Iterable[tuple[str, str | bytes]]) -> int | None:
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return _retry_info_ms(status_pb2.Status.FromString(value))
            except DecodeError:
                return None  # another server's dialect: the status itself still stands
    return None


def _retry_info_ms(status: status_pb2.Status) -> int | None:
    info = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            return int(info.retry_delay.ToMilliseconds())
    return None
