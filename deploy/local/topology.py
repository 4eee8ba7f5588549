"""Who is in the cluster, where each listens, and the settings that they and their clients share.

etcd, a Chroma server, two indexers and two query servers on loopback, all their data in one folder.
Ports are chosen once for a folder, so that whoever is started again is found where it was.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import shlex
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from deploy.local.member import Program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from deploy.local.environment import Environment

HOST = "127.0.0.1"
SERVICES = ("indexer-1", "indexer-2", "query-1", "query-2")
MEMBERS = ("etcd", "chroma", *SERVICES)
_PORTS = (*MEMBERS, "etcd-peer")
# Below those that systems give to outgoing connections, so that a port stays free while its server
# is away.
_PORT_RANGE = range(20_000, 32_000)
_ATTEMPTS = 1_000
_PROBE_S = 2
# The file has these; variables of other sections (SLUICE_EMBEDDING__…) are the user's.
_OWN_SECTIONS = ("CHROMA", "CLIENT", "COORDINATOR", "INDEXER", "INGEST", "QUERY", "UP")


class Topology:
    """The members of the cluster in a folder.

    Args:
        home: for all data; made if absent.
        environment: whose programs they run.
    """

    def __init__(self, home: Path, environment: Environment) -> None:
        self.home = home
        self.config = home / "sluice.yaml"
        self.shell = home / "env.sh"
        self._environment = environment
        (home / "logs").mkdir(parents=True, exist_ok=True)
        (home / "tmp").mkdir(exist_ok=True)
        self._ports = _chosen(home / "ports.json")

    def address(self, name: str) -> str:
        """HOST:PORT of a member."""
        return f"{HOST}:{self._ports[name]}"

    def settings(self) -> dict[str, dict[str, Any]]:
        """The sections of the file that all services and clients read."""
        return {
            "coordinator": {"kind": "etcd", "endpoints": [self.address("etcd")]},
            "chroma": {"mode": "server", "host": HOST, "port": self._ports["chroma"]},
            "ingest": {"state_uri": str(self.home / "state")},
            "client": {"target": "etcd:///sluice/indexer"},
        }

    def variables(self) -> dict[str, str]:
        """The same as variables of a shell, with the commands on its path."""
        found = {"PATH": f"{self._environment.folder}{os.pathsep}{os.environ.get('PATH', '')}"}
        for section, keys in self.settings().items():
            for key, value in keys.items():
                text = value if isinstance(value, str) else json.dumps(value)
                found[f"SLUICE_{section}__{key}".upper()] = text
        return found

    def write(self) -> None:
        """Write the settings: a file for ``--config``, and one for a shell to read."""
        # JSON is YAML.
        self.config.write_text(json.dumps(self.settings(), indent=2) + "\n", encoding="utf-8")
        lines = (f"export {name}={shlex.quote(text)}" for name, text in self.variables().items())
        self.shell.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def environ(self) -> dict[str, str]:
        """The variables of the members: those of this process that the file does not settle."""
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(tuple(f"SLUICE_{section}__" for section in _OWN_SECTIONS))
        }
        return own | {"TMPDIR": str(self.home / "tmp")}

    def programs(self) -> list[Program]:
        """The members in the order in which they start."""
        return [self._etcd(), self._chroma(), *(self._service(name) for name in SERVICES)]

    def _etcd(self) -> Program:
        client, peer = f"http://{self.address('etcd')}", f"http://{self.address('etcd-peer')}"
        command = (
            self._environment.etcd(),
            "--name=only",
            f"--data-dir={self.home / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=only={peer}",
        )
        look = self._http("etcd", "/health", b'"health":"true"')
        return Program("etcd", command, self.address("etcd"), look, look)

    def _chroma(self) -> Program:
        port = str(self._ports["chroma"])
        folder = str(self.home / "chroma")
        chroma = self._environment.program("chroma")
        command = (chroma, "run", "--path", folder, "--host", HOST, "--port", port)
        look = self._http("chroma", "/api/v2/heartbeat", b"heartbeat")
        return Program("chroma", command, self.address("chroma"), look, look)

    def _service(self, name: str) -> Program:
        kind, address = name.partition("-")[0], self.address(name)
        sluice = self._environment.program("sluice")
        command = (sluice, "serve", kind, "--config", str(self.config), "--listen", address)

        async def is_announced() -> bool:
            """Whether clients find it through etcd and it says that it serves."""
            if not await asyncio.to_thread(_listens, self._ports[name]):
                return False
            told = await self._health(f"etcd:///sluice/{kind}")
            serving = [one for one in told.get("servers", ()) if one["status"] == "SERVING"]
            return address in {one["address"] for one in serving}

        async def answers() -> bool:
            return (await self._health(address)).get("serving", False) is True

        return Program(name, command, address, is_announced, answers)

    async def _health(self, target: str) -> dict[str, Any]:
        """What ``sluice health`` says of a target; empty, if it says nothing."""
        process = await asyncio.create_subprocess_exec(
            *(self._environment.program("sluice"), "health", target, "--json"),
            *("--timeout", str(_PROBE_S), "--config", str(self.config)),
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        told: dict[str, Any] = json.loads(out) if out else {}
        return told

    def _http(self, name: str, path: str, words: bytes) -> Callable[[], Awaitable[bool]]:
        """Whether an HTTP server answers a path with 200 and these words."""

        def look() -> bool:
            connection = http.client.HTTPConnection(HOST, self._ports[name], timeout=_PROBE_S)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status == http.client.OK and words in answer.read()
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()

        return lambda: asyncio.to_thread(look)


def _chosen(file: Path) -> Mapping[str, int]:
    """The ports of a folder: those it had, unless one is taken now."""
    if file.is_file():
        had: dict[str, int] = json.loads(file.read_text(encoding="ascii"))
        if all(map(_is_free, had.values())):
            return had
    candidates = random.sample(_PORT_RANGE, _ATTEMPTS)
    free = (port for port in candidates if _is_free(port))
    ports = dict(zip(_PORTS, free, strict=False))
    file.write_text(json.dumps(ports), encoding="ascii")
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection that has just ended is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(_PROBE_S)
        return probe.connect_ex((HOST, port)) == 0
