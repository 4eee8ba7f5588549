"""What a worker process and its parent say to each other, and the worker's end of it.

The parent asks for a file with a ``Reading`` and the ``Limits``. The worker has no access to
storage: it asks back for ranges of bytes. It answers with batches of parts; the last one, or a
fault, ends the file:

    parent  {"reading": {…}, "limits": {…}, "size": bytes}
    worker  {"read": [offset, length]}              any number of times
    parent  0x00 and the bytes, fewer at the end of the file, or 0x01 and a fault
    worker  {"parts": [...], "passed_over": n}      any number of times
    worker  {"parts": [...], "passed_over": n, "last": true} or {"fault": [stage, cause, message]}

A fault with ``"spent": true`` says that the worker ran out of memory and must be replaced. A frame
is its length in 8 bytes, big endian, and its bytes: JSON in UTF-8 but for the bytes that were asked
for. The worker writes the next frame while the parent still holds the last one: then the pipe is
full, and it waits. This module imports nothing but the standard library.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ingestor.extraction.extracted import Extracted, Part, PartBatch
from ingestor.faults import Cause, Fault, FaultStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

HEADER_BYTES = 8
MAX_READ_BYTES = 4 * 2**20
DATA, FAULT = b"\0", b"\1"

_BATCH_BYTES = 2**20
_MAX_BATCH_OVERHEAD_BYTES = 64 * 2**20
_MAX_MESSAGE_CHARACTERS = 1000
_BATCH_PARTS = 1000
_LINGER_S = 2.0
_GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one file; see ``ExtractionSettings``."""

    max_characters: int
    max_expanded_bytes: int
    max_member_bytes: int
    timeout_s: float
    fallback_encoding: str | None = None

    @property
    def max_answer_bytes(self) -> int:
        """Of a frame: one text, all of it escaped by JSON, and a batch and metadata besides."""
        return 6 * self.max_characters + _MAX_BATCH_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file becomes documents.

    ``kind`` is ``file`` (one document), ``tar`` or ``zip`` (one a member), ``lines``, ``log`` or
    the format of a table; ``codec`` the compression to look through; ``rule`` the fields of a rule.
    """

    kind: str
    name: str
    media_type: str | None = None
    codec: str = ""
    rule: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One file to read; ``size`` in bytes."""

    reading: Reading
    limits: Limits
    size: int

    def encode(self) -> bytes:
        """The task as a frame."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, frame: bytes) -> Task:
        """The task of a frame."""
        said = json.loads(frame)
        return cls(Reading(**said["reading"]), Limits(**said["limits"]), said["size"])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said: a range to read, a batch, or a fault; whether the file is done."""

    read: tuple[int, int] | None = None
    batch: PartBatch | None = None
    fault: Fault | None = None
    last: bool = False
    spent: bool = False

    @classmethod
    def decode(cls, frame: bytes) -> Answer:
        """The answer of a frame."""
        said = json.loads(frame)
        if "read" in said:
            offset, length = said["read"]
            return cls(read=(max(0, offset), max(0, min(length, MAX_READ_BYTES))))
        if "fault" in said:
            return cls(fault=_fault(said["fault"]), last=True, spent=said["spent"])
        parts = tuple(_part(*fields) for fields in said["parts"])
        return cls(batch=PartBatch(parts, said["passed_over"]), last=said["last"])


def encode_fault(fault: Fault) -> list[str]:
    """A fault as JSON."""
    return [fault.stage.value, str(fault.cause), fault.message]


def _fault(said: list[str]) -> Fault:
    stage, cause, message = said
    return Fault(FaultStage(stage), cause, message[:_MAX_MESSAGE_CHARACTERS])


def _part(
    fragment: str,
    text: str,
    title: str,
    media_type: str,
    pages: list[list[int]],
    metadata: dict[str, Any],
) -> Part:
    spans = tuple((number, start, end) for number, start, end in pages)
    return Part(fragment, Extracted(text, title, media_type, spans, metadata))


