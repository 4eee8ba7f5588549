"""Log records as one line each, JSON for machines or text for people, with their trace.

Only the types and places of exceptions are written, never their messages: a message may quote
the document that broke a parser. The errors of Sluice hold no text by rule and keep theirs.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from common.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FRAMES = 40
MAX_CAUSES = 5
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Fields that tell of an exception without its message.

    Returns:
        ``error_type``; ``error_code`` and ``error`` (the message) of a SluiceError; ``traceback``,
        places and types from the outermost call inwards, causes first.
    """
    described: dict[str, Any] = {"error_type": _name(error)}
    if isinstance(error, SluiceError):
        described |= {"error_code": error.code.name, "error": error.message}
    chain = list(islice(_causes(error), MAX_CAUSES))
    described["traceback"] = [line for cause in reversed(chain) for line in _places(cause)]
    return described


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _places(error: BaseException) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES):
        yield f"{frame.filename}:{frame.lineno} {frame.name}"
    yield _name(error)


def record_fields(record: logging.LogRecord, service: str) -> dict[str, Any]:
    """The fields of one record, in the order they are written."""
    written: dict[str, Any] = {
        "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        "service": service,
    }
    identity = trace.get_current_span().get_span_context()
    if identity.is_valid:
        written["trace_id"] = trace.format_trace_id(identity.trace_id)
        written["span_id"] = trace.format_span_id(identity.span_id)
    written |= {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith("_")
    }
    if record.exc_info and record.exc_info[1] is not None:
        written |= describe_exception(record.exc_info[1])
    return written


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a value JSON does not know is written as the name of its type."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102  # documented by the base
        written = record_fields(record, self._service)
        return json.dumps(written, ensure_ascii=False, default=lambda value: type(value).__name__)


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, then the other fields as name=value."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102  # documented by the base
        written = record_fields(record, self._service)
        places = written.pop("traceback", [])
        head = [str(written.pop(name)) for name in ("ts", "level", "logger", "message")]
        fields = [f"{name}={value}" for name, value in written.items()]
        return "\n    ".join([" ".join(head + fields), *places])
