"""Wyhash, final version 4, in plain Python: what terms are compared by.

After the algorithm's public description (https://github.com/wangyi-fudan/wyhash). It must never
call the native library: what it computes is kept in published statistics, so it may never change.
"""

from __future__ import annotations

SECRET = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3
LOW = (1 << 64) - 1
SHORT, ROUND = 16, 48


def _multiply(left: int, right: int) -> tuple[int, int]:
    product = left * right
    return product & LOW, product >> 64


def _mix(left: int, right: int) -> int:
    low, high = _multiply(left, right)
    return low ^ high


def _read(data: bytes, start: int, count: int = 8) -> int:
    return int.from_bytes(data[start : start + count], "little")


def _ends(data: bytes) -> tuple[int, int]:
    """What is read of up to 16 bytes."""
    size = len(data)
    if size >= 4:
        quarter, end = size >> 3 << 2, size - 4
        return (
            _read(data, 0, 4) << 32 | _read(data, quarter, 4),
            _read(data, end, 4) << 32 | _read(data, end - quarter, 4),
        )
    return (data[0] << 16 | data[size >> 1] << 8 | data[-1] if data else 0), 0


def wyhash(data: bytes, seed: int) -> int:
    """64 bits."""
    state = seed ^ _mix(seed ^ SECRET[0], SECRET[1])
    size = len(data)
    if size <= SHORT:
        first, second = _ends(data)
    else:
        start = 0
        if size >= ROUND:
            states = [state] * 3
            while start + ROUND < size:
                for lane in range(3):
                    place = start + 16 * lane
                    states[lane] = _mix(
                        _read(data, place) ^ SECRET[lane + 1], _read(data, place + 8) ^ states[lane]
                    )
                start += ROUND
            state = states[0] ^ states[1] ^ states[2]
        while start + SHORT < size:
            state = _mix(_read(data, start) ^ SECRET[1], _read(data, start + 8) ^ state)
            start += SHORT
        first, second = _read(data, size - 16), _read(data, size - 8)
    low, high = _multiply(first ^ SECRET[1], second ^ state)
    return _mix(low ^ SECRET[0] ^ size, high ^ SECRET[1])


def term_hash(term: str, *, compound: bool) -> int:
    """32 bits, never 0."""
    return wyhash(term.encode(), int(compound)) & 0xFFFFFFFF or 1
