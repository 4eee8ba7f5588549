"""Shows a Sluice cluster at work while its members die, as a person would see it.

Starts the cluster of ``cluster.py`` in a temporary folder, indexes samples/, keeps searching, kills
an indexer and a query server with SIGKILL while more is indexed, then takes etcd away, then Chroma.
The exit code is 0 only if no search failed that must not and nothing that was ingested is missing.
Everything is run as it is printed, and ended when this ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.local.asking import Asking
from deploy.local.cluster import DEFAULT_HOME, FAILED, STATE, add_environment, environment_of, say
from deploy.local.environment import ROOT
from deploy.local.member import READY_S, STOP_S, ClusterError, on_leash
from deploy.local.topology import MEMBERS

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Sequence

    from deploy.local.environment import Environment

COMMAND_S = 120.0
# Services, then Chroma, then etcd, each with the time it has to stop.
END_S = 4 * STOP_S
SAMPLES = ROOT / "samples"
COLLECTION = "demo"
QUESTIONS = (
    "Why does our streaming job lose its login once a week, and how do we stop that?",
    "When will we run out of disk space if we buy no new machines?",
)
COPIES = 4
COPY = "A copy for the zymurgy handbook"
# Searches that a phase must see to its end.
ENOUGH = 20


class Demo:
    """One run of the demo.

    Args:
        folder: for everything it leaves.
        environment: whose commands it runs.
    """

    def __init__(self, folder: Path, environment: Environment) -> None:
        self._environment = environment
        self._home = folder / "cluster"
        self._lake = folder / "lake"
        self._environ: dict[str, str] = {}

    async def run(self, killed: Sequence[str]) -> list[str]:
        """All of it; the lines that sum it up.

        Raises:
            ClusterError: something was not as it must be.
        """
        await asyncio.to_thread(shutil.copytree, SAMPLES, self._lake / "samples")
        async with self._cluster():
            ingest = ("sluice", "ingest", str(self._lake), "--collection", COLLECTION)
            await self._do(*ingest)
            for question in QUESTIONS:
                await self._do("sluice", "search", question, "--collection", COLLECTION, "-k", "1")
            async with Asking.begin(
                (str(self._environment.python), COLLECTION, *QUESTIONS, COPY),
                self._environ,
                log=self._home / "logs" / "asker.log",
            ) as asking:
                asking.enter("all members ran")
                await self._enough(asking)
                asking.enter(f"{' and '.join(killed)} were killed under a second ingest")
                await self._kill_while(asking, ingest, killed)
                await self._enough(asking)
                await self._nothing_is_missing()
                await self._without_etcd(asking)
                await self._without_chroma(asking)
                asking.enter("Chroma was started again")
                await self._enough(asking)
            asking.check()
        return table(asking)

    async def _kill_while(
        self, asking: Asking, ingest: Sequence[str], killed: Sequence[str]
    ) -> None:
        """Kill members as soon as a document of a job is found; the job must end well."""
        await asyncio.to_thread(self._write_copies)
        say(f"\n$ {shlex.join(ingest)} &")
        job = asyncio.create_task(self._run(*ingest))
        try:
            await asking.until("a new document", lambda phase: phase.found(COPY) > 0)
            if job.done():
                raise ClusterError("the second ingest was over before a member could be killed")
            await self._members("kill", killed)
            say(await job)
        finally:
            job.cancel()

    def _write_copies(self) -> None:
        """New documents: each runbook some times, each time with another sentence."""
        for number in range(COPIES):
            folder = self._lake / "copies" / str(number)
            folder.mkdir(parents=True)
            for runbook in (SAMPLES / "runbooks").iterdir():
                text = f"{runbook.read_text(encoding='utf-8')}\n{COPY}, number {number}.\n"
                (folder / runbook.name).write_text(text, encoding="utf-8")

    async def _nothing_is_missing(self) -> None:
        """The index holds every file that was ingested, complete, and what the jobs remember."""
        files = sum(path.is_file() for path in self._lake.rglob("*"))
        verify = ("sluice", "collections", "verify", COLLECTION)
        await self._do(*verify, "--expected-documents", str(files))

    async def _without_etcd(self, asking: Asking) -> None:
        phase = asking.enter("etcd was away")
        await self._members("kill", ["etcd"])
        await asking.until("a stale answer", lambda phase: phase.stale > 0)
        await self._enough(asking)
        say(f"Answers go on by the last known route; {phase.stale} say so.")
        asking.enter("etcd was started again")
        await self._members("start", ["etcd"])
        # Marked stale until the servers have caught up.
        await asking.until("an answer that is not stale", lambda phase: phase.answers > phase.stale)

    async def _without_chroma(self, asking: Asking) -> None:
        phase = asking.enter("Chroma was away", must_answer=False)
        await self._members("kill", ["chroma"])
        await asking.until("a failed search", lambda phase: len(phase.failures) > 0)
        say(f"No answers without Chroma. The client says:\n  {phase.failures[0]}")
        await self._members("start", ["chroma"])
        answered = phase.answers
        await asking.until("an answer again", lambda phase: phase.answers > answered)
        strange = [one for one in phase.failures if not one.startswith("UNAVAILABLE: ")]
        if strange:
            raise ClusterError(f"while Chroma was away a search failed otherwise: {strange[0]}")

    async def _enough(self, asking: Asking) -> None:
        await asking.until(f"{ENOUGH} answers", lambda phase: phase.answers >= ENOUGH)

    @asynccontextmanager
    async def _cluster(self) -> AsyncIterator[None]:
        """The cluster while the block runs, as a process of its own."""
        command = self._cluster_command("up", "--python", str(self._environment.python))
        say(f"$ {shlex.join(('python3', *command[1:]))} &")
        process = await asyncio.create_subprocess_exec(
            *on_leash(*command), cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            await self._ready(process)
            yield
        finally:
            say("\n$ kill %1")
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), END_S)
        if process.returncode != 0:
            raise ClusterError(f"the cluster ended with status {process.returncode}")

    async def _ready(self, process: Process) -> None:
        state = self._home / STATE
        async with asyncio.timeout(2 * READY_S):
            while not await asyncio.to_thread(state.is_file):
                if process.returncode is not None:
                    raise ClusterError("the cluster did not start; see above")
                await asyncio.sleep(0.1)  # a file cannot be awaited
        told = json.loads(await asyncio.to_thread(state.read_text, encoding="utf-8"))
        scratch = {"TMPDIR": str(self._home / "tmp")}
        self._environ = os.environ | told["variables"] | scratch
        say(f"\n$ source {self._home / 'env.sh'}")

    async def _members(self, what: str, names: Sequence[str]) -> None:
        await self._do(*self._cluster_command(what, *names))

    def _cluster_command(self, what: str, *arguments: str) -> tuple[str, ...]:
        program = (sys.executable, "-m", "deploy.local.cluster")
        return (*program, what, *arguments, "--home", str(self._home))

    async def _do(self, *command: str) -> str:
        """Print a command, run it to its end, print and return its output."""
        shown = command if command[0] != sys.executable else ("python3", *command[1:])
        say(f"\n$ {shlex.join(shown)}")
        output = await self._run(*command)
        say(output)
        return output

    async def _run(self, *command: str) -> str:
        program = shutil.which(command[0], path=self._environ["PATH"]) or command[0]
        process = await asyncio.create_subprocess_exec(
            *on_leash(program, *command[1:]),
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), COMMAND_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise ClusterError(f"{shlex.join(command)} ended with status {process.returncode}")
        return output.decode().rstrip()


def table(asking: Asking) -> list[str]:
    """A table of the phases."""
    lines = [f"{'while':58} {'answers':>7} {'failed':>6} {'stale':>5} {'slowest':>8}"]
    lines += [
        f"{phase.name:58} {phase.answers:7} {len(phase.failures):6} {phase.stale:5}"
        f" {phase.slowest_ms:5.0f} ms"
        for phase in asking.phases
    ]
    return lines


async def demonstrate(folder: Path, environment: Environment, killed: Sequence[str]) -> int:
    """Run the demo; SIGINT, SIGTERM and SIGHUP end it and what it started."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  # this coroutine runs in one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    began_s = time.monotonic()
    lines = await Demo(folder, environment).run(killed)
    say("\n" + "\n".join(lines))
    say("Failed is a search that raised an error after all the client's own repeats.")
    say(f"No search failed that must not, nothing is missing ({time.monotonic() - began_s:.0f} s).")
    return 0


def main() -> int:
    """Run the demo; exit code 0 if all of it was as it must be."""
    parser = argparse.ArgumentParser(
        prog="python3 -m deploy.local.demo", description="A cluster that goes on while members die."
    )
    add_environment(parser)
    services = [name for name in MEMBERS if "-" in name]
    parser.add_argument("--kill", action="append", choices=services, help="instead of one of each")
    given: Any = parser.parse_args()
    given.home = DEFAULT_HOME
    with tempfile.TemporaryDirectory(prefix="sluice-cluster-") as folder:
        try:
            killed = given.kill or ["indexer-1", "query-1"]
            return asyncio.run(demonstrate(Path(folder), environment_of(given), killed))
        except (ClusterError, TimeoutError) as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201  # a program's output
            return FAILED
        except asyncio.CancelledError:
            return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
