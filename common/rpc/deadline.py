"""How long a request may still take, passed from stage to stage.

A deadline is a point on the monotonic clock: it survives being handed on, and never restarts.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from common.errors import DeadlineExceeded

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time by which an answer must be ready.

    Attributes:
        at_s: seconds on ``time.monotonic``.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of(cls, context: grpc.aio.ServicerContext[Any, Any], default_s: float) -> Self:
        """The deadline the client set, or ``default_s`` from now where it set none."""
        # Typed as never None, but it is None where the client set no deadline.
        remaining: float | None = context.time_remaining()
        return cls.after(default_s if remaining is None else remaining)

    def remaining_s(self) -> float:
        """Seconds left; 0.0 once it has passed."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self, stage: str) -> None:
        """Stop before a stage that can no longer help.

        Raises:
            DeadlineExceeded: it has passed; names the stage that was not begun.
        """
        if self.remaining_s() <= 0.0:
            raise DeadlineExceeded(f"the deadline passed before {stage}; allow more time")

    def timeout(self) -> asyncio.Timeout:
        """A context manager that raises TimeoutError inside at the deadline."""
        return asyncio.timeout(self.remaining_s())
