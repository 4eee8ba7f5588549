"""Hadoop's SequenceFile of text, version 6: plain, record-compressed and block-compressed.

The layout is that of Hadoop's documentation of ``org.apache.hadoop.io.SequenceFile``; variable
length integers and strings those of ``WritableUtils`` and ``Text``:

    header  "SEQ" 6, key class, value class, compressed?, in blocks?, [codec class],
            metadata (count, pairs of strings), sync marker (16 bytes)
    record  length, key length, key, value (compressed by itself where records are)
    block   -1, sync, count, then four compressed buffers, each after its size:
            lengths of keys, keys, lengths of values, values
    sync    -1 in the place of a record's length, and the marker again

Each record is a row with the columns ``key`` and ``value``; those of null classes are null.
"""

from __future__ import annotations

import bz2
import io
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ingestor.extraction import expansion, plain_text
from ingestor.extraction.extracted import Refusal
from ingestor.extraction.table_rows import Table
from ingestor.faults import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ingestor.extraction.worker_protocol import Limits

_VERSION = 6
_SYNC_BYTES = 16
_MAX_METADATA = 1024
_MAX_NAME_BYTES = 2**16
_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")


def read(stream: BinaryIO, limits: Limits) -> Table:
    """The records as rows; Refusal for classes and codecs that hold no text that can be read."""
    source = _Source(stream, limits.max_member_bytes)
    if source.exactly(3) != b"SEQ":
        raise _malformed("it does not begin like one")
    version = source.exactly(1)[0]
    if version != _VERSION:
        message = f"SequenceFiles of version {version} are not read, only those of {_VERSION}"
        raise Refusal(Cause.UNSUPPORTED_TYPE, message)
    key, value = (_decoder(source.string(), limits) for _ in range(2))
    compressed, in_blocks = source.flag(), source.flag()
    expand = _Expansion(source.string() if compressed else "", limits)
    count = source.integer()
    if not 0 <= count <= _MAX_METADATA:
        raise _malformed("its header is damaged")
    for _ in range(2 * count):
        source.string()
    sync = source.exactly(_SYNC_BYTES)
    pairs = _blocks(source, sync, expand) if in_blocks else _records(source, sync, expand)
    return Table(("key", "value"), _rows(pairs, key, value))


def _rows(
    pairs: Iterator[tuple[bytes, bytes]],
    key: Callable[[bytes], object],
    value: Callable[[bytes], object],
) -> Iterator[Mapping[str, object]]:
    try:
        for raw_key, raw_value in pairs:
            yield {"key": key(raw_key), "value": value(raw_value)}
    except struct.error:
        raise _malformed("a key or value is not of its class") from None


def _records(source: _Source, sync: bytes, expand: _Expansion) -> Iterator[tuple[bytes, bytes]]:
    while not source.at_end():
        size = source.integer()
        if size == -1:
            source.expect(sync)
            continue
        key_size = source.integer()
        if not 0 <= key_size <= size:
            raise _malformed("a record's length is impossible")
        yield source.exactly(key_size), expand(source.exactly(size - key_size))


def _blocks(source: _Source, sync: bytes, expand: _Expansion) -> Iterator[tuple[bytes, bytes]]:
    while not source.at_end():
        if source.integer() != -1:
            raise _malformed("a block does not begin with a sync marker")
        source.expect(sync)
        count = source.variable_integer()
        if count < 0:
            raise _malformed("a block's count is negative")
        key_sizes, keys, value_sizes, values = (
            _Source(io.BytesIO(expand(source.exactly(source.variable_integer()))), 0)
            for _ in range(4)
        )
        for _ in range(count):
            key = keys.exactly(key_sizes.variable_integer())
            yield key, values.exactly(value_sizes.variable_integer())


@dataclass(slots=True)
class _Source:
    """Reads the primitives of Hadoop's streams; ``max_bytes`` bounds one read, 0 does not."""

    stream: BinaryIO
    max_bytes: int
    ahead: bytes = b""

    def exactly(self, size: int) -> bytes:
        if size < 0:
            raise _malformed("a length is negative")
        if size > sys.maxsize:
            raise _malformed("a length is impossible")
        if self.max_bytes and size > self.max_bytes:
            message = f"a record or block of it is over {self.max_bytes} bytes"
            raise Refusal(Cause.TOO_LARGE, message)
        content, self.ahead = self.ahead[:size], self.ahead[size:]
        if len(content) < size:
            content += self.stream.read(size - len(content))
        if len(content) < size:
            raise _malformed("it ends too early")
        return content

    def at_end(self) -> bool:
        self.ahead = self.ahead or self.stream.read(1)
        return not self.ahead

    def expect(self, sync: bytes) -> None:
        if self.exactly(_SYNC_BYTES) != sync:
            raise _malformed("a sync marker is damaged")

    def flag(self) -> bool:
        return self.exactly(1) != b"\0"

    def integer(self) -> int:
        (value,) = _INT.unpack(self.exactly(_INT.size))
        return int(value)

    def variable_integer(self) -> int:
        """As ``WritableUtils.readVLong``: one byte, or its count (and sign) and the bytes."""
        first = int.from_bytes(self.exactly(1), "big", signed=True)
        if first >= -112:  # noqa: PLR2004 — what fits in one byte
            return first
        negative = first < -120  # noqa: PLR2004 — -113 to -120 tell the count of positive ones
        value = int.from_bytes(self.exactly(-120 - first if negative else -112 - first), "big")
        return ~value if negative else value

    def string(self) -> str:
        size = self.variable_integer()
        if size > _MAX_NAME_BYTES:
            raise _malformed("its header is damaged")
        return self.exactly(size).decode("utf-8", "replace")


