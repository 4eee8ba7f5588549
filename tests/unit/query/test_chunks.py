"""The chunk cache keeps what is used, within its bound."""

from hypothesis import given
from hypothesis import strategies as st

from query.chunks import ENTRY_BYTES, ChunkCache


def entries(count: int, size: int) -> int:
    return count * (size + ENTRY_BYTES)


def test_the_least_recently_used_goes_first():
    cache = ChunkCache(entries(2, 4))
    cache.put("a", b"aaaa")
    cache.put("b", b"bbbb")
    assert cache.get("a") == b"aaaa"
    cache.put("c", b"cccc")
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (b"aaaa", b"cccc")


def test_a_text_greater_than_the_bound_is_not_kept_and_drives_nothing_out():
    cache = ChunkCache(entries(1, 4))
    cache.put("a", b"aaaa")
    cache.put("b", b"bbbbb")
    assert cache.get("a") == b"aaaa"
    assert cache.get("b") is None


def test_a_text_put_twice_counts_once():
    cache = ChunkCache(entries(2, 4))
    cache.put("a", b"aaaa")
    cache.put("a", b"aaaa")
    assert cache.bytes == entries(1, 4)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 600)), max_size=60))
def test_the_bound_holds_whatever_comes(puts: list[tuple[int, int]]):
    cache = ChunkCache(2_000)
    for name, size in puts:
        cache.put(str(name), b"x" * size)
        assert cache.bytes <= 2_000
    kept = [text for name in range(21) if (text := cache.get(str(name))) is not None]
    assert cache.bytes == sum(len(text) + ENTRY_BYTES for text in kept)
    assert len(cache) == len(kept)
