"""The chunk cache keeps what is used, within its bound."""

from hypothesis import given
from hypothesis import strategies as st

from query.chunks import ENTRY_BYTES, ChunkCache, ChunkText


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
