"""Which processor cores the processes of a benchmark share.

A server's own time can only be told where nobody else is given its core meanwhile: on two cores,
a vector store and eight clients would have both. So the server under test gets the first core and
all else the others, as if it stood on a machine of its own. It must never give one contestant what
another has not.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Cores:
    """How the cores are shared; both are the same set where there is one core only."""

    server: frozenset[int]
    others: frozenset[int]

    @classmethod
    def shared(cls) -> Cores:
        """The cores that this process may use, the lowest one for the server."""
        usable = os.sched_getaffinity(0)
        first = frozenset({min(usable)})
        return cls(first, frozenset(usable) - first or first)

    def figures(self) -> dict[str, list[int]]:
        """For the report."""
        return {"server": sorted(self.server), "others": sorted(self.others)}


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts meanwhile, to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