class _Expansion:
    """Expands values or buffers by the codec that the header names, up to the bounds."""

    def __init__(self, codec: str, limits: Limits) -> None:
        self._limits = limits
        self._packed = self._expanded = 0
        name = codec.rpartition(".")[2]
        codecs: dict[str, Callable[[bytes, int], bytes]] = {
            "": lambda content, _: content,
            "DefaultCodec": _zlib,
            "DeflateCodec": _zlib,
            "GzipCodec": _zlib,
            "BZip2Codec": _bzip2,
            "ZStandardCodec": _zstandard,
            "SnappyCodec": _snappy,
        }
        if name not in codecs:
            message = f"SequenceFiles packed with {codec[:200]} are not read"
            raise Refusal(Cause.UNSUPPORTED_TYPE, message)
        self._expand = codecs[name]

    def __call__(self, content: bytes) -> bytes:
        bound = self._limits.max_member_bytes
        try:
            expanded = self._expand(content, bound)
        except (zlib.error, OSError, ValueError, EOFError, struct.error):
            raise _malformed("what is compressed in it is damaged") from None
        if len(expanded) > bound:
            message = f"a block of it expands to over {bound} bytes"
            raise Refusal(Cause.TOO_LARGE, message)
        self._packed += len(content)
        self._expanded += len(expanded)
        expansion.check(self._expanded, self._packed, self._limits.max_expanded_bytes)
        return expanded


def _zlib(content: bytes, bound: int) -> bytes:
    """Zlib's format or gzip's; one byte past the bound tells that there is more."""
    expander = zlib.decompressobj(zlib.MAX_WBITS | 32)
    expanded = expander.decompress(content, bound + 1)
    if content and not expander.eof and len(expanded) <= bound:
        raise EOFError
    return expanded


def _bzip2(content: bytes, bound: int) -> bytes:
    expander = bz2.BZ2Decompressor()
    expanded = expander.decompress(content, bound + 1)
    if content and not expander.eof and len(expanded) <= bound:
        raise EOFError
    return expanded


def _zstandard(content: bytes, bound: int) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 — of these codecs the standard library lacks

    stream = pa.CompressedInputStream(pa.BufferReader(content), "zstd")
    expanded: bytes = stream.read(bound + 1)
    return expanded


def _snappy(content: bytes, bound: int) -> bytes:
    """Blocks of Hadoop's ``BlockCompressorStream``: size expanded, then chunks after their size."""
    import pyarrow as pa  # noqa: PLC0415 — of these codecs the standard library lacks

    codec = pa.Codec("snappy")
    expanded = bytearray()
    place = 0
    while place < len(content):
        (size,) = _INT.unpack_from(content, place)
        place += _INT.size
        end = len(expanded) + size
        if size < 0 or end > bound:
            return bytes(bound + 1)
        while len(expanded) < end:
            (packed,) = _INT.unpack_from(content, place)
            place += _INT.size
            chunk = content[place : place + packed]
            place += packed
            expanded += codec.decompress(chunk, _snappy_size(chunk, bound), asbytes=True)
    return bytes(expanded)


def _snappy_size(chunk: bytes, bound: int) -> int:
    """The size a chunk of Snappy expands to, which it begins with, seven bits a byte."""
    size = shift = 0
    for byte in chunk[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 — the last byte of the number
            break
    if size > bound:
        raise ValueError
    return size


def _decoder(name: str, limits: Limits) -> Callable[[bytes], object]:
    """How a class of ``org.apache.hadoop.io`` writes its value."""

    def text(content: bytes) -> object:
        source = _Source(io.BytesIO(content), 0)
        encoded = source.exactly(source.variable_integer())
        return plain_text.decode_unmarked(encoded, limits.fallback_encoding)

    def raw(content: bytes) -> object:
        source = _Source(io.BytesIO(content), 0)
        return source.exactly(source.integer())

    classes: dict[str, Callable[[bytes], object]] = {
        "Text": text,
        "BytesWritable": raw,
        "LongWritable": lambda content: _LONG.unpack(content)[0],
        "IntWritable": lambda content: _INT.unpack(content)[0],
        "NullWritable": lambda _: None,
    }
    package, _, kind = name.rpartition(".")
    if package != "org.apache.hadoop.io" or kind not in classes:
        message = f"SequenceFiles of {name[:200]} are not read, only of {', '.join(classes)}"
        raise Refusal(Cause.UNSUPPORTED_TYPE, message)
    return classes[kind]


def _malformed(reason: str) -> Refusal:
    return Refusal(Cause.MALFORMED, f"it cannot be read as sequencefile: {reason}")
