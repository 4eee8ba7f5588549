"""The chunk cache keeps what is used, within its bound; the reader asks for what is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from query.chunks import ENTRY_BYTES, ChunkCache, ChunkReader, ChunkText, StoredChunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from query.index_version import IndexVersion

VERSION = cast("IndexVersion", None)  # the source below holds one only


class Source:
    """Holds chunks a to c; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], bool]] = []

    async def stored(
        self, _version: IndexVersion, ids: Sequence[str], *, texts: bool
    ) -> dict[str, StoredChunk]:
        self.asked.append((list(ids), texts))
        return {
            one: StoredChunk({"n": one}, ChunkText(b"", one.encode()) if texts else None)
            for one in ids
            if one in "abc"
        }


def text(size: int) -> ChunkText:
    return ChunkText(title=b"t" * (size // 3), text=b"x" * (size - size // 3))


def entries(count: int, size: int) -> int:
    return count * (size + ENTRY_BYTES)


def test_the_least_recently_used_goes_first():
    cache = ChunkCache(entries(2, 4))
    cache.put("a", text(4))
    cache.put("b", text(3))
    assert cache.get("a") == text(4)
    cache.put("c", text(4))
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (text(4), text(4))


def test_a_text_greater_than_the_bound_is_not_kept_and_drives_nothing_out():
    cache = ChunkCache(entries(1, 4))
    cache.put("a", text(4))
    cache.put("b", text(5))
    assert cache.get("a") == text(4)
    assert cache.get("b") is None


def test_a_text_put_twice_counts_once():
    cache = ChunkCache(entries(2, 4))
    cache.put("a", text(4))
    cache.put("a", text(4))
    assert cache.bytes == entries(1, 4)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 600)), max_size=60))
def test_the_bound_holds_whatever_comes(puts: list[tuple[int, int]]):
    cache = ChunkCache(2_500)
    for name, size in puts:
        cache.put(str(name), text(size))
        assert cache.bytes <= 2_500
    kept = [found for name in range(21) if (found := cache.get(str(name))) is not None]
    assert cache.bytes == sum(len(found.title + found.text) + ENTRY_BYTES for found in kept)
    assert len(cache) == len(kept)


async def test_texts_are_asked_for_once():
    source = Source()
    reader = ChunkReader(source, ChunkCache(2_500))
    assert list(await reader.texts(VERSION, ["a", "x"])) == ["a"]
    assert set(await reader.texts(VERSION, ["a", "b", "x"])) == {"a", "b"}
    assert list(await reader.texts(VERSION, ["b"])) == ["b"]
    assert source.asked == [(["a", "x"], True), (["b", "x"], True)]


async def test_present_state_is_always_read_and_texts_only_where_one_is_not_kept():
    source = Source()
    reader = ChunkReader(source, ChunkCache(2_500))
    first = await reader.stored(VERSION, ["a", "b"], shown=["a"])
    assert first["a"] == StoredChunk({"n": "a"}, ChunkText(b"", b"a"))
    # Both came with their texts, so nothing is missing now; the one that went stays away.
    again = await reader.stored(VERSION, ["a", "b", "x"], shown=["a", "b"])
    assert {one: chunk.text for one, chunk in again.items()} == {
        "a": ChunkText(b"", b"a"),
        "b": ChunkText(b"", b"b"),
    }
    assert source.asked == [(["a", "b"], True), (["a", "b", "x"], False)]


async def test_a_kept_text_of_a_chunk_that_is_gone_is_not_told():
    source, cache = Source(), ChunkCache(2_500)
    cache.put("gone", ChunkText(b"", b"old"))
    assert await ChunkReader(source, cache).stored(VERSION, ["gone"], shown=["gone"]) == {}
