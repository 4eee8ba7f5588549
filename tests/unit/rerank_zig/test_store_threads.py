"""One store under many threads: answers are as if each had it alone, or that it is closed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from common.errors import FailedPrecondition
from rerank_zig import WordStatistics, layout

if TYPE_CHECKING:
    from rerank_zig import RerankLibrary, TermStore

THREADS = 8
OPERATIONS = 2500
CHUNKS = 1500
QUERY = "fox of node NN-HA-42 block"
WORDS = ["fox", "node", "the", "block", "NN-HA-42", "dataNode", "running", "of", "replica"]


def texts_of(seed: int) -> tuple[list[str], list[bytes]]:
    rng = random.Random(seed)
    ids = [f"{number:032x}:{number:016x}:0" for number in range(CHUNKS)]
    return ids, [" ".join(rng.choices(WORDS, k=rng.randint(1, 150))).encode() for _ in ids]


class Work:
    """What each thread does to the store, and the scores that it must get."""

    def __init__(self, library: RerankLibrary, store: TermStore, max_bytes: int) -> None:
        self.store = store
        self.max_bytes = max_bytes
        self.ids, self.texts = texts_of(1)
        # With statistics a candidate's score does not depend on the others.
        counts = library.count_words([b""] * CHUNKS, self.texts)
        hashes, frequencies = np.unique(counts.hashes, return_counts=True)
        self.statistics = WordStatistics(
            chunks=CHUNKS,
            text_words=int(counts.text_words.sum()),
            title_words=0,
            hashes=hashes,
            frequencies=frequencies.astype(np.uint32),
        )
        self.expected = library.score(
            QUERY, self.texts, np.zeros(CHUNKS, np.float32), statistics=self.statistics
        ).lexical_raw

    def run(self, seed: int) -> int:
        """Return how many candidates it found kept."""
        rng = random.Random(seed)
        found = 0
        for _ in range(OPERATIONS):
            picks = rng.sample(range(CHUNKS), 8)
            ids = [self.ids[pick] for pick in picks]
            match rng.randrange(6):
                case 0:
                    self.store.put(ids, [b""] * 8, [self.texts[pick] for pick in picks])
                case 1:
                    missing = self.store.missing(ids)
                    assert missing == sorted(set(missing) & set(range(8)))
                case 2:
                    usage = self.store.usage()
                    assert usage.bytes <= self.max_bytes
                    assert usage.chunks <= CHUNKS
                case _:
                    scores, lost = self.store.score(
                        QUERY, ids, np.zeros(8, np.float32), statistics=self.statistics
                    )
                    expected = np.where(lost, np.float32(0), self.expected[picks])
                    np.testing.assert_array_equal(scores.lexical_raw, expected)
                    found += int((~lost).sum())
        return found


def test_every_answer_is_right_under_eight_threads(library: RerankLibrary) -> None:
    max_bytes = 1 << 18  # a fraction of the chunks, so that all the time some make room
    with library.open_store(max_bytes) as store:
        work = Work(library, store, max_bytes)
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(work.run, range(THREADS)))
        usage = store.usage()
    assert all(count > OPERATIONS // 10 for count in found)
    assert usage.evictions > CHUNKS
    assert usage.hits >= sum(found)


def test_stores_close_under_their_users(library: RerankLibrary) -> None:
    """Whoever calls while the store goes gets an answer or is told so, and the memory is freed."""
    rounds = 150  # more than may be open at a time
    ids, texts = texts_of(2)
    for number in range(rounds):
        store = library.open_store(1 << 18)
        store.put(ids[:50], [b""] * 50, texts[:50])
        barrier = threading.Barrier(4)

        def use(store: TermStore = store, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(10)
            try:
                while True:
                    scores, lost = store.score("fox", ids[:60], np.zeros(60, np.float32))
                    assert lost.tolist() == [False] * 50 + [True] * 10
                    assert (scores.lexical_raw[:50] > 0).sum() > 10
                    store.put(ids[:20], [b""] * 20, texts[:20])
            except FailedPrecondition:
                return "closed"

        with ThreadPoolExecutor(3) as pool:
            users = [pool.submit(use) for _ in range(3)]
            barrier.wait(10)
            if number % 2:
                store.usage()
            store.close()
            assert [user.result(10) for user in users] == ["closed"] * 3


def test_random_handles_are_unknown_or_safe(library: RerankLibrary) -> None:
    raw = library._library
    rng = random.Random(9)
    with library.open_store(1 << 16) as store:
        store.put(["a"], [b""], [b"fox"])
        usage = layout.Usage()
        block = layout.Ids(b"a", 1, 1)
        missing = np.zeros(1, np.bool_)
        for _ in range(2000):
            place, generation = rng.choice([rng.randrange(70), 2**32 - 1]), rng.getrandbits(32)
            handle = rng.choice([generation << 32 | place, rng.getrandbits(64), place])
            assert raw.sluice_store_usage(handle, usage) == layout.Status.UNKNOWN_STORE
            assert raw.sluice_store_close(handle) == layout.Status.UNKNOWN_STORE
            assert (
                raw.sluice_store_missing(handle, block, missing.ctypes.data)
                == layout.Status.UNKNOWN_STORE
            )
        assert store.missing(["a"]) == []
