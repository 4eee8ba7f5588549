"""A cluster of one's own: etcd, a Chroma server, and services of Sluice as processes apart.

One settings file tells them all who is where; the commands of a person read it too. A service is
known by its name, which begins with what it serves: ``indexer``, ``query-2``. Every process is
ended by its own id; every wait has a bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from common.chroma import ChromaSettings, open_chroma
from common.coordination import CoordinatorSettings
from common.errors import NotFound
from tests.installation import SLUICE
from tests.integration.chroma_server import chroma_server
from tests.integration.etcd import Etcd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

READY_S = 120
END_S = 60
COMMAND_S = 120
WAIT_S = 30
# What becomes of documents and queries is the same with any embedder; this one has no model to
# load.
HASHING = {"SLUICE_EMBEDDING__KIND": "hashing"}
# A short lease: the others learn soon that a service has died.
LEASED = {"server": {"listen": "127.0.0.1:0"}, "instance_ttl_s": 2}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until what other processes do makes a condition true."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 — another process sets no event here
            await asyncio.sleep(0.02)


def write_notes(folder: Path, number: int) -> Path:
    """A new folder of so many texts of several chunks each."""
    folder.mkdir()
    for note in range(number):
        text = " ".join(f"Block {note}-{line} has three replicas." for line in range(200))
        (folder / f"note-{note:04d}.md").write_text(text)
    return folder


class Served:
    """One service of a cluster.

    Attributes:
        name: its own in the cluster.
        address: HOST:PORT where it takes requests.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.address = ""
        self._process = process
        self._log = log
        self._read = 0
        self._lines: dict[str, list[dict[str, Any]]] = {}

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not (found := re.search(r"is ready on (\S+)\n", self._log.read_text())):
            assert self.running, self.tail()
            assert time.monotonic() < deadline, f"{self.name} was not ready in time"
            time.sleep(0.05)  # a line of a log cannot be awaited
        self.address = found[1]

    def kill(self) -> None:
        """End it without notice."""
        self._process.kill()
        self._process.wait(END_S)

    def drain(self) -> None:
        """Ask it to end; it must do so with 0."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(END_S) == 0, self.tail()

    def freeze(self) -> None:
        """Keep it from doing anything; its connections stand."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it go on where it was frozen."""
        self._process.send_signal(signal.SIGCONT)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """What it has logged with this message, oldest first."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._read += len(line)
                if line.startswith(b"{"):
                    told = json.loads(line)
                    self._lines.setdefault(told["message"], []).append(told)
        return self._lines.get(message, [])

    def tail(self) -> str:
        return f"{self.name}:\n{self._log.read_text()[-4_000:]}"


class Cluster:
    """The servers of an installation and the commands of a person on them.

    Attributes:
        etcd: the coordinator's only member.
        services: all that were started, by name; of one started twice, the latest.
        settings: sections of the file that every process reads.
    """

    def __init__(
        self, folder: Path, etcd: Etcd, chroma_port: int, environ: Mapping[str, str]
    ) -> None:
        self.etcd = etcd
        self.services: dict[str, Served] = {}
        self.settings: dict[str, Any] = {
            "coordinator": {"kind": "etcd", "endpoints": [etcd.endpoint]},
            "chroma": {"mode": "server", "port": chroma_port},
            "indexer": LEASED,
            "query": LEASED,
            "ingest": {"state_uri": str(folder / "state")},
        }
        self._folder = folder
        self._file = folder / "sluice.yaml"
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        self._environ = own | dict(environ)

    @property
    def coordinator(self) -> CoordinatorSettings:
        return CoordinatorSettings.model_validate(self.settings["coordinator"])

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Change sections, for what is started from now on."""
        self.settings |= sections
        self._file.write_text(yaml.safe_dump(json.loads(json.dumps(self.settings))))

    def start(self, *names: str) -> list[Served]:
        """Start services side by side; returns when all take requests."""
        started = []
        for name in names:
            log = self._folder / f"{name}.log"
            with log.open("wb") as errors:
                process = self.begin("serve", name.partition("-")[0], stderr=errors)
            self.services[name] = Served(name, process, log)
            started.append(self.services[name])
        for service in started:
            service.wait_until_ready()
        return started

    def named(self, service: str) -> list[Served]:
        """Those of one kind, ``indexer`` or ``query``, that run."""
        found = self.services.values()
        return [one for one in found if one.name.partition("-")[0] == service and one.running]

    def begin(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command and leave it running."""
        command = [*SLUICE, *arguments, "--config", str(self._file)]
        return subprocess.Popen(command, env=self._environ, **streams)

    def sluice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*SLUICE, *arguments, "--config", str(self._file), "--json"],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def records(self, collection: str, version: int = 1) -> dict[str, tuple[Any, Any]]:
        """Text and metadata of every chunk, by its id; nothing if the version is not there."""

        async def read() -> dict[str, tuple[Any, Any]]:
            chroma = open_chroma(ChromaSettings.model_validate(self.settings["chroma"]))
            try:
                opened = await chroma.collection(f"default.{collection}.v{version:06d}")
                found = await opened.get(include=["documents", "metadatas"])
            except NotFound:
                return {}
            finally:
                await chroma.aclose()
            texts, metadatas = found.documents or [], found.metadatas or []
            return dict(zip(found.ids, zip(texts, metadatas, strict=True), strict=True))

        return asyncio.run(read())

    def drain(self) -> None:
        """Ask all that run to end; each must do so with 0."""
        for service in self.services.values():
            if service.running:
                service.drain()

    def kill(self) -> None:
        """End all that run."""
        for service in self.services.values():
            service.kill()


@contextmanager
def running_cluster(
    folder: Path,
    *names: str,
    environ: Mapping[str, str] = HASHING,
    **sections: Mapping[str, Any],
) -> Iterator[Cluster]:
    """A cluster with these services; those that still run in the end must drain.

    Args:
        folder: for everything it keeps, settings and logs included.
        names: services to start.
        environ: variables of its processes besides those of this one.
        sections: of the settings, in place of those that a cluster has by itself.
    """
    with Etcd(folder / "etcd") as etcd, chroma_server(folder / "chroma") as port:
        cluster = Cluster(folder, etcd, port, environ)
        cluster.configure(**sections)
        try:
            cluster.start(*names)
            yield cluster
            cluster.drain()
        finally:
            cluster.kill()
