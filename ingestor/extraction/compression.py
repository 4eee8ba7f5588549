"""Compressed files, read as they expand: gzip, Zstandard and bzip2, one stream or many in a row.

Expansion is bounded by ``expansion.py``, so that a bomb costs neither memory nor time.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa

from ingestor.extraction import expansion
from ingestor.extraction.extracted import Refusal
from ingestor.faults import Cause

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK_BYTES = 2**20


class _Expanding(io.RawIOBase):
    """What a file expands to."""

    def __init__(self, file: BinaryIO, codec: str, max_bytes: int) -> None:
        self._file = file
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)
        self._max_bytes = max_bytes
        self._expanded = 0
        self._refusal: Refusal | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        # Whoever reads on after a refusal, as an archive past a bad member, meets it again.
        if self._refusal is not None:
            raise self._refusal
        try:
            return self._readinto(buffer)
        except Refusal as refusal:
            self._refusal = refusal
            raise

    def _readinto(self, buffer: WriteableBuffer) -> int:
        try:
            content = self._stream.read(memoryview(buffer).nbytes)
        except (OSError, pa.ArrowInvalid) as error:
            message = f"it cannot be expanded: {str(error).splitlines()[0][:200]}"
            raise Refusal(Cause.MALFORMED, message) from None
        self._expanded += len(content)
        expansion.check(self._expanded, self._file.tell(), self._max_bytes)
        memoryview(buffer)[: len(content)] = content
        return len(content)


def expanding(file: BinaryIO, codec: str, max_bytes: int) -> BinaryIO:
    """A stream of what the file expands to.

    Reading raises Refusal past ``max_bytes`` and for what is broken or cut short. It cannot seek.
    """
    return cast("BinaryIO", io.BufferedReader(_Expanding(file, codec, max_bytes), _BLOCK_BYTES))
