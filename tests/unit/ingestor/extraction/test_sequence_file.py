"""SequenceFiles, written here byte by byte from the documentation of the format."""

import bz2
import gzip
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from ingestor.extraction import sequence_file
from ingestor.extraction.extracted import Refusal
from ingestor.faults import Cause
from ingestor.settings import ExtractionSettings

SYNC = bytes(range(16))
PACKAGE = "org.apache.hadoop.io."


def variable(number: int) -> bytes:
    """As ``WritableUtils.writeVLong``."""
    if -112 <= number <= 127:
        return struct.pack("b", number)
    first, size = (-112, number) if number >= 0 else (-120, ~number)
    content = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return struct.pack("b", first - len(content)) + content


def string(text: str) -> bytes:
    encoded = text.encode()
    return variable(len(encoded)) + encoded


def raw(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def snappy(content: bytes) -> bytes:
    """As Hadoop's BlockCompressorStream: here in two chunks, and none of nothing."""
    half = len(content) // 2
    chunks = [
        bytes(pa.Codec("snappy").compress(part, asbytes=True))
        for part in (content[:half], content[half:])
        if part
    ]
    packed = b"".join(struct.pack(">i", len(chunk)) + chunk for chunk in chunks)
    return struct.pack(">i", len(content)) + packed


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "DefaultCodec": zlib.compress,
    "GzipCodec": gzip.compress,
    "BZip2Codec": bz2.compress,
    "ZStandardCodec": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
    "SnappyCodec": snappy,
}


def written(
    pairs: Sequence[tuple[bytes, bytes]],
    *,
    key: str = "LongWritable",
    value: str = "Text",
    codec: str = "",
    blocks_of: int = 0,
    sync_every: int = 3,
) -> bytes:
    made = b"SEQ\x06" + string(PACKAGE + key) + string(PACKAGE + value)
    made += bytes([bool(codec), bool(blocks_of)])
    made += string(PACKAGE + "compress." + codec) if codec else b""
    made += struct.pack(">i", 1) + string("made by") + string("a test") + SYNC
    pack = CODECS.get(codec, bytes)
    if not blocks_of:
        for place, (raw_key, raw_value) in enumerate(pairs):
            if place % sync_every == sync_every - 1:
                made += struct.pack(">i", -1) + SYNC
            packed = pack(raw_value)
            made += struct.pack(">ii", len(raw_key) + len(packed), len(raw_key))
            made += raw_key + packed
        return made
    for start in range(0, len(pairs), blocks_of):
        block = pairs[start : start + blocks_of]
        made += struct.pack(">i", -1) + SYNC + variable(len(block))
        for column in zip(*block, strict=True):
            for buffer in (b"".join(variable(len(cell)) for cell in column), b"".join(column)):
                packed = pack(buffer)
                made += variable(len(packed)) + packed
    return made


def rows(data: bytes, settings: ExtractionSettings | None = None) -> list[Any]:
    limits = (settings or ExtractionSettings()).limits()
    return list(sequence_file.read(io.BytesIO(data), limits).rows)


PAIRS = [
    (struct.pack(">q", number), string(f"text {number} " + "ü" * number)) for number in range(200)
]
EXPECTED = [{"key": number, "value": f"text {number} " + "ü" * number} for number in range(200)]


@pytest.mark.parametrize("codec", ["", *CODECS])
def test_records_by_themselves(codec):
    assert rows(written(PAIRS, codec=codec)) == EXPECTED


@pytest.mark.parametrize("codec", list(CODECS))
def test_records_in_blocks(codec):
    assert rows(written(PAIRS, codec=codec, blocks_of=64)) == EXPECTED


def test_the_classes_of_keys_and_values():
    cases = {
        "Text": (string("k" * 200), "k" * 200),
        "BytesWritable": (raw(b"\xff\0"), b"\xff\0"),
        "LongWritable": (struct.pack(">q", -5), -5),
        "IntWritable": (struct.pack(">i", 7), 7),
        "NullWritable": (b"", None),
    }
    for name, (encoded, value) in cases.items():
        assert rows(written([(encoded, string("t"))], key=name)) == [{"key": value, "value": "t"}]
        made = written([(b"", encoded)] * 3, key="NullWritable", value=name)
        assert rows(made) == [{"key": None, "value": value}] * 3


