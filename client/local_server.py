"""A `sluice up` of one's own: started as a child process, waited for, and stopped again.

For an evaluation, the demo and tests that want the real services without a running installation.
The program is started by name; nothing of it is imported here. The child never outlives the block.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from common.errors import Unavailable

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.05
_LAST_LINES = 8
PROGRAM = (sys.executable, "-m", "client", "up")


@asynccontextmanager
async def local_server(
    folder: Path,
    *,
    environ: Mapping[str, str],
    program: Sequence[str] = PROGRAM,
    config: Path | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> AsyncIterator[str]:
    """Run the server on a free port of this machine while the block runs.

    Args:
        folder: for its data, its log and its ready file; it must exist.
        environ: of the child.
        program: what to start; it takes the options of `sluice up`.
        config: settings of the child.
        start_timeout_s: how long it may take to be ready, in seconds.

    Yields:
        The address it listens on, HOST:PORT.

    Raises:
        Unavailable: it ended or was not ready in time; the message holds its last log lines.
    """
    ready, log = folder / "ready", folder / "sluice-up.log"
    ready.unlink(missing_ok=True)
    command = [*program, "--data-dir", str(folder / "data"), "--listen", "127.0.0.1:0"]
    command += ["--ready-file", str(ready)]
    command += ["--config", str(config)] if config else []
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(environ), stdin=DEVNULL, stdout=errors, stderr=errors
        )
    try:
        yield await _address(process, ready, log, start_timeout_s)
    finally:
        await _stop(process)


async def _address(process: Process, ready: Path, log: Path, timeout_s: float) -> str:
    """What the ready file says, as soon as it is there."""
    try:
        async with asyncio.timeout(timeout_s):
            while (address := await asyncio.to_thread(_content, ready)) is None:
                if await _ends_within(process, _LOOK_EVERY_S):
                    raise Unavailable(
                        f"`sluice up` ended with status {process.returncode}:\n{_tail(log)}"
                    )
    except TimeoutError:
        raise Unavailable(
            f"`sluice up` was not ready within {timeout_s:.0f} s:\n{_tail(log)}"
        ) from None
    return address


async def _ends_within(process: Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def _stop(process: Process) -> None:
    """Ask it to stop; end it if it does not within ``STOP_TIMEOUT_S``."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        if not await _ends_within(process, STOP_TIMEOUT_S):
            process.kill()
            await process.wait()


def _content(ready: Path) -> str | None:
    """The address in the ready file, which is written whole; None before."""
    try:
        return ready.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:]) or "it logged nothing"
