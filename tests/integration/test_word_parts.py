"""Parts of tables of words in a real Chroma: whole or refused, within the bounds of a request."""

from __future__ import annotations

import random

import pytest

from common.chroma import ChromaSettings, open_chroma
from common.word_parts import WordParts, words_collection
from common.word_table import UnreadableTable

STORE = "default.docs.v000001"
BLOB = random.Random(4).randbytes(300_000)


@pytest.fixture
async def chroma(tmp_path):
    opened = open_chroma(ChromaSettings(mode="embedded", path=tmp_path, max_request_bytes=2**16))
    yield opened
    await opened.aclose()


@pytest.fixture
def parts(chroma):
    return WordParts(chroma)


async def test_a_table_larger_than_a_request_is_read_as_it_was_written(parts):
    count = await parts.write(STORE, "one", BLOB)
    assert count > len(BLOB) // 2**16
    assert await parts.write(STORE, "two", BLOB[:7]) == 1
    assert await parts.read(STORE, "one", count, max_bytes=len(BLOB)) == BLOB
    assert await parts.read(STORE, "two", 1, max_bytes=7) == BLOB[:7]
    assert len(await parts.ids(STORE)) == count + 1


async def test_more_bytes_than_expected_are_refused(parts):
    count = await parts.write(STORE, "one", BLOB)
    with pytest.raises(UnreadableTable):
        await parts.read(STORE, "one", count, max_bytes=len(BLOB) - 1)


async def test_missing_parts_are_told(parts):
    with pytest.raises(UnreadableTable):
        await parts.read(STORE, "one", 1, max_bytes=9)
    count = await parts.write(STORE, "one", BLOB)
    await parts.delete(STORE, [f"one:{count - 1}"])
    with pytest.raises(UnreadableTable):
        await parts.read(STORE, "one", count, max_bytes=len(BLOB))


async def test_a_damaged_part_is_told(parts, chroma):
    await parts.write(STORE, "one", b"table")
    kept = await chroma.collection(words_collection(STORE))
    for damaged in ({"part": "@@@@"}, {"part": None, "other": 1}):
        await kept.update_metadata(["one:0"], [damaged])
        with pytest.raises(UnreadableTable):
            await parts.read(STORE, "one", 1, max_bytes=9)


async def test_an_empty_table_takes_no_place(parts, chroma):
    assert await parts.write(STORE, "one", b"") == 0
    assert await parts.read(STORE, "one", 0, max_bytes=0) == b""
    assert await chroma.collections() == []


async def test_what_is_not_there_is_fine_to_delete(parts):
    assert await parts.ids(STORE) == []
    await parts.delete(STORE, ["one:0"])
    await parts.drop(STORE)
    await parts.write(STORE, "one", b"table")
    await parts.drop(STORE)
    assert await parts.ids(STORE) == []
