"""A Sluice of a test's own: `sluice up` and `sluice ingest` as real processes on one folder.

Every process it starts is stopped by its own id; every wait has a bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from common.chroma import ChromaSettings, open_chroma

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_TIMEOUT_S = 60
JOB_TIMEOUT_S = 240
SLUICE = (sys.executable, "-m", "client")
COLLECTION = "docs"

Records: TypeAlias = "dict[str, tuple[str, dict[str, Any]]]"


class Installation:
    """Data directory, job state and logs of one installation below ``home``.

    Args:
        home: made if absent.
        environ: variables of its processes besides those of this one.
    """

    def __init__(self, home: Path, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.data = home / "data"
        self.ready = home / "ready"
        self.server: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")},
            "SLUICE_INGEST__STATE_URI": (home / "state").as_uri(),
            **(environ or {}),
        }

    def start(self) -> None:
        """Start the server and wait until it takes requests."""
        self.ready.unlink(missing_ok=True)
        command = [*SLUICE, "up", "--data-dir", str(self.data), "--listen", "127.0.0.1:0"]
        with (self.home / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [*command, "--ready-file", str(self.ready)],
                env=self.environ,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready.exists():
            assert self.server.poll() is None, (self.home / "server.log").read_text()[-4_000:]
            assert time.monotonic() < deadline, "sluice up was not ready in time"
            time.sleep(0.02)  # a file cannot be awaited
        self.environ["SLUICE_CLIENT__TARGET"] = self.ready.read_text().strip()

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the server and wait for it."""
        if self.server is not None:
            self.server.send_signal(signal_number)
            self.server.wait(timeout=60)
            self.server = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The server, while the block runs."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def begin_ingest(self, root: Path | str, *options: str) -> subprocess.Popen[bytes]:
        """Start a job and leave it running."""
        command = [*SLUICE, "ingest", str(root), "--collection", COLLECTION, "--json", *options]
        with (self.home / "ingest.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=log)

    def ingest(self, root: Path | str, *options: str, expect: int = 0) -> dict[str, Any]:
        """Run a job to its end; its summary."""
        with self.begin_ingest(root, *options) as job:
            out, _ = job.communicate(timeout=JOB_TIMEOUT_S)
        log = (self.home / "ingest.log").read_text()[-4_000:]
        assert job.returncode == expect, f"exit {job.returncode}\n{out.decode()}\n{log}"
        summary: dict[str, Any] = json.loads(out)
        return summary

    def sluice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line to its end."""
        return subprocess.run(
            [*SLUICE, *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=JOB_TIMEOUT_S,
            check=False,
        )

    def records(self, version: int = 1) -> Records:
        """Every record of the stopped installation's index: text and metadata by chunk id."""
        assert self.server is None, "two processes on one store destroy it"

        async def read() -> Records:
            chroma = open_chroma(ChromaSettings(mode="embedded", path=self.data / "chroma"))
            try:
                collection = await chroma.collection(f"default.{COLLECTION}.v{version:06d}")
                found = await collection.get(include=["documents", "metadatas"])
            finally:
                await chroma.aclose()
            texts, metadatas = found.documents or [], found.metadatas or []
            return dict(zip(found.ids, zip(texts, metadatas, strict=True), strict=True))

        return asyncio.run(read())


def differences(actual: Records, expected: Records) -> list[str]:
    """What tells two indexes apart, a line a chunk: empty for equal ones.

    Two dictionaries of thousands of chunks, printed whole, would hide the one that differs.
    """
    lines = []
    for chunk in sorted(actual.keys() | expected.keys()):
        ours, theirs = actual.get(chunk), expected.get(chunk)
        if ours is None or theirs is None:
            metadata = (ours or theirs or ("", {}))[1]
            kind = "missing" if ours is None else "surplus"
            lines.append(f"{kind}: {chunk} of {metadata['source_uri']} at {metadata['_version']}")
        elif ours != theirs:
            fields = {
                name: (ours[1].get(name), theirs[1].get(name))
                for name in sorted(ours[1].keys() | theirs[1].keys())
                if ours[1].get(name) != theirs[1].get(name)
            }
            lines.append(f"differs: {chunk}, text {ours[0] == theirs[0]}, metadata {fields}")
    return lines