class Channel:
    """The worker's end: it computes under an alarm, and waits for its parent without one.

    When the parent is gone, SystemExit is raised from whatever is in hand.
    """

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._alarm_s = 0

    def next_task(self) -> Task:
        """The next file."""
        signal.alarm(0)
        task = Task.decode(self._receive())
        self._alarm_s = math.ceil(task.limits.timeout_s) + _GRACE_S
        signal.alarm(self._alarm_s)
        return task

    def say(self, answer: Mapping[str, object]) -> None:
        """Send an answer; waits while the parent has not taken the one before."""
        self.send(encoded(answer))

    def send(self, frame: bytes) -> None:
        """Send an encoded answer, as ``say`` does."""
        signal.alarm(0)
        try:
            self._answers.write(len(frame).to_bytes(HEADER_BYTES, "big") + frame)
            self._answers.flush()
        except BrokenPipeError:
            os._exit(0)  # what is left in the buffer has no reader
        signal.alarm(self._alarm_s)

    def read_at(self, offset: int, length: int) -> bytes | Fault:
        """Ask the parent for bytes of the file."""
        self.say({"read": [offset, length]})
        signal.alarm(0)
        frame = self._receive()
        signal.alarm(self._alarm_s)
        content = frame[1:]
        return content if frame[:1] == DATA else _fault(json.loads(content))

    def _receive(self) -> bytes:
        size = int.from_bytes(self._exactly(HEADER_BYTES), "big")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        content = self._requests.read(size)
        if len(content) < size:
            raise SystemExit
        return content


def encoded(value: object) -> bytes:
    """A value as JSON; half a pair, which UTF-8 cannot hold, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


class PartSender:
    """Gathers parts into batches of about 1 MiB, or of what two seconds gave."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._parts: list[bytes] = []
        self._passed_over = 0
        self._bytes = 0
        self._sent_at = time.monotonic()
        self.count = 0
        self.sent_bytes = 0

    def add(self, part: Part | None) -> None:
        """A part, or None for a record that was passed over."""
        if part is None:
            self._passed_over += 1
        else:
            self.count += 1
            document = part.extracted
            content = encoded(
                (
                    *(part.fragment, document.text, document.title, document.media_type),
                    *(document.pages, document.metadata),
                )
            )
            self._bytes += len(content)
            self.sent_bytes += len(content)
            self._parts.append(content)
        full = self._bytes >= _BATCH_BYTES or len(self._parts) >= _BATCH_PARTS
        if self._parts and (full or time.monotonic() - self._sent_at > _LINGER_S):
            self.send(last=False)

    def send(self, *, last: bool) -> None:
        """Send what was gathered."""
        rest = encoded({"passed_over": self._passed_over, "last": last})
        self._channel.send(b'{"parts": [' + b",".join(self._parts) + b"], " + rest[1:])
        self._parts, self._passed_over, self._bytes = [], 0, 0
        self._sent_at = time.monotonic()


class RemoteFile(io.RawIOBase):
    """The file as the parent reads it; can seek. A fault of the storage is raised and kept."""

    def __init__(self, channel: Channel, size: int) -> None:
        self._channel = channel
        self._size = size
        self._position = 0
        self.fault: Fault | None = None

    def buffered(self, block_bytes: int) -> BinaryIO:
        """The same, read in blocks."""
        return cast("BinaryIO", io.BufferedReader(self, block_bytes))

    def readable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def seekable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def tell(self) -> int:
        """See ``io.RawIOBase``."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See ``io.RawIOBase``."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See ``io.RawIOBase``; StorageFault where the parent could not read."""
        view = memoryview(buffer).cast("B")
        length = min(view.nbytes, MAX_READ_BYTES, max(0, self._size - self._position))
        if not length:
            return 0
        content = self._channel.read_at(self._position, length)
        if not content:
            content = Fault(FaultStage.READ, Cause.UNREADABLE, "it was cut while it was read")
        if isinstance(content, Fault):
            self.fault = content
            raise StorageFault
        view[: len(content)] = content
        self._position += len(content)
        return len(content)


class StorageFault(Exception):
    """The parent could not read the file; ``RemoteFile.fault`` says why."""
