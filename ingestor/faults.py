"""Why a file is not in the index: the stage, a cause for programs, a message for people.

A fault is a value that becomes a dead letter. Its message never holds text of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultStage(StrEnum):
    """Where on its way the file stopped."""

    LIST = "list"
    READ = "read"
    EXTRACT = "extract"
    INDEX = "index"


class Cause(StrEnum):
    """Causes found by the ingestor itself; rejections by the indexer bring their own names."""

    GONE = "gone"
    PERMISSION_DENIED = "permission_denied"
    UNREADABLE = "unreadable"
    UNREACHABLE = "unreachable"
    UNDECODABLE_NAME = "undecodable_name"
    NOT_A_FILE = "not_a_file"
    TOO_LARGE = "too_large"
    UNSUPPORTED_TYPE = "unsupported_type"
    NOT_TEXT = "not_text"
    MALFORMED = "malformed"
    NO_TEXT = "no_text"
    TIMED_OUT = "timed_out"
    WORKER_CRASHED = "worker_crashed"


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason; ``cause`` is a ``Cause`` or the lower-case name of a rejection."""

    stage: FaultStage
    cause: str
    message: str


def os_fault(stage: FaultStage, error: Exception) -> Fault:
    """What an error of a file system means."""
    match error:
        case FileNotFoundError():
            return Fault(stage, Cause.GONE, "it is no longer there")
        case PermissionError():
            return Fault(stage, Cause.PERMISSION_DENIED, "this user may not read it")
        case ConnectionError() | TimeoutError():
            reason = error.strerror or type(error).__name__
            return Fault(stage, Cause.UNREACHABLE, f"the storage does not answer: {reason}"[:200])
        case _:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return Fault(stage, Cause.UNREADABLE, str(reason).splitlines()[0][:200])
