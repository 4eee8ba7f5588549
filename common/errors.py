"""The one error tree of Sluice; every class carries the gRPC status it becomes on the wire.

    SluiceError                    INTERNAL
    ├── InvalidArgument            INVALID_ARGUMENT     names the field, says what is allowed
    ├── NotFound                   NOT_FOUND
    ├── AlreadyExists              ALREADY_EXISTS
    ├── FailedPrecondition         FAILED_PRECONDITION  the state must change first
    │   └── EmbedderMismatch       FAILED_PRECONDITION  a version was written with another embedder
    ├── Contended                  ABORTED              someone else moved it; read again
    ├── Overloaded                 RESOURCE_EXHAUSTED   carries a retry delay
    ├── DeadlineExceeded           DEADLINE_EXCEEDED
    ├── Unavailable                UNAVAILABLE          carries a retry delay
    │   └── CoordinatorUnavailable UNAVAILABLE
    └── ConfigurationError         INVALID_ARGUMENT     settings that cannot work

Expected outcomes (superseded, unchanged) are values, never exceptions. A message says what
happened and what to do next, and never holds document text or a secret.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class SluiceError(Exception):
    """Root of the tree.

    Args:
        message: what happened and what to do next.
        retry_after_ms: when a repeat may succeed, in milliseconds; None where a repeat is useless.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


class InvalidArgument(SluiceError):
    """The caller's input is wrong; ``field`` names the place in the request."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class NotFound(SluiceError):
    """The named thing does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(SluiceError):
    """The named thing exists already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(SluiceError):
    """The request is right but the state does not allow it."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class EmbedderMismatch(FailedPrecondition):
    """An index version was written with another embedder than the one configured here."""


class Contended(SluiceError):
    """Another writer moved the state between reading and writing it."""

    code = grpc.StatusCode.ABORTED


class Overloaded(SluiceError):
    """A bound is reached; repeat after ``retry_after_ms``."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(SluiceError):
    """The request's deadline passed before the answer was ready."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(SluiceError):
    """A dependency does not answer; repeat after ``retry_after_ms``."""

    code = grpc.StatusCode.UNAVAILABLE


class CoordinatorUnavailable(Unavailable):
    """The coordinator does not answer."""


class ConfigurationError(SluiceError):
    """The settings cannot work; the message names the key."""

    code = grpc.StatusCode.INVALID_ARGUMENT
