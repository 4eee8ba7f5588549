"""A whole Sluice installation as processes of this machine, for trying it without containers.

    python3 -m deploy.local.cluster up          # in one terminal, until Ctrl-C
    python3 -m deploy.local.cluster status      # in another one
    python3 -m deploy.local.cluster kill query-1
    python3 -m deploy.local.cluster start query-1

Needs nothing but the standard library of Python 3.11. Only processes that it started are ended, by
their ids; the last it does is to see that none of them is left.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.local.environment import ROOT, Environment, installed
from deploy.local.member import ClusterError, Member
from deploy.local.topology import MEMBERS, SERVICES, Topology

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator, Sequence

DEFAULT_HOME = ROOT / "build" / "cluster"
# In the folder of the cluster; relative, for the path of a socket is short.
CONTROL = "control"
STATE = "state.json"
REQUEST_S = 180.0
FAILED = 1


class Cluster:
    """The running members; made, begun and ended once.

    Args:
        topology: who they are.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        logs, environ = topology.home / "logs", topology.environ()
        self._members = {
            program.name: Member(program, logs / f"{program.name}.log", environ)
            for program in topology.programs()
        }
        self._watches: dict[str, asyncio.Task[None]] = {}
        # One request at a time, so that nothing is started while it is killed.
        self._turn = asyncio.Lock()
        self._expected: set[str] = set()

    async def begin(self) -> None:
        """Start all, in an order in which each finds what it needs; returns when all are ready.

        Raises:
            ClusterError: one did not start.
        """
        self._topology.write()
        try:
            for side_by_side in (("etcd", "chroma"), SERVICES):
                async with asyncio.TaskGroup() as group:
                    for name in side_by_side:
                        group.create_task(self._begun(name))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _begun(self, name: str) -> None:
        say(await self._start(name))

    async def end(self) -> None:
        """Stop all: first who serves, then what they need. Cancelled, it kills what still runs."""
        self._expected = set(self._members)
        try:
            for side_by_side in (SERVICES, ("chroma",), ("etcd",)):
                await asyncio.gather(*(self._members[name].stop() for name in side_by_side))
        finally:
            for member in self._members.values():
                member.kill_at_once()
            await asyncio.gather(*(member.ended() for member in self._members.values()))
            (self._topology.home / STATE).unlink(missing_ok=True)

    async def handle(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one request: a line of JSON that names what to do, and a line as answer."""
        try:
            request = json.loads(await reader.readline())
            async with self._turn:
                answer = await self._done(request["do"], request["names"])
        except ClusterError as error:
            answer = {"error": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def _done(self, what: str, names: list[str]) -> dict[str, Any]:
        if what == "status":
            return {"members": await self._status()}
        do = self._start if what == "start" else self._kill
        told = await asyncio.gather(*map(do, names), return_exceptions=True)
        self.note()
        for one in told:
            if isinstance(one, BaseException):
                raise one
        return {"text": "\n".join(map(str, told))}

    async def _kill(self, name: str) -> str:
        member = self._members[name]
        if not member.running:
            raise ClusterError(f"{name} does not run; it {member.ending}")
        self._expected.add(name)
        await member.kill()
        return f"{name} {member.ending}"

    async def _status(self) -> dict[str, dict[str, Any]]:
        answers = await asyncio.gather(
            *(member.program.answers() for member in self._members.values())
        )
        return {
            name: {**told, "answers": answers[place] and told["pid"] is not None}
            for place, (name, told) in enumerate(self._told().items())
        }

    async def _start(self, name: str) -> str:
        member = self._members[name]
        if member.running:
            return f"{name} runs already"
        try:
            await member.start()
        except ClusterError:
            await member.kill()
            raise
        self._expected.discard(name)
        self._watches[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")
        return f"{name} is ready on {member.program.address}"

    async def _watch(self, name: str) -> None:
        """Tell of a member that ended unasked."""
        member = self._members[name]
        await member.ended()
        if name not in self._expected:
            say(f"{name} {member.ending}; see {member.log}, and start it again by `start {name}`")
            self.note()

    def _told(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "pid": member.pid,
                "address": member.program.address,
                "state": "runs" if member.running else member.ending,
                "log": str(member.log),
            }
            for name, member in self._members.items()
        }

    def note(self) -> None:
        """Write who runs into the state file, whole or not at all."""
        state = {
            "pid": os.getpid(),
            "config": str(self._topology.config),
            "variables": self._topology.variables(),
            "members": self._told(),
        }
        new = self._topology.home / f"{STATE}.new"
        new.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        new.replace(self._topology.home / STATE)


async def serve(topology: Topology) -> int:
    """Run the cluster until SIGINT, SIGTERM or SIGHUP; a second one kills what is stopping."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  # this coroutine runs in one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    cluster = Cluster(topology)
    try:
        await cluster.begin()
        control = await asyncio.start_unix_server(cluster.handle, CONTROL)
        cluster.note()
        say(f"\nThe cluster is ready. In another terminal:\n  source {topology.shell}")
        say("  sluice ingest ./samples --collection docs")
        say('  sluice search "how do I replace a failed NameNode" --collection docs')
        say(f"or give the commands --config {topology.config}. Ctrl-C ends it; its data is kept.")
        async with control:
            await control.serve_forever()
    except asyncio.CancelledError:
        say("\nStopping …")
    finally:
        await cluster.end()
        say("Nothing runs any more.")
    return 0


def up(home: Path, environment: Environment) -> int:
    """Run the cluster of a folder."""
    with only_one(home):
        os.chdir(home)
        for left in (CONTROL, STATE):  # by one that was killed
            Path(left).unlink(missing_ok=True)
        return asyncio.run(serve(Topology(home, environment)))


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the folder while the block runs.

    Raises:
        ClusterError: another process holds it.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"a cluster runs in {home} already; name another --home") from None
        yield


