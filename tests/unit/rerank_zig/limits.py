"""Takes all mappings that the system gives a process, then uses the library; run by test_hammer.py.

Prints the statuses of closing, opening and scoring there: each is an answer, none ends the process.
"""

from __future__ import annotations

import ctypes
import json
import mmap

import numpy as np

from rerank_zig import layout
from rerank_zig.binding import DEFAULT_PATH

STORE_BYTES = 1 << 20
# More than any system's vm.max_map_count is by default.
MOST_MAPPINGS = 4_000_000
MAP_FAILED = 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1


def take_all_mappings() -> bool:
    """Whether the limit was met. Neighbours differ in their protection, else they were one."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    size, word, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    libc.mmap.argtypes = (word, size, number, number, number, ctypes.c_long)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    readable, writable = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
    for index in range(MOST_MAPPINGS):
        protection = readable if index % 2 else writable
        if libc.mmap(None, mmap.PAGESIZE, protection, flags, -1, 0) == MAP_FAILED:
            return True
    return False


def main() -> None:
    library = ctypes.CDLL(str(DEFAULT_PATH))
    layout.declare(library)
    handles = [ctypes.c_uint64() for _ in range(5)]
    opened = [library.sluice_store_open(STORE_BYTES, handle) for handle in handles]
    text = b"running foxes " * 10_000
    offsets = np.array([0, len(text)], np.uint32)
    leader = np.zeros(1, np.int32)
    texts = layout.Texts(text, len(text), offsets.ctypes.data, len(offsets))
    is_at_limit = take_all_mappings()
    # Stores lie side by side and are one mapping: without the third of them they would be two.
    statuses = {
        "opened": opened,
        "at_limit": is_at_limit,
        "close": [library.sluice_store_close(handle) for handle in handles[2:3]],
        "again": library.sluice_store_open(STORE_BYTES, handles[2]),
        "group": library.sluice_rerank_group_duplicates(texts, 0.5, leader.ctypes.data, 1),
    }
    print(json.dumps(statuses))  # noqa: T201 - the result, read by the test


if __name__ == "__main__":
    main()
