"""A process that makes one call to HDFS and says in one line of JSON what came of it.

Run as ``python -c`` by ``hdfs_checks.py``, with a ``Probe`` in JSON on standard input. A call may
hang for minutes, and libhdfs takes its process with it where the class path is wrong: whoever
started this one can end it, or look at how it ended. It lists; it never writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECT_TIMEOUT_S = 3.0
_PROBE_TIMEOUT_S = 10.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from ingestor.doctor.hdfs_probe import main; main()"
)
# Once is enough to know; the clients would try for minutes.
_ONCE = {
    "dfs.client.failover.max.attempts": "0",
    "ipc.client.connect.max.retries": "0",
    "ipc.client.connect.max.retries.on.timeouts": "0",
}


class Outcome(StrEnum):
    """What came of a probe."""

    WORKS = "works"
    UNREACHABLE = "unreachable"
    STANDBY = "standby"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    MISSING = "missing"
    NO_CLIENT = "no_client"
    FAILED = "failed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Probe:
    """What to try.

    Attributes:
        client: native or libhdfs.
        authority: a nameservice, or HOST:PORT of a name node.
        connect: host and port to open a connection to beforehand; None for none.
        path: folder to list; None calls nobody.
        conf_dir: folder of the configuration files; None leaves it to the environment.
        options: configuration keys over those in the files.
    """

    client: str
    authority: str
    connect: tuple[str, int] | None
    path: str | None
    conf_dir: str | None
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of it, and what was said to it in one line."""

    outcome: Outcome
    text: str


async def run(probe: Probe, environ: Mapping[str, str]) -> Finding:
    """Make the probe in a process of its own, which is ended after some seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, json.dumps(sys.path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environ),
    )
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            said, _ = await process.communicate(json.dumps(asdict(probe)).encode())
        answer = json.loads(said)
        return Finding(Outcome(answer["outcome"]), answer["text"])
    except TimeoutError:
        return Finding(Outcome.HUNG, f"no answer within {_PROBE_TIMEOUT_S:g} s")
    except ValueError:
        text = f"{probe.client} ended its process (status {process.returncode})"
        return Finding(Outcome.NO_CLIENT, text)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    """Answer the probe on standard input."""
    # Whatever native code or a JVM prints must not land in the answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked = json.load(sys.stdin)
    outcome, text = _connect(asked["connect"])
    if outcome is Outcome.WORKS and asked["path"] is not None:
        outcome, text = _call(asked)
    json.dump({"outcome": outcome, "text": text}, answers)
    answers.flush()
    os._exit(0)  # threads of a client must not hold the answer up


def _connect(address: list[Any] | None) -> tuple[Outcome, str]:
    try:
        if address is not None:
            host, port = address
            socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return Outcome.UNREACHABLE, _said(error)
    return Outcome.WORKS, ""


def _call(asked: dict[str, Any]) -> tuple[Outcome, str]:
    try:
        _list(asked)
    except ImportError as error:
        return Outcome.NO_CLIENT, str(error)
    except OSError as error:
        return _outcome(error), _said(error)
    return Outcome.WORKS, ""


def _outcome(error: OSError) -> Outcome:
    from ingestor.storage.hdfs_errors import UnauthenticatedError  # noqa: PLC0415 — a probe's own

    said = _said(error)
    if said.startswith("Unable to load"):
        return Outcome.NO_CLIENT
    if "StandbyException" in said:
        return Outcome.STANDBY
    if isinstance(error, UnauthenticatedError):
        return Outcome.UNAUTHENTICATED
    if isinstance(error, PermissionError):
        return Outcome.DENIED
    return Outcome.MISSING if isinstance(error, FileNotFoundError) else Outcome.FAILED


def _list(asked: dict[str, Any]) -> None:
    options = {**asked["options"], **_ONCE}
    if asked["client"] == "native":
        import hdfs_native  # noqa: PLC0415 — an optional client

        from ingestor.storage.hdfs_errors import translated  # noqa: PLC0415 — belongs to it

        with translated():
            client = hdfs_native.Client(f"hdfs://{asked['authority']}", options, asked["conf_dir"])
            next(iter(client.list_status(asked["path"])), None)
        return
    from pyarrow import fs  # noqa: PLC0415 — slow

    host, _, port = asked["authority"].partition(":")
    client = fs.HadoopFileSystem(host or "default", int(port or 0), extra_conf=options)
    client.get_file_info(fs.FileSelector(asked["path"]))


def _said(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    return said.splitlines()[0]
