"""What a client sees while members of the cluster die: its searches, counted phase by phase.

The client is a process of its own (``asker.py``) that searches all the time. A search counts where
it ended. It failed if the client raised an error after all its own repeats, or had no passage.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.member import KILLED_S, ClusterError, on_leash

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

PROGRAM = Path(__file__).resolve().with_name("asker.py")
WAIT_S = 60.0


@dataclass(slots=True)
class Phase:
    """The searches that ended in one phase.

    Attributes:
        name: what the cluster was like.
        must_answer: a failed search is a fault of the cluster.
        answers: searches with passages.
        stale: answers that say that the way to the index may be out of date.
        failures: what the client said of the others.
        slowest_ms: the answer that took longest, in milliseconds.
        best: of each answer the best passage, once.
    """

    name: str
    must_answer: bool = True
    answers: int = 0
    stale: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0
    best: set[str] = field(default_factory=set)

    def found(self, words: str) -> int:
        """How many passages with these words were best."""
        return sum(words in passage for passage in self.best)

    def count(self, told: Mapping[str, object]) -> None:
        """Count one search."""
        if told["error"]:
            self.failures.append(str(told["error"]))
            return
        self.answers += 1
        self.best.add(str(told["best"]))
        self.stale += "stale_route" in str(told["degraded"])
        self.slowest_ms = max(self.slowest_ms, float(str(told["ms"])))


class Asking:
    """The searches of one asker; made by ``begin``."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._changed = asyncio.Condition()
        self._over = False

    @classmethod
    @asynccontextmanager
    async def begin(
        cls, words: Sequence[str], environ: Mapping[str, str], *, log: Path
    ) -> AsyncIterator[Asking]:
        """Search while the block runs.

        Args:
            words: the interpreter, the collection, and the questions.
            environ: the settings.
            log: of the asker's own; it is made.
        """
        python, *arguments = words
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *on_leash(python, str(PROGRAM), *arguments),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        asking = cls()
        reading = asyncio.create_task(asking._read(process.stdout), name="asking")
        try:
            yield asking
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait_for(process.wait(), KILLED_S)
            await reading

    def enter(self, name: str, *, must_answer: bool = True) -> Phase:
        """Begin a phase."""
        self.phases.append(Phase(name, must_answer=must_answer))
        return self.phases[-1]

    async def until(self, what: str, condition: Callable[[Phase], bool]) -> None:
        """Wait until the present phase is like this.

        Raises:
            ClusterError: a search failed that must not, or it took too long.
        """

        def settled() -> bool:
            phase = self.phases[-1]
            failed = phase.must_answer and phase.failures
            return bool(failed) or self._over or condition(phase)

        try:
            async with asyncio.timeout(WAIT_S), self._changed:
                await self._changed.wait_for(settled)
        except TimeoutError:
            raise ClusterError(f"within {WAIT_S:.0f} s there was not {what}") from None
        self.check()
        if self._over:
            raise ClusterError("the asker ended by itself")

    def check(self) -> None:
        """Raise ClusterError if a search failed that must not."""
        for phase in self.phases:
            if phase.must_answer and phase.failures:
                raise ClusterError(f"while {phase.name} a search failed: {phase.failures[0]}")

    async def _read(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            async with self._changed:
                if self.phases:
                    self.phases[-1].count(json.loads(line))
                self._changed.notify_all()
        async with self._changed:
            self._over = True
            self._changed.notify_all()
