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

from rerank_zig import layout
from rerank_zig.binding import DEFAULT_PATH

ROOM = 4096
HUGE = (1 << 31) + 1, 1 << 32, 1 << 63, 2**64 - 1
FLOATS = (0.0, -0.0, 0.5, 1.0, 1.2, -1.0, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))


class Hammer:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kept: list[ctypes.Array[ctypes.c_char]] = []

    def content(self) -> bytes:
        rng = self.rng
        if rng.random() < 0.4:
            return rng.randbytes(ROOM)
        words = ["running ", "fox ", "É\u0301 ", "語 ", "x" * 70, "\ud7ff", "skies "]
        return "".join(rng.choices(words, k=300)).encode().ljust(ROOM)[:ROOM]

    def offsets(self) -> bytes:
        values = sorted(self.rng.randrange(64) for _ in range(ROOM // 4))
        if self.rng.random() < 0.2:
            values[self.rng.randrange(8)] = self.rng.randrange(2**32)
        return struct.pack(f"<{len(values)}I", *values)

    def floats(self) -> bytes:
        if self.rng.random() < 0.3:
            return self.rng.randbytes(ROOM)
        return struct.pack(f"<{ROOM // 4}f", *(self.rng.uniform(-1, 1) for _ in range(ROOM // 4)))

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

    def text(self) -> ctypes.Array[ctypes.c_uint64]:
        # As plain words: a c_char_p field would not take an address.
        return (ctypes.c_uint64 * 2)(self.room(self.content()) or 0, self.huge_or(self.count(ROOM)))

    def score(self, library: ctypes.CDLL) -> int:
        rng = self.rng
        count = self.count(60)
        candidates = (ctypes.c_uint64 * 6)(
            self.room(self.content()) or 0,
            self.huge_or(self.count(ROOM)),
            self.room(self.offsets()) or 0,
            self.huge_or(count + 1 if rng.random() < 0.95 else self.count(60)),
            self.room(self.floats()) or 0,
            self.huge_or(count),
        )
        options = layout.Options(
            self.number(), self.number(), self.number(), rng.choice([0, 1, 1, 0, 7]), 0
        )
        statistics = layout.Statistics(
            rng.choice([0, 1, 2**64 - 1, rng.getrandbits(64)]),
            self.number(),
            self.room(rng.randbytes(ROOM)),
            self.huge_or(self.count(60)),
        )
        columns = layout.Columns(
            *(self.room(bytes(ROOM)) for _ in range(4)), rng.choice([ROOM // 4, count, 0])
        )
        use_statistics = rng.random() < 0.3
        return int(
            library.sluice_rerank_score(
                self.text(), candidates, ctypes.byref(options),
                ctypes.byref(statistics) if use_statistics else None, ctypes.byref(columns),
            )
        )  # fmt: skip

    def analyze(self, library: ctypes.CDLL) -> int:
        terms = layout.PackedTerms(
            self.room(bytes(ROOM)), self.count(ROOM), self.room(bytes(ROOM)), self.count(ROOM // 4)
        )
        return int(library.sluice_rerank_analyze(self.text(), ctypes.byref(terms)))

    def highlight(self, library: ctypes.CDLL) -> int:
        spans = layout.Spans(self.room(bytes(ROOM)), self.count(ROOM // 8), 0)
        return int(library.sluice_rerank_highlight(self.text(), self.text(), ctypes.byref(spans)))


def main(seed: int, rounds: int) -> None:
    library = ctypes.CDLL(str(DEFAULT_PATH))
    statuses: Counter[str] = Counter()
    for index in range(rounds):
        hammer = Hammer(seed * rounds + index)
        call = hammer.rng.choice([hammer.score, hammer.score, hammer.analyze, hammer.highlight])
        statuses[layout.Status(call(library)).name] += 1
    print(json.dumps(statuses))  # noqa: T201 - the result, read by the test


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
