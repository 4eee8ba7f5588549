"""How long to wait before a repeat: exponentially longer, with full jitter, within bounds.

The formula is "full jitter" of Brooker, "Exponential Backoff and Jitter" (2015): uniform between
nothing and ``first · 2^n``, capped. A delay that the server asks for is a lower bound.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from common.errors import Contended, DeadlineExceeded, Overloaded, SluiceError, Unavailable

if TYPE_CHECKING:
    from ingestor.settings import StreamSettings

# What may be gone at the next attempt. Everything else is the same however often it is tried.
PASSING = (Unavailable, Overloaded, Contended, DeadlineExceeded)

# A server that is away may fail any number of times while others do its work.
_MOST_DOUBLINGS = 32


def is_passing(error: SluiceError) -> bool:
    """Whether a repeat may succeed."""
    return isinstance(error, PASSING)


def delay_s(settings: StreamSettings, failures: int, error: SluiceError) -> float:
    """Seconds to wait after so many failures in a row (at least 1)."""
    doublings = min(failures - 1, _MOST_DOUBLINGS)
    bound = min(settings.max_delay_s, settings.first_delay_s * 2**doublings)
    asked = (error.retry_after_ms or 0) / 1000
    return min(settings.max_delay_s, asked) + random.uniform(0, bound)  # noqa: S311 — no secret