def ask(home: Path, what: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """Ask the cluster of a folder to do something; its answer.

    Raises:
        ClusterError: none runs there, or it could not do it.
    """

    async def asking() -> bytes:
        reader, writer = await asyncio.open_unix_connection(CONTROL)
        writer.write(json.dumps({"do": what, "names": names}).encode() + b"\n")
        try:
            return await asyncio.wait_for(reader.readline(), REQUEST_S)
        finally:
            writer.close()

    try:
        os.chdir(home)
        answer: dict[str, Any] = json.loads(asyncio.run(asking()))
    except (OSError, ValueError):
        raise ClusterError(f"no cluster runs in {home}; start one with `up`") from None
    if "error" in answer:
        raise ClusterError(answer["error"])
    return answer


def say(text: str) -> None:
    """Tell who started the program."""
    print(text, flush=True)  # noqa: T201  # a program's output


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m deploy.local.cluster", description="A Sluice cluster without containers."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", type=Path, default=DEFAULT_HOME, help="folder of all its data")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", parents=[common], help="run it, until Ctrl-C")
    add_environment(starting)
    status = commands.add_parser("status", parents=[common], help="show who runs and answers")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    for command, told in (("kill", "end members by SIGKILL"), ("start", "start members again")):
        one = commands.add_parser(command, parents=[common], help=told)
        one.add_argument("names", nargs="+", choices=MEMBERS, metavar="NAME")
    return parser


def add_environment(parser: argparse.ArgumentParser) -> None:
    """The options that say which environment is used."""
    parser.add_argument("--python", type=Path, help="interpreter of an environment with sluice")
    parser.add_argument("--wheel", type=Path, help="to install; else the newest in dist/")
    parser.add_argument("--venv", type=Path, help="where to install it; else HOME/venv")


def environment_of(given: argparse.Namespace) -> Environment:
    """The environment that the options name, made if need be."""
    if given.python:
        return Environment(given.python)
    return installed((given.venv or given.home / "venv").resolve(), given.wheel)


def main() -> int:
    """Run one command; the exit code."""
    given = options().parse_args()
    home: Path = given.home.resolve()
    try:
        if given.command == "up":
            return up(home, environment_of(given))
        answer = ask(home, given.command, getattr(given, "names", ()))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # a program's output
        return FAILED
    if given.command != "status":
        say(answer["text"])
    elif given.json:
        say(json.dumps(answer))
    else:
        for name, told in answer["members"].items():
            state = f"runs as {told['pid']}" if told["pid"] else told["state"]
            doubt = "" if told["answers"] or not told["pid"] else ", does not answer"
            say(f"{name:10} {told['address']:16} {state}{doubt}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
