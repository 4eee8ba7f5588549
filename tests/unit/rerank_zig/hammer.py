"""Calls the raw C ABI with random arguments; run by test_hammer.py in a process of its own.

Every pointer it passes is null or points at memory at least as long as its length says, unless the
length is over the documented limit, which the library must refuse before it reads. Everything else
is random: contents, offsets, floats, flags, handles, and the alignment of arrays and structs. All
memory is taken and filled once, so that calls take most of the time. Prints how many calls of each
function had which status.
"""

from __future__ import annotations

import ctypes
import json
import random
import struct
import sys
from collections import Counter, defaultdict

from rerank_zig.binding import DEFAULT_PATH
from rerank_zig.layout import MAX_CANDIDATES, MAX_TEXT_BYTES, Status

ROOM = 2048
ROOMS = 64
ITEMS = 60
MAX_STORES = 64
SLACK = 8
HUGE = (MAX_TEXT_BYTES + 1, 1 << 32, 1 << 63, 2**64 - 1)
FLOATS = (0.0, -0.0, 0.5, 1.0, 1.2, -1.0, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))
STORE_BYTES = (0, 1, 255, 256, 4096, 20_000, 1 << 16, 2**64 - 1)
ADDRESS, NUMBER = ctypes.c_void_p, ctypes.c_uint64
FUNCTIONS = {
    "sluice_rerank_analyze": (ADDRESS, ADDRESS),
    "sluice_rerank_highlight": (ADDRESS, ADDRESS, ADDRESS),
    "sluice_rerank_score": (ADDRESS,) * 5,
    "sluice_rerank_count_words": (ADDRESS, ADDRESS, ADDRESS),
    "sluice_rerank_group_duplicates": (ADDRESS, ctypes.c_double, ADDRESS, NUMBER),
    "sluice_store_open": (NUMBER, ADDRESS),
    "sluice_store_close": (NUMBER,),
    "sluice_store_missing": (NUMBER, ADDRESS, ADDRESS),
    "sluice_store_put": (NUMBER, ADDRESS, ADDRESS, ADDRESS),
    "sluice_store_score": (NUMBER, *(ADDRESS,) * 7),
    "sluice_store_usage": (NUMBER, ADDRESS),
}


class Rooms:
    """Memory of many rooms, filled once."""

    def __init__(self, contents: list[bytes], size: int = ROOM) -> None:
        self.stride = size + SLACK
        self.buffer = ctypes.create_string_buffer(self.stride * len(contents))
        self.base = ctypes.addressof(self.buffer)
        self.count = len(contents)
        for index, content in enumerate(contents):
            ctypes.memmove(self.base + index * self.stride, content, min(len(content), size))

    def address(self, index: int) -> int:
        return self.base + index % self.count * self.stride


