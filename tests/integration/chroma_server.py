"""A real Chroma server for tests: `chroma run` on a loopback port and a folder of its own."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_S = 30
PROGRAM = Path(sys.executable).with_name("chroma")


@contextmanager
def chroma_server(folder: Path) -> Iterator[int]:
    """Run a server while the block runs; its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    command = [PROGRAM, "run", "--path", folder / "store", "--host", "127.0.0.1", "--port", port]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(list(map(str, command)), stdout=log, stderr=log) as process,
    ):
        try:
            _wait(port, process, folder / "log")
            yield port
        finally:
            process.kill()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not _answers(port):
        assert process.poll() is None, log.read_text()[-2_000:]
        assert time.monotonic() < deadline, "the Chroma server was not ready in time"
        time.sleep(0.05)  # a port cannot be awaited


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/api/v2/heartbeat")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
