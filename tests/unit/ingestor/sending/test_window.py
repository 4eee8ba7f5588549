"""The window of an indexer, driven by a simulated one with a clock of its own."""

from __future__ import annotations

from collections import deque

import pytest

from ingestor.sending.window import FIRST_BYTES, LEAST_BYTES, Flight, Window

MOST = 64 * 2**20
TARGET_S = 2.0


class Simulated:
    """An indexer that takes ``rate`` bytes a second one after the other, and its sender."""

    def __init__(self, rate: float, *, most: int = MOST, round_trip_s: float = 0.001) -> None:
        self.now = 0.0
        self.rate = rate
        self.round_trip_s = round_trip_s
        self.window = Window(most, TARGET_S, lambda: self.now)
        self.flights: deque[tuple[Flight, int, float]] = deque()
        self.free_at = 0.0
        self.idle_s = 0.0

    def fill(self, size: int | None = None, most: int = 10**9) -> int:
        """Send batches until the window takes no more, or ``most`` of them."""
        sent = 0
        while sent < most and self.window.takes(size or self.window.batch_bytes):
            self._send(size or self.window.batch_bytes)
            sent += 1
        return sent

    def finish_one(self) -> None:
        """Let the first batch under way be acknowledged."""
        flight, size, done_at = self.flights.popleft()
        self.now = max(self.now, done_at)
        self.window.acknowledge(flight, size)

    def work(self, seconds: float, size: int | None = None) -> None:
        """A source that always has more."""
        until = self.now + seconds
        while self.now < until:
            self.fill(size)
            self.finish_one()

    def _send(self, size: int) -> None:
        flight = self.window.send(1, size)
        begins = max(self.now, self.free_at)
        self.idle_s += max(0.0, self.now - self.free_at)
        self.free_at = begins + size / self.rate
        self.flights.append((flight, size, self.free_at + self.round_trip_s))


@pytest.mark.parametrize("rate", [20_000, 200_000, 2_000_000, 20_000_000])
def test_what_is_under_way_lasts_for_the_target_time(rate):
    indexer = Simulated(rate)
    indexer.work(30)
    assert indexer.window.bound_bytes == pytest.approx(rate * TARGET_S, rel=0.15)
    assert indexer.window.under_way_bytes <= indexer.window.bound_bytes


@pytest.mark.parametrize("rate", [20_000, 2_000_000])
def test_the_indexer_is_always_busy(rate):
    indexer = Simulated(rate, round_trip_s=0.05)
    indexer.work(5)
    idle_s = indexer.idle_s
    indexer.work(30)
    assert indexer.idle_s - idle_s < 0.01 * 30


def test_an_indexer_that_becomes_slow_gets_less_and_a_fast_one_more():
    indexer = Simulated(1_000_000)
    indexer.work(10)
    large = indexer.window.bound_bytes
    indexer.rate = 50_000
    indexer.work(120)
    small = indexer.window.bound_bytes
    assert small == pytest.approx(50_000 * TARGET_S, rel=0.15)
    indexer.rate = 1_000_000
    indexer.work(10)
    assert indexer.window.bound_bytes == pytest.approx(large, rel=0.15)


def test_the_hard_bounds_hold():
    fast = Simulated(1e9, most=100_000)
    fast.work(1)
    assert fast.window.bound_bytes == 100_000
    slow = Simulated(10)
    slow.work(3600 * 24)
    assert slow.window.bound_bytes == LEAST_BYTES


def test_two_batches_may_be_under_way_whatever_their_size():
    indexer = Simulated(1_000_000)
    assert indexer.fill(50 * FIRST_BYTES) == 2
    indexer.finish_one()
    assert indexer.fill(50 * FIRST_BYTES) == 1


def test_a_slow_source_changes_nothing():
    indexer = Simulated(1_000_000)
    indexer.work(10)
    bound = indexer.window.bound_bytes
    for _ in range(1000):
        indexer.now += 0.5
        indexer.fill(10_000, most=1)
        indexer.finish_one()
    assert indexer.window.bound_bytes == bound


def test_a_round_at_most_doubles_or_halves():
    indexer = Simulated(1e9)
    indexer.fill()
    indexer.finish_one()
    assert indexer.window.bound_bytes == 2 * FIRST_BYTES
    indexer.work(1)
    bound = indexer.window.bound_bytes
    while indexer.flights:
        indexer.finish_one()
    indexer.rate = 1
    indexer.fill(most=1)
    indexer.finish_one()
    assert indexer.window.bound_bytes == bound // 2
