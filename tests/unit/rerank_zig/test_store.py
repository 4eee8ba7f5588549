"""A store of terms scores by ids what the library scores by texts, and stays within its bound."""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from common.errors import FailedPrecondition, InvalidArgument, Overloaded
from rerank_zig import FusionOptions, StoreUsage, WordStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rerank_zig import RerankLibrary, Scores, TermStore

WORDS = [
    *("fox", "foxes", "running", "the", "of", "and", "node", "dataNode", "NN-HA-42", "nn-ha-42"),
    *("java.io.IOException", "block", "blocks", "compaction", "state-of-the-art", "utf8", "v2"),
    *("HDFSClient", "42", "E\u0301cole", "語", "replica", "a.b.c"),
]
QUERIES = (
    "",
    "the",
    "fox",
    "running foxes of the block",
    "NN-HA-42 java.io.IOException",
    "dataNode HDFSClient v2 42 utf8 école 語",
    " ".join(f"w{number}" for number in range(200)) + " fox node block",
)
COLUMNS = ("fused", "dense", "lexical_raw", "lexical", "title", "proximity")


@pytest.fixture
def store(library: RerankLibrary) -> Iterator[TermStore]:
    with library.open_store(1 << 22) as store:
        yield store


def prose(rng: random.Random, most: int) -> bytes:
    return rng.choice(" \n").join(rng.choices(WORDS, k=rng.randint(0, most))).encode()


def chunks(rng: random.Random, count: int) -> tuple[list[str], list[bytes], list[bytes]]:
    ids = [f"{rng.getrandbits(128):032x}:{rng.getrandbits(64):016x}:{n}" for n in range(count)]
    titles = [prose(rng, 8) for _ in ids]
    return ids, titles, [prose(rng, rng.choice([3, 60, 300])) for _ in ids]


def similarities(rng: random.Random, count: int) -> Any:
    return np.array([rng.uniform(-1, 1) for _ in range(count)], np.float32)


def assert_same(kept: Scores, raw: Scores) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(kept, column), getattr(raw, column), column)
    assert (kept.alpha, kept.chunks) == (raw.alpha, raw.chunks)


@pytest.mark.parametrize("query", QUERIES)
def test_kept_chunks_score_as_their_texts(
    library: RerankLibrary, store: TermStore, query: str
) -> None:
    rng = random.Random(query)
    ids, titles, texts = chunks(rng, 150)
    store.put(ids, titles, texts)
    counts = library.count_words(titles, texts)
    hashes, frequencies = np.unique(counts.hashes, return_counts=True)
    statistics = WordStatistics(
        chunks=len(ids),
        text_words=int(counts.text_words.sum()),
        title_words=int(counts.title_words.sum()),
        hashes=hashes,
        frequencies=frequencies.astype(np.uint32),
    )
    order = rng.choices(range(len(ids)), k=200)  # some of them twice
    similar = similarities(rng, len(order))
    for options in (FusionOptions(), FusionOptions(alpha=0.25, title=0.5, proximity=2.0)):
        for known in (None, statistics):
            kept, missing = store.score(query, [ids[i] for i in order], similar, options, known)
            raw = library.score(
                query,
                [texts[i] for i in order],
                similar,
                options,
                known,
                [titles[i] for i in order],
            )
            assert_same(kept, raw)
            assert not missing.any()


def test_what_is_not_kept_is_said_and_scores_as_if_empty(
    library: RerankLibrary, store: TermStore
) -> None:
    store.put(["a", "c"], [b"", b"red"], [b"fox", b"fox red"])
    ids, similar = ["a", "b", "c", "bb"], np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert store.missing(ids) == [1, 3]
    scores, missing = store.score("red fox", ids, similar)
    assert missing.tolist() == [False, True, False, True]
    texts, titles = ["fox", "", "fox red", ""], ["", "", "red", ""]
    assert_same(scores, library.score("red fox", texts, similar, titles=titles))
    assert scores.lexical_raw[2] > 0


def test_an_id_means_one_text_for_ever(store: TermStore) -> None:
    similar = np.zeros(1, np.float32)
    store.put(["a"], [b""], [b"fox"])
    before = store.usage()
    store.put(["a", "a"], [b"", b"red"], [b"fox", b"fox red"])
    after = store.usage()
    assert (after.chunks, after.bytes) == (before.chunks, before.bytes) == (1, before.bytes)
    assert store.score("red", ["a"], similar)[0].lexical_raw == [0]


def test_usage_counts_what_was_looked_up(store: TermStore) -> None:
    empty = store.usage()
    assert empty == StoreUsage(bytes=empty.bytes, chunks=0, hits=0, misses=0, evictions=0)
    store.put(["a", "b"], [b"", b""], [b"fox " * 100, b"fox"])
    store.missing(["a", "c", "d"])
    store.score("fox", ["a", "b", "e"], np.zeros(3, np.float32))
    usage = store.usage()
    assert (usage.chunks, usage.hits, usage.misses, usage.evictions) == (2, 3, 3, 0)
    assert usage.bytes - empty.bytes >= 4 * 101


