"""How much may be unacknowledged at one indexer, by how fast it acknowledges.

What is under way should last for the target time: enough that the indexer never waits for more, and
no more than that, since it is memory here and there, and what a broken connection costs. So the
bound is the rate times the target, a product of bandwidth and delay. The rate is sampled as BBR
does it (Cardwell et al., "BBR: Congestion-based congestion control", 2017): one batch at
a time is followed from its sending to its last acknowledgement, and what was acknowledged
meanwhile is divided by that time. In that time the indexer had work, so its pauses do not count.
The bound at most doubles or halves a round; it grows only if it kept something back, and
shrinks only if a batch took longer than the target: a slow source says nothing of the indexer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_BYTES = 2**16
LEAST_BYTES = 2**12
# Two batches always: one is in work while the next is on its way.
_LEAST_FLIGHTS = 2
# The bound in batches, so that one is written while others are embedded, chunked and received.
_BATCHES = 4


@dataclass(slots=True)
class Flight:
    """A batch under way; ``documents`` are those not yet acknowledged."""

    documents: int
    sent_at_s: float
    acknowledged_before: int


class Window:
    """The bytes under way to one indexer and their bound.

    Args:
        most_bytes: the bound never exceeds it.
        target_s: how long what is under way should last.
        clock: seconds that never go back.
    """

    def __init__(
        self, most_bytes: int, target_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_bytes = most_bytes
        self._target_s = target_s
        self._clock = clock
        self._flights = 0
        self._acknowledged = 0
        self._probe: Flight | None = None
        self._kept_back = False
        self.bound_bytes = min(FIRST_BYTES, most_bytes)
        self.under_way_bytes = 0

    @property
    def batch_bytes(self) -> int:
        """The size of a batch that leaves room for others under way."""
        return max(1, self.bound_bytes // _BATCHES)

    def takes(self, size: int) -> bool:
        """Whether a batch of this size may be sent now; two may, whatever their size."""
        fits = self.under_way_bytes + size <= self.bound_bytes or self._flights < _LEAST_FLIGHTS
        self._kept_back = self._kept_back or not fits
        return fits

    def send(self, documents: int, size: int) -> Flight:
        """Note that a batch is sent."""
        flight = Flight(documents, self._clock(), self._acknowledged)
        self._flights += 1
        self.under_way_bytes += size
        if self._probe is None:
            self._probe = flight
            self._kept_back = False
        return flight

    def acknowledge(self, flight: Flight, size: int) -> None:
        """Note that a document of a batch was acknowledged."""
        self.under_way_bytes -= size
        self._acknowledged += size
        flight.documents -= 1
        if flight.documents:
            return
        self._flights -= 1
        if flight is self._probe:
            self._probe = None
            self._adapt(flight)

    def _adapt(self, flight: Flight) -> None:
        took_s = max(self._clock() - flight.sent_at_s, 1e-6)
        wanted = round((self._acknowledged - flight.acknowledged_before) / took_s * self._target_s)
        bound = self.bound_bytes
        if wanted > bound and self._kept_back:
            bound = min(wanted, 2 * bound)
        elif wanted < bound and took_s > self._target_s:
            bound = max(wanted, bound // 2)
        self.bound_bytes = min(max(bound, LEAST_BYTES), self._most_bytes)