@pytest.mark.parametrize("options", [{}, {"codec": "DefaultCodec", "blocks_of": 20}])
def test_a_file_cut_short_is_malformed_unless_cut_between_records(options):
    whole = written(PAIRS[:40], **options)
    header = len(written([], **options))
    ends = 0
    for size in range(len(whole)):
        try:
            found = rows(whole[:size])
        except Refusal as refusal:
            assert refusal.fault.cause == Cause.MALFORMED  # noqa: PT017 — some sizes are whole
        else:
            assert size >= header
            assert found == EXPECTED[: len(found)]
            ends += 1
    assert 1 <= ends <= 60  # the ends of the header, of records, and of sync markers


def test_damage_is_malformed():
    whole = written(PAIRS, codec="DefaultCodec", blocks_of=50)
    damaged = [
        whole[:-200] + bytes(100) + whole[-100:],
        whole.replace(SYNC, bytes(16)).replace(bytes(16), SYNC, 1),
        b"SEQ",
        b"",
        b"PAR1" + whole[4:],
    ]
    for data in damaged:
        with pytest.raises(Refusal) as raised:
            rows(data)
        assert raised.value.fault.cause == Cause.MALFORMED


def test_what_is_not_read_is_said():
    cases = {
        "version": b"SEQ\x04" + written(PAIRS)[4:],
        "org.example.Point": written(PAIRS).replace(
            string(PACKAGE + "LongWritable"), string("org.example.Point")
        ),
        "LzoCodec": written(PAIRS, codec="LzoCodec"),
    }
    for named, data in cases.items():
        with pytest.raises(Refusal) as raised:
            rows(data)
        assert raised.value.fault.cause == Cause.UNSUPPORTED_TYPE
        assert named in raised.value.fault.message


@pytest.mark.parametrize("codec", list(CODECS))
@pytest.mark.parametrize("blocks_of", [0, 1])
def test_a_block_that_expands_beyond_the_bound_is_refused(codec, blocks_of):
    large = [(b"", string("a" * 200_000))]
    data = written(large, key="NullWritable", codec=codec, blocks_of=blocks_of)
    with pytest.raises(Refusal) as raised:
        rows(data, ExtractionSettings(max_member_bytes=100_000))
    assert raised.value.fault.cause == Cause.TOO_LARGE
    many = written(PAIRS, codec=codec, blocks_of=10 * blocks_of)
    with pytest.raises(Refusal) as raised:
        rows(many, ExtractionSettings(max_expanded_bytes=5_000))
    assert raised.value.fault.cause == Cause.TOO_LARGE


@pytest.mark.parametrize("number", [-5, -(2**62), 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("place", ["count", "size of a buffer", "length of a key"])
def test_an_impossible_number_in_a_block_is_a_fault(number, place):
    encoded = (
        variable(number) if number < 2**63 else struct.pack("b", -120) + number.to_bytes(8, "big")
    )
    lengths = zlib.compress(encoded)
    content = {
        "count": encoded,
        "size of a buffer": variable(1) + encoded,
        "length of a key": variable(1) + variable(len(lengths)) + lengths,
    }[place]
    buffers = b"".join(variable(len(packed)) + packed for packed in [zlib.compress(b"\x01a")] * 4)
    data = written([], codec="DefaultCodec", blocks_of=1)
    data += struct.pack(">i", -1) + SYNC + content + buffers
    with pytest.raises(Refusal) as raised:
        rows(data)
    assert raised.value.fault.cause in {Cause.MALFORMED, Cause.TOO_LARGE}


@pytest.mark.parametrize("size", [-(2**31), -2, 2**31 - 1])
def test_an_impossible_length_of_a_record_is_a_fault(size):
    for lengths in (struct.pack(">ii", size, 0), struct.pack(">ii", 10, size)):
        with pytest.raises(Refusal) as raised:
            rows(written([]) + lengths + bytes(100))
        assert raised.value.fault.cause in {Cause.MALFORMED, Cause.TOO_LARGE}
