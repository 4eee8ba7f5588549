"""Shows Sluice at work: starts it, indexes samples/ and asks three questions, as a person would.

Everything it leaves lies in a temporary folder and goes with it. The commands are run as they are
printed; only the server is started here, on a free port.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
from pathlib import Path

from client.local_server import local_server
from common.errors import SluiceError

ROOT = Path(__file__).resolve().parent.parent
COMMAND_TIMEOUT_S = 300.0
QUESTIONS = (
    "Why does our streaming job lose its login once a week, and how do we stop that?",
    "When will we run out of disk space if we buy no new machines?",
    "May developers use real people's private details for experiments?",
)


async def demonstrate(folder: Path) -> int:
    """Run the demo in a folder; the exit code of the first command that fails, or 0."""
    data = folder / "data"
    environ = {**os.environ, "SLUICE_INGEST__STATE_URI": str(folder / "state")}
    say(f"sluice up --data-dir {data} --listen 127.0.0.1:0")
    async with local_server(folder, environ=environ) as address:
        say(f"export SLUICE_CLIENT__TARGET={address}")
        environ["SLUICE_CLIENT__TARGET"] = address
        commands = [
            ("ingest", "samples/", "--collection", "demo"),
            *(("search", question, "--collection", "demo", "-k", "3") for question in QUESTIONS),
        ]
        for command in commands:
            say(" ".join(map(typed, ["sluice", *command])))
            status = await run(command, environ)
            if status != 0:
                return status
        say("kill %1")
    print("\nThe server has stopped and its data is gone.", flush=True)  # noqa: T201  # a script's output
    return 0


def say(command: str) -> None:
    """Print a command as a person would have typed it."""
    mark = "\x1b[1m$\x1b[0m" if sys.stdout.isatty() else "$"
    print(f"\n{mark} {command}", flush=True)  # noqa: T201  # a script's output


def typed(word: str) -> str:
    """A word as a person would quote it for a shell."""
    return f'"{word}"' if " " in word and not set(word) & set('"$`\\!') else shlex.quote(word)


async def run(command: tuple[str, ...], environ: dict[str, str]) -> int:
    """Run one command of the command line to its end; it writes where this script does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "client", *command, cwd=ROOT, env=environ
    )
    try:
        return await asyncio.wait_for(process.wait(), COMMAND_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> int:
    """Run the demo; exit code 0 if all of it worked."""
    with tempfile.TemporaryDirectory(prefix="sluice-demo-") as folder:
        try:
            return asyncio.run(demonstrate(Path(folder)))
        except SluiceError as error:
            print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # a script's output
            return 1
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
