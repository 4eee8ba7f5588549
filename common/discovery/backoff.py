"""How long to wait before a repeat: exponentially longer, with full jitter, within bounds.

The formula is "full jitter" of Brooker, "Exponential Backoff and Jitter" (2015): uniform between
nothing and ``first · 2^n``, capped. A delay that the server asks for is a lower bound.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from common.errors import Contended, DeadlineExceeded, Overloaded, SluiceError, Unavailable

# What may be gone at the next attempt. Everything else is the same however often it is tried.
PASSING = (Unavailable, Overloaded, Contended, DeadlineExceeded)

# A server that is away may fail any number of times while others do its work.
_MOST_DOUBLINGS = 32


class Backoff(Protocol):
    """Bounds on repeats: rounds over all servers, and the pauses between them in seconds."""

    @property
    def max_attempts(self) -> int:
        """Rounds, the first one included; in each every server has one turn."""

    @property
    def first_delay_s(self) -> float:
        """Greatest pause after the first round."""

    @property
    def max_delay_s(self) -> float:
        """Greatest pause after any."""


@dataclass(frozen=True, slots=True)
class Retry:
    """See Backoff; for a caller that waits for its answer."""

    max_attempts: int = 4
    first_delay_s: float = 0.1
    max_delay_s: float = 2.0


def is_passing(error: SluiceError) -> bool:
    """Whether a repeat may succeed."""
    return isinstance(error, PASSING)


def delay_s(backoff: Backoff, failures: int, error: SluiceError) -> float:
    """Seconds to wait after so many failures in a row (at least 1)."""
    doublings = min(failures - 1, _MOST_DOUBLINGS)
    bound = min(backoff.max_delay_s, backoff.first_delay_s * 2**doublings)
    asked = (error.retry_after_ms or 0) / 1000
    return min(backoff.max_delay_s, asked) + random.uniform(0, bound)  # noqa: S311 — no secret
