"""Calls the raw C ABI with random arguments; run by test_hammer.py in a process of its own.

Every pointer it passes is null or points into memory at least as long as its length says, unless
the length is over the documented limit, which the library must refuse before it reads. Everything
else is random: contents, offsets, floats, flags, alignment. Prints how many calls had which status.
"""

from __future__ import annotations

import ctypes
import json
import random
import struct
import sys
from collections import Counter
from ctypes import byref, c_double, c_uint64, c_void_p

from rerank_zig import layout
from rerank_zig.binding import DEFAULT_PATH
from tests.unit.rerank_zig import reference

ROOM = 4096
HUGE = (1 << 31) + 1, 1 << 32, 1 << 63, 2**64 - 1
FLOATS = (0.0, -0.0, 0.5, 1.0, 1.2, -1.0, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))
OPEN: list[int] = []
CALLS = (
    "score",
    "score",
    "analyze",
    "highlight",
    "count_words",
    "group_duplicates",
    "store",
    "store",
)


class Hammer:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kept: list[ctypes.Array[ctypes.c_char]] = []

    def content(self) -> bytes:
        rng = self.rng
        if rng.random() < 0.4:
            return rng.randbytes(ROOM)
        words = [
            "running ", "fox", "É\u0301 ", "語 ", "x" * 70, "\ud7ff", "skies ", "NN-HA-42", ".",
            "-", "dataNode", "\u0301", "_",
        ]  # fmt: skip
        return "".join(rng.choices(words, k=300)).encode().ljust(ROOM)[:ROOM]

    def offsets(self) -> bytes:
        values = sorted(self.rng.randrange(64) for _ in range(ROOM // 4))
        if self.rng.random() < 0.2:
            values[self.rng.randrange(8)] = self.rng.randrange(2**32)
        return struct.pack(f"<{len(values)}I", *values)

    def floats(self) -> bytes:
        if self.rng.random() < 0.3:
            return self.rng.randbytes(ROOM)
        values = [self.rng.uniform(-1, 1) for _ in range(ROOM // 4)]
        values[0] = self.rng.choice([*values[:20], float("nan"), float("inf")])
        return struct.pack(f"<{len(values)}f", *values)

    def room(self, content: bytes) -> int | None:
        """The address of memory that holds the content, perhaps misaligned, perhaps null."""
        if self.rng.random() < 0.02:
            return None
        shift = self.rng.choice([0, 0, 1, 3])
        buffer = ctypes.create_string_buffer(b"\0" * shift + content, len(content) + shift)
        self.kept.append(buffer)
        return ctypes.addressof(buffer) + shift

    def count(self, limit: int) -> int:
        return self.rng.choice([0, 1, self.rng.randint(0, limit)])

    def huge_or(self, count: int) -> int:
        return self.rng.choice(HUGE) if self.rng.random() < 0.02 else count

    def number(self) -> float:
        return self.rng.choice(FLOATS) if self.rng.random() < 0.1 else self.rng.random()

    def texts(self, count: int) -> ctypes.Array[c_uint64]:
        return (c_uint64 * 4)(
            self.room(self.content()) or 0,
            self.huge_or(self.count(ROOM)),
            self.room(self.offsets()) or 0,
            self.huge_or(count + 1 if self.rng.random() < 0.95 else self.count(60)),
        )

    def text(self) -> ctypes.Array[c_uint64]:
        # As plain words: a c_char_p field would not take an address.
        return (c_uint64 * 2)(self.room(self.content()) or 0, self.huge_or(self.count(ROOM)))

    def score(self, library: ctypes.CDLL) -> int:
        rng = self.rng
        count = self.count(60)
        titles = self.texts(count) if rng.random() < 0.7 else [0] * 4
        candidates = (c_uint64 * 10)(
            *self.texts(count), *titles, self.room(self.floats()) or 0, self.huge_or(count)
        )
        statistics = self.statistics()
        return int(
            library.sluice_rerank_score(
                self.text(), candidates, byref(self.options()), statistics and byref(statistics),
                byref(self.columns(count)),
            )
        )  # fmt: skip

    def options(self) -> layout.Options:
        rng = self.rng
        return layout.Options(
            *(self.number() for _ in range(5)), rng.choice([0, 1, 1, 0, 7]), rng.randrange(3)
        )

    def statistics(self) -> layout.Statistics | None:
        if self.rng.random() < 0.7:
            return None
        counts = [0, 1, 2**64 - 1, self.rng.getrandbits(64)]
        return layout.Statistics(
            *self.rng.choices(counts, k=3),
            self.room(self.hashes()),
            self.room(self.rng.randbytes(ROOM)),
            self.huge_or(self.count(ROOM // 4)),
        )

    def columns(self, count: int) -> layout.Columns:
        rooms = [self.room(bytes(ROOM)) for _ in range(6)]
        return layout.Columns(*rooms, self.rng.choice([ROOM // 4, ROOM // 4, count, 0]))

    def analyze(self, library: ctypes.CDLL) -> int:
        terms = layout.PackedTerms(
            self.room(bytes(ROOM)), self.count(ROOM), self.room(bytes(ROOM)), self.count(ROOM // 4)
        )
        return int(library.sluice_rerank_analyze(self.text(), byref(terms)))

    def hashes(self) -> bytes:
        """Those of words above, sorted most of the time, or noise."""
        if self.rng.random() < 0.5:
            return self.rng.randbytes(ROOM)
        values = sorted([*map(reference.hash_of, ("run", "fox", "sky")), *range(ROOM // 4 - 3)])
        if self.rng.random() < 0.3:
            self.rng.shuffle(values)
        return struct.pack(f"<{len(values)}I", *values)

    def count_words(self, library: ctypes.CDLL) -> int:
        count = self.count(60)
        counts = (c_uint64 * 7)(
            self.room(bytes(ROOM)) or 0,
            self.count(ROOM // 4),
            *(self.room(bytes(ROOM)) or 0 for _ in range(3)),
            self.rng.choice([ROOM // 4 - 1, count, 0]),
            0,
        )
        titles = self.texts(count) if self.rng.random() < 0.7 else None
        texts = self.texts(count)
        # Without a limit of its own, a huge count of offsets would be believed.
        texts[3] = min(texts[3], 61) if self.rng.random() < 0.9 else (1 << 20) + 2
        return int(library.sluice_rerank_count_words(titles, texts, counts))

    def group_duplicates(self, library: ctypes.CDLL) -> int:
        count = self.count(60)
        texts = self.texts(count)
        texts[3] = min(texts[3], 61) if self.rng.random() < 0.9 else (1 << 12) + 2
        resemblance = c_double(self.number())
        leaders = c_void_p(self.room(bytes(ROOM)))
        capacity = c_uint64(self.rng.choice([ROOM // 4, count, 0]))
        return int(library.sluice_rerank_group_duplicates(texts, resemblance, leaders, capacity))

    def ids(self, count: int) -> layout.Ids:
        names = [f"{self.rng.randrange(99)}:0" for _ in range(count)]
        content = "\n".join(names).encode()
        if self.rng.random() < 0.1:
            content = self.content()
        self.kept.append(ctypes.create_string_buffer(content, len(content)))
        return layout.Ids(
            content, len(content), count if self.rng.random() < 0.95 else self.count(60)
        )

    def store(self, library: ctypes.CDLL) -> int:
        """One call on one of the stores that calls before opened, or on none."""
        rng = self.rng
        if rng.random() < 0.2:
            handle = c_uint64()
            max_bytes = c_uint64(rng.choice([0, 1 << 16, 1 << 20]))
            status = library.sluice_store_open(max_bytes, byref(handle))
            if status == layout.Status.OK:
                OPEN.append(handle.value)
            return int(status)
        store = c_uint64(rng.choice([*OPEN[-70:], rng.getrandbits(64)]))
        count = rng.randint(0, 60)
        ids, missing = byref(self.ids(count)), c_void_p(self.room(bytes(ROOM)))
        match rng.randrange(20):
            case 0:
                return int(library.sluice_store_close(store))
            case 1:
                return int(library.sluice_store_usage(store, byref(layout.Usage())))
            case 2 | 3:
                return int(library.sluice_store_missing(store, ids, missing))
            case kind if kind % 2:
                titles = self.texts(count) if rng.random() < 0.7 else None
                return int(library.sluice_store_put(store, ids, titles, self.texts(count)))
            case _:
                statistics = self.statistics()
                return int(
                    library.sluice_store_score(
                        store, self.text(), ids, c_void_p(self.room(self.floats())),
                        byref(self.options()), statistics and byref(statistics),
                        byref(self.columns(count)), missing,
                    )
                )  # fmt: skip

    def highlight(self, library: ctypes.CDLL) -> int:
        spans = layout.Spans(self.room(bytes(ROOM)), self.count(ROOM // 8), 0)
        return int(library.sluice_rerank_highlight(self.text(), self.text(), byref(spans)))


def main(seed: int, rounds: int) -> None:
    library = ctypes.CDLL(str(DEFAULT_PATH))
    statuses: Counter[str] = Counter()
    for index in range(rounds):
        hammer = Hammer(seed * rounds + index)
        call = hammer.rng.choice([*map(hammer.__getattribute__, CALLS)])
        statuses[layout.Status(call(library)).name] += 1
    print(json.dumps(statuses))  # noqa: T201 - the result, read by the test


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
