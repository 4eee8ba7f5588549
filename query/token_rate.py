"""How long a model takes, foreseen from how long it took.

It must never lock itself out: an estimate that lets nothing run is never corrected by a run.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

WEIGHT: Final = 0.2  # of the newest measurement: the last ten make nine tenths
OUTLIER: Final = 4.0  # times the estimate: a measurement counts no more than that
RELIEF: Final = 0.9  # what a refusal leaves of the estimate


class TokenRate:
    """Seconds a token takes: an exponentially weighted mean. Safe for threads.

    A process that was suspended for a second measures that second as a slow run, so a measurement
    is cut to a few times the estimate. And the estimate falls each time that it keeps a call from
    running anything, down to the fastest run so far, until a run corrects it.

    Args:
        seconds: that a run took.
        tokens: of that run.
    """

    def __init__(self, seconds: float, tokens: int) -> None:
        self._per_token_s = self._fastest_s = seconds / tokens
        self._lock = Lock()

    def expected_s(self, tokens: int) -> float:
        """Seconds that a run of so many tokens will take."""
        return self._per_token_s * tokens

    def measured(self, seconds: float, tokens: int) -> None:
        """Learn from a run."""
        with self._lock:
            found = min(seconds / tokens, OUTLIER * self._per_token_s)
            self._fastest_s = min(self._fastest_s, found)
            self._per_token_s += WEIGHT * (found - self._per_token_s)

    def refused(self) -> None:
        """Learn that nothing was run for want of time."""
        with self._lock:
            self._per_token_s = max(self._fastest_s, RELIEF * self._per_token_s)