@pytest.mark.parametrize("max_bytes", [0, 100, 4096, 20_000, 1 << 18])
def test_the_bound_holds_whatever_is_put(library: RerankLibrary, max_bytes: int) -> None:
    rng = random.Random(max_bytes)
    with library.open_store(max_bytes) as store:
        for _ in range(40):
            ids, titles, texts = chunks(rng, rng.randint(0, 20))
            if texts:
                texts[0] *= rng.choice([1, 1, 50])
            store.put(ids, titles, texts)
            usage = store.usage()
            assert usage.bytes <= max_bytes
            missing = store.missing(ids)
            assert len(ids) - len(missing) <= usage.chunks
            kept = [n for n in range(len(ids)) if n not in missing]
            similar = similarities(rng, len(kept))
            scores, lost = store.score("fox", [ids[n] for n in kept], similar)
            assert not lost.any()
            kept_texts, kept_titles = [texts[n] for n in kept], [titles[n] for n in kept]
            assert_same(scores, library.score("fox", kept_texts, similar, titles=kept_titles))
        usage = store.usage()
        if max_bytes >= 20_000:
            assert usage.evictions > 0
            assert usage.bytes > max_bytes // 2
        else:
            assert usage.chunks <= max_bytes // 64


def test_what_was_looked_up_outlives_what_was_not(library: RerankLibrary) -> None:
    text = b"fox " * 100
    with library.open_store(1 << 16) as store:
        store.put(["used", "unused"], [b""] * 2, [text] * 2)
        number = 0
        while store.usage().evictions < 200:
            assert store.missing(["used"]) == []
            store.put([str(number)], [b""], [text])
            number += 1
            assert number < 1000
        assert store.missing(["used", "unused"]) == [1]


def test_a_scan_of_the_collection_does_not_wait_for_second_chances(library: RerankLibrary) -> None:
    """Though every chunk was looked up since it came, one more finds room."""
    with library.open_store(1 << 18) as store:
        ids = [str(number) for number in range(1000)]
        for one in ids:
            store.put([one], [b""], [b"fox " * 50])
            store.missing(ids)
        assert store.missing(ids[-1:]) == []
        assert store.usage().evictions > 0


@pytest.mark.parametrize(
    "ids", [["a\nb"], ["a", ""], ["", "a"], [""], ["\n"], ["a\n"], ["\n", "b"], ["a", "b\n", "c"]]
)
def test_ids_that_could_be_taken_for_others_are_refused(
    store: TermStore, ids: Sequence[str]
) -> None:
    nothing = [b""] * len(ids)
    for call in (
        lambda: store.missing(ids),
        lambda: store.put(ids, nothing, nothing),
        lambda: store.score("fox", ids, np.zeros(len(ids), np.float32)),
    ):
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.field == "ids"
    assert store.usage().chunks == 0


def test_ids_of_any_characters_are_apart(store: TermStore) -> None:
    ids = ["\ud83d\ude00", "\U0001f600", "\ud83d", "?", "é", "e\u0301", "\0", "a\0", "a"]
    for number, one in enumerate(ids):
        assert store.missing(ids[number:]) == list(range(len(ids) - number))
        store.put([one], [b""], [b"fox"])
    assert store.missing(ids) == []


def test_nothing_at_all(store: TermStore) -> None:
    store.put([], [], [])
    assert store.missing([]) == []
    scores, missing = store.score("fox", [], np.zeros(0, np.float32))
    assert scores.fused.shape == missing.shape == (0,)


def test_misuse_is_named(store: TermStore) -> None:
    cases: list[tuple[str, Any]] = [
        ("texts", lambda: store.put(["a", "b"], [b"", b""], [b""])),
        ("titles", lambda: store.put(["a", "b"], [b""], [b"", b""])),
        ("similarities", lambda: store.score("fox", ["a"], np.zeros(2, np.float32))),
        ("similarities", lambda: store.score("fox", ["a"], np.array([np.nan], np.float32))),
        (
            "options.alpha",
            lambda: store.score("fox", ["a"], np.zeros(1, np.float32), FusionOptions(alpha=2.0)),
        ),
        ("query", lambda: store.score("fox" * (1 << 20), ["a"], np.zeros(1, np.float32))),
    ]
    for field, call in cases:
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.field == field
    assert store.usage() == StoreUsage(store.usage().bytes, 0, 0, 0, 0)


def test_a_closed_store_says_so(library: RerankLibrary) -> None:
    store = library.open_store(4096)
    store.close()
    store.close()
    similar = np.zeros(1, np.float32)
    with library.open_store(4096) as other:  # perhaps in the place of the first
        for call in (
            lambda: store.missing(["a"]),
            lambda: store.put(["a"], [b""], [b"fox"]),
            lambda: store.score("fox", ["a"], similar),
            store.usage,
        ):
            with pytest.raises(FailedPrecondition, match="closed"):
                call()
        store.close()
        assert other.missing(["a"]) == [0]


def test_at_most_64_stores_and_none_is_lost(library: RerankLibrary) -> None:
    gc.collect()
    stores: list[TermStore] = []
    with pytest.raises(FailedPrecondition, match="Too many"):
        stores.extend(library.open_store(0) for _ in range(65))
    assert 48 < len(stores) <= 64
    del stores[:]  # nobody refers to them: they close themselves
    gc.collect()
    with library.open_store(0) as store:
        assert store.missing(["a"]) == [0]


@pytest.mark.parametrize("max_bytes", [-1, 1 << 64])
def test_a_bound_beyond_64_bits_is_refused(library: RerankLibrary, max_bytes: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        library.open_store(max_bytes)
    assert caught.value.field == "max_bytes"


def test_more_memory_than_there_may_be(library: RerankLibrary) -> None:
    """The system refuses, or gives what it has not got; either way nothing breaks."""
    try:
        store = library.open_store((1 << 64) - 1)
    except Overloaded:
        return
    with store:
        store.put(["a"], [b""], [b"fox"])
        assert store.missing(["a"]) == []
