"""What one search has been through: its stages with their spans and times, within its deadline.

The store's time is told apart from this server's own: reading chunks counts as the stage "fetch",
also where another stage does it, and that other stage's time is then without it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.telemetry import Stage, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from common.rpc import Deadline
    from common.telemetry import ActiveSpan
    from query.chunks import ChunkSource, StoredChunk
    from query.index_version import IndexVersion


@dataclass(slots=True)
class Trail:
    """The way of one search, which goes through one stage after the other.

    Attributes:
        deadline: spans all stages.
        timings_ms: milliseconds by stage, in the order they ended first; repeated ones summed,
            each without the stages within it.
        stale_route: whether the version may no longer be the active one.
    """

    deadline: Deadline
    timings_ms: dict[str, float] = field(default_factory=dict)
    stale_route: bool = False
    _within: str = ""

    @contextmanager
    def stage(self, stage: Stage, **attributes: float) -> Iterator[ActiveSpan]:
        """A span and its timing; DeadlineExceeded if there is no time left to begin."""
        name = stage.value.rpartition(".")[2]
        self.deadline.check(name)
        outer, self._within = self._within, name
        active = span(stage, **attributes)
        try:
            with active:
                yield active
        finally:
            self._within = outer
            self._add(name, active.duration_ms)
            if outer:
                self._add(outer, -active.duration_ms)

    def _add(self, name: str, duration_ms: float) -> None:
        self.timings_ms[name] = self.timings_ms.get(name, 0.0) + duration_ms


class FetchingSource:
    """The store's chunks as one search reads them: each call is a stage of its trail."""

    def __init__(self, source: ChunkSource, trail: Trail) -> None:
        self._source = source
        self._trail = trail

    async def stored(
        self, version: IndexVersion, ids: Sequence[str], *, texts: bool
    ) -> dict[str, StoredChunk]:
        """As ChunkSource."""
        with self._trail.stage(Stage.SEARCH_FETCH, records=len(ids), texts=texts):
            return await self._source.stored(version, ids, texts=texts)
