"""One process of the cluster: started on a leash, waited for, killed, started again, stopped.

It is ended by its own id only, and every wait has a bound. It never outlives who started it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable, Mapping

READY_S = 120.0
# A service drains for 20 s at most.
STOP_S = 30.0
KILLED_S = 10.0
LEASH = (sys.executable, "-I", "-S", str(Path(__file__).resolve().with_name("leash.py")))
_LOOK_EVERY_S = 0.1
_TAIL_BYTES = 4_000
_TAIL_LINES = 12


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a member runs.

    Attributes:
        name: of the member, such as ``query-1``.
        command: with all its arguments; the same at each start.
        address: HOST:PORT where it listens.
        is_ready: whether others can use it; asked time and again while it starts.
        answers: whether it answers; asked for a status.
    """

    name: str
    command: tuple[str, ...]
    address: str
    is_ready: Callable[[], Awaitable[bool]]
    answers: Callable[[], Awaitable[bool]]


def on_leash(*command: str) -> tuple[str, ...]:
    """The command, so that its process ends with this one."""
    return (*LEASH, str(os.getpid()), *command)


class Member:
    """A program of the cluster and its process, if it runs.

    Args:
        program: what it runs.
        log: where it writes; what it wrote before is kept.
        environ: of the process.
    """

    def __init__(self, program: Program, log: Path, environ: Mapping[str, str]) -> None:
        self.program = program
        self.log = log
        self._environ = environ
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of its process, while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    async def start(self) -> None:
        """Start its process, unless it runs, and wait until others can use it.

        Raises:
            ClusterError: it ended or was not ready in time; with the end of its log.
        """
        if not self.running:
            # A group of its own: Ctrl-C in a terminal is for who started the cluster.
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *on_leash(*self.program.command),
                    env=dict(self._environ),
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        try:
            async with asyncio.timeout(READY_S):
                while not await self.program.is_ready():
                    if await self._ends_within(_LOOK_EVERY_S):
                        raise self._failed(self.ending)
        except TimeoutError:
            raise self._failed(f"was not ready within {READY_S:.0f} s") from None

    async def ended(self) -> None:
        """Wait until its process has ended."""
        if self._process is not None:
            await self._process.wait()

    @property
    def ending(self) -> str:
        """How its process ended, in words."""
        status = None if self._process is None else self._process.returncode
        if status is None:
            return "was not started" if self._process is None else "runs"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    async def kill(self) -> None:
        """End its process without notice."""
        self._signal(signal.SIGKILL)
        if self._process is not None and not await self._ends_within(KILLED_S):
            raise ClusterError(f"{self.program.name} (process {self.pid}) could not be killed")

    async def stop(self) -> None:
        """Ask its process to end; kill it if it has not after ``STOP_S``."""
        self._signal(signal.SIGTERM)
        if self._process is not None and not await self._ends_within(STOP_S):
            await self.kill()

    def kill_at_once(self) -> None:
        """End its process without notice and without waiting."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.ended(), seconds)
        except TimeoutError:
            return False
        return True

    def _failed(self, how: str) -> ClusterError:
        return ClusterError(f"{self.program.name} {how}; the end of {self.log}:\n{self._tail()}")

    def _tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "it logged nothing"