class Hammer:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.library = ctypes.CDLL(str(DEFAULT_PATH))
        for name, arguments in FUNCTIONS.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = arguments, ctypes.c_uint32
        self.texts = Rooms([self.make_text() for _ in range(ROOMS)])
        self.offsets = Rooms([self.make_offsets() for _ in range(ROOMS)])
        self.floats = Rooms([self.make_floats() for _ in range(ROOMS)])
        self.hashes = Rooms([self.rng.randbytes(ROOM) for _ in range(ROOMS)])
        self.id_rooms = Rooms([self.make_ids(index) for index in range(ROOMS)])
        # A call writes to, and reads structs from, rooms that no other of its arguments uses.
        self.outputs = Rooms([b""] * ROOMS, size=4 * ROOM)
        self.structs = Rooms([b""] * ROOMS, size=256)
        self.next_output = self.next_struct = 0
        self.handles: list[int] = [0]

    def make_text(self) -> bytes:
        rng = self.rng
        if rng.random() < 0.4:
            return rng.randbytes(ROOM)
        words = ["running ", "fox ", "É\u0301 ", "語 ", "x" * 70, "NN-HA-42 ", "aB.c_1 ", "\n"]
        return "".join(rng.choices(words, k=ROOM // 4)).encode()

    def make_offsets(self) -> bytes:
        values = sorted(self.rng.randrange(256) for _ in range(ROOM // 4))
        if self.rng.random() < 0.3:
            values[self.rng.randrange(8)] = self.rng.randrange(2**32)
        return struct.pack(f"<{len(values)}I", *values)

    def make_floats(self) -> bytes:
        if self.rng.random() < 0.3:
            return self.rng.randbytes(ROOM)
        return struct.pack(f"<{ROOM // 4}f", *(self.rng.uniform(-1, 1) for _ in range(ROOM // 4)))

    def make_ids(self, index: int) -> bytes:
        """Ids of three bytes each and a newline after each, so that any number is a prefix."""
        return b"".join(b"%03d\n" % ((index + k) % 300) for k in range(ROOM // 4))

    def pick(self, rooms: Rooms) -> int:
        """The address of a room, perhaps off its alignment, seldom null."""
        choice = self.rng.getrandbits(16)
        if choice & 63 == 63:
            return 0
        return rooms.address(choice >> 8) + (choice >> 6 & 3 if choice & 32 else 0)

    def output(self) -> int:
        self.next_output += 1
        choice = self.rng.getrandbits(8)
        if choice & 63 == 63:
            return 0
        return self.outputs.address(self.next_output) + (choice >> 6)

    def place(self, layout: str, *values: float) -> int:
        """The address of a struct of these fields; seldom null."""
        self.next_struct += 1
        choice = self.rng.getrandbits(8)
        if choice == 255:
            return 0
        address = self.structs.address(self.next_struct) + (choice & 7 if choice & 8 else 0)
        packed = struct.pack("<" + layout, *values)
        ctypes.memmove(address, packed, len(packed))
        return address

    def count(self, limit: int) -> int:
        choice = self.rng.getrandbits(3)
        return choice if choice < 2 else self.rng.randrange(limit + 1)

    def huge_or(self, count: int) -> int:
        return self.rng.choice(HUGE) if self.rng.getrandbits(6) == 0 else count

    def number(self) -> float:
        return self.rng.choice(FLOATS) if self.rng.getrandbits(4) == 0 else self.rng.random()

    def text(self) -> int:
        return self.place("QQ", self.pick(self.texts), self.huge_or(self.count(ROOM - SLACK)))

    def block(self, count: int) -> tuple[int, int, int, int]:
        """The fields of sluice_texts."""
        offset_count = count + 1 if self.rng.getrandbits(4) else self.count(ITEMS)
        return (
            self.pick(self.texts),
            self.huge_or(self.rng.choice((256, self.count(ROOM - SLACK)))),
            self.pick(self.offsets),
            self.huge_or(offset_count),
        )

    def titles(self, count: int) -> tuple[int, int, int, int]:
        return self.block(count) if self.rng.getrandbits(1) else (0, 0, 0, 0)

    def options(self) -> int:
        rng = self.rng
        flags = rng.choice((0, 1, 1, 0, 7)), rng.getrandbits(1)
        return self.place("5d2I", *(self.number() for _ in range(5)), *flags)

    def statistics(self) -> int:
        rng = self.rng
        if rng.getrandbits(1):
            return 0
        # Any number up to 2**32 - 1 is one of hashes that are there.
        count = rng.choice(HUGE[1:]) if rng.getrandbits(4) == 0 else self.count(ITEMS)
        documents = rng.choice((0, 1, 2**64 - 1, rng.getrandbits(64)))
        words = rng.getrandbits(64), rng.getrandbits(64)
        pointers = self.pick(self.hashes), self.pick(self.hashes)
        return self.place("6Q", documents, *words, *pointers, count)

    def scores(self, count: int) -> int:
        columns = (self.output() for _ in range(6))
        return self.place("7QdQ", *columns, self.rng.choice((ROOM, ROOM, count, 0)), 0.0, 0)

    def ids(self, count: int) -> int:
        rng = self.rng
        given = self.huge_or(count) if rng.getrandbits(4) else self.count(ITEMS)
        if given < MAX_CANDIDATES:
            given = min(given, count)  # as many as there are similarities
        byte_count = max(4 * count - 1, 0) if rng.getrandbits(4) else self.count(ROOM - SLACK)
        rooms = self.id_rooms if rng.getrandbits(4) else self.texts
        return self.place("3Q", rooms.address(rng.getrandbits(8)), byte_count, given)

    def handle(self) -> int:
        if self.rng.getrandbits(5) == 0:
            return self.rng.getrandbits(64)
        # Most of them are closed.
        return self.rng.choice(self.handles[-2 * MAX_STORES :])

    def analyze(self) -> int:
        capacities = self.count(ROOM), self.count(ROOM // 4)
        pointers = self.output(), self.output()
        terms = self.place("6Q", pointers[0], capacities[0], pointers[1], capacities[1], 0, 0)
        return int(self.library.sluice_rerank_analyze(self.text(), terms))

    def highlight(self) -> int:
        count = self.count(ITEMS)
        texts = self.place("4Q", *self.block(count))
        pointers = self.output(), self.output()
        text_capacity = self.rng.choice((2 * ITEMS, 2 * ITEMS, count))
        capacity = self.rng.choice((ROOM // 2, self.count(ROOM // 2)))
        spans = self.place("5Q", pointers[0], capacity, pointers[1], text_capacity, 0)
        return int(self.library.sluice_rerank_highlight(self.text(), texts, spans))

    def score(self) -> int:
        count = self.count(ITEMS)
        candidates = self.place(
            "10Q",
            *self.block(count),
            *self.titles(count),
            self.pick(self.floats),
            self.huge_or(count),
        )
        given = self.text(), candidates, self.options(), self.statistics(), self.scores(count)
        return int(self.library.sluice_rerank_score(*given))

    def count_words(self) -> int:
        count = self.count(ITEMS)
        titles = self.place("4Q", *self.titles(count))
        texts = self.place("4Q", *self.block(count))
        pointers = [self.output() for _ in range(4)]
        text_capacity = self.rng.choice((2 * ITEMS, 2 * ITEMS, count))
        counts = self.place("7Q", pointers[0], self.count(ROOM), *pointers[1:], text_capacity, 0)
        return int(self.library.sluice_rerank_count_words(titles, texts, counts))

    def group_duplicates(self) -> int:
        count = self.count(ITEMS)
        texts = self.place("4Q", *self.block(count))
        capacity = self.rng.choice((ROOM, count, 0))
        resemblance = self.number()
        return int(
            self.library.sluice_rerank_group_duplicates(texts, resemblance, self.output(), capacity)
        )

    def open_store(self) -> int:
        handle = ctypes.c_uint64()
        output = None if self.rng.getrandbits(5) == 0 else ctypes.addressof(handle)
        status = int(self.library.sluice_store_open(self.rng.choice(STORE_BYTES), output))
        if status == Status.OK:
            self.handles.append(handle.value)
        return status

    def close_store(self) -> int:
        return int(self.library.sluice_store_close(self.handle()))

    def missing(self) -> int:
        ids = self.ids(self.count(ITEMS))
        return int(self.library.sluice_store_missing(self.handle(), ids, self.output()))

    def put(self) -> int:
        count = self.count(ITEMS)
        titles = self.place("4Q", *self.titles(count))
        texts = self.place("4Q", *self.block(count))
        return int(self.library.sluice_store_put(self.handle(), self.ids(count), titles, texts))

    def score_kept(self) -> int:
        count = self.count(ITEMS)
        return int(
            self.library.sluice_store_score(
                self.handle(),
                self.text(),
                self.ids(count),
                self.pick(self.floats),
                self.options(),
                self.statistics(),
                self.scores(count),
                self.output(),
            )
        )

    def usage(self) -> int:
        return int(self.library.sluice_store_usage(self.handle(), self.output()))


def main(seed: int, rounds: int) -> None:
    hammer = Hammer(seed)
    calls = [
        *(hammer.analyze, hammer.highlight, hammer.count_words, hammer.group_duplicates),
        *(hammer.score, hammer.score, hammer.put, hammer.put, hammer.missing, hammer.score_kept),
        *(hammer.score_kept, hammer.usage, hammer.open_store, hammer.close_store),
    ]
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for _ in range(rounds):
        call = hammer.rng.choice(calls)
        statuses[call.__name__][Status(call()).name] += 1
    for handle in hammer.handles:
        hammer.library.sluice_store_close(handle)
    last = [hammer.library.sluice_store_open(0, hammer.outputs.base) for _ in range(MAX_STORES)]
    statuses["open_store_at_the_end"].update(Status(status).name for status in last)
    print(json.dumps(statuses))  # noqa: T201 - the result, read by the test


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
