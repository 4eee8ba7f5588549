"""HDFS beside its bound: listing and reading by Sluice and by the raw client, in turns.

The raw client is hdfs-native as its own users call it: one thread for a listing, as many as Sluice
has readers for reading. Sluice's listing is what a nightly job does of files that have not changed:
walk, select, and compare with a manifest that knows all of them. Files are read whole into memory
by both. The last figure is of a second `sluice ingest` over a folder in which nothing changed.
Without a cluster at hand one is started on this machine, as the tests do it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from itertools import compress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hdfs_native import Client, WriteOptions

from client.local_server import local_server
from ingestor.faults import Fault
from ingestor.job.difference import Same, differences
from ingestor.selection import Selection
from ingestor.settings import HdfsSettings
from ingestor.state.file_records import FileOutcome, FileRecord
from ingestor.state.manifest import Manifest, ManifestKey
from ingestor.state.state_folder import StateFolder
from ingestor.storage.filesystems import locate
from ingestor.storage.listing import FileBatch, FileEntry
from ingestor.storage.sources import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from ingestor.storage.sources import StorageSource

FOLDER_FILES = 1_000
LARGE_BYTES = 64 * 2**20
SMALL_BYTES = 4 * 2**10
LARGE_READERS, SMALL_READERS = 2, 8
WRITERS = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; each figure is the median of so many rounds."""

    entries: int = 100_000
    large_files: int = 4
    small_files: int = 2_000
    documents: int = 3_000
    rounds: int = 5


QUICK = Sizes(entries=40_000, large_files=2, small_files=1_000, documents=300)


def run(*, uri: str | None, quick: bool) -> dict[str, Any]:
    """Measure and compare.

    Args:
        uri: a folder of a cluster to work in, ``hdfs://…``; None starts a cluster.
        quick: less of everything.
    """
    sizes = QUICK if quick else Sizes()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        if uri is None:
            from tests.integration.hdfs.minidfs import mini_dfs  # noqa: PLC0415 — only from a clone

            cluster = stack.enter_context(mini_dfs("plain", home / "hdfs"))
            os.environ.update(cluster.environ)
            uri = cluster.uri
        location = locate(f"{uri.rstrip('/')}/sluice-bench-{uuid4().hex[:8]}", HdfsSettings())
        if location.hdfs is None:
            raise ValueError("--uri: give one that the native client opens, hdfs://…")
        client = location.hdfs.native
        lake = _Lake(client, location.path, location.uri)
        try:
            return asyncio.run(_measure(lake, sizes, home))
        finally:
            client.delete(location.path, recursive=True)


async def _measure(lake: _Lake, sizes: Sizes, home: Path) -> dict[str, Any]:
    listing, peak_mb = await _listing(lake, sizes, home)
    large = await _reading(lake, "large", sizes.large_files, LARGE_BYTES, sizes.rounds)
    small = await _reading(lake, "small", sizes.small_files, SMALL_BYTES, sizes.rounds)
    rerun = await _rerun(lake, sizes.documents, home)
    return {
        "read_mb_s": _arms(large, sizes.large_files * LARGE_BYTES / 1e6),
        "small_files_per_s": _arms(small, sizes.small_files),
        "listing_entries_per_s": _arms(listing, sizes.entries),
        "unchanged_rerun_s": rerun["duration_s"],
        "unchanged_rerun": rerun,
        "listing_peak_rss_mb": peak_mb,
        "sizes": {
            "entries": sizes.entries,
            "folder_files": FOLDER_FILES,
            "large_files": [sizes.large_files, LARGE_BYTES],
            "small_files": [sizes.small_files, SMALL_BYTES],
            "readers": {"large": LARGE_READERS, "small": SMALL_READERS},
            "rounds": sizes.rounds,
        },
    }


class _Lake:
    """A folder of the benchmark's own; paths are relative to it."""

    def __init__(self, client: Client, path: str, uri: str) -> None:
        self.client = client
        self.path = path
        self.uri = uri

    def fill(self, names: Iterable[str], content: Callable[[str], bytes]) -> None:
        options = WriteOptions(overwrite=True, create_parent=True)

        def write(name: str) -> None:
            with self.client.create(f"{self.path}/{name}", options) as file:
                if data := content(name):
                    file.write(data)

        with ThreadPoolExecutor(WRITERS) as writers:
            for _ in writers.map(write, names):
                pass


async def _listing(lake: _Lake, sizes: Sizes, home: Path) -> tuple[dict[str, list[float]], int]:
    """Seconds by arm, and the most memory that a process which does only ours takes, in MB."""
    _say(f"listing: {sizes.entries} empty files in folders of {FOLDER_FILES}")
    names = (
        f"listing/part-{number // FOLDER_FILES:05d}/document-{number:07d}.txt"
        for number in range(sizes.entries)
    )
    lake.fill(names, lambda _: b"")
    uri, state = f"{lake.uri}/listing", home / "manifest"
    with ThreadPoolExecutor(2) as executor:
        source = await open_source(uri, HdfsSettings(), executor)
        manifest = await _manifest(source, state, executor)

        async def ours() -> int:
            return await _unchanged(source, manifest)

        async def raw() -> int:
            listed = lake.client.list_status(f"{lake.path}/listing", recursive=True)
            return sum(1 for _ in listed) - len(range(0, sizes.entries, FOLDER_FILES))

        timed = await _in_turns(sizes.rounds, sizes.entries, ours=ours, raw=raw)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        listed, peak_mb = process.submit(_listed_alone, uri, state).result()
    if listed != sizes.entries:
        raise RuntimeError(f"alone it listed {listed} instead of {sizes.entries}")
    return timed, peak_mb


def _listed_alone(uri: str, state: Path) -> tuple[int, int]:
    """Entries found unchanged, and this process's peak in MB."""

    async def listed() -> int:
        with ThreadPoolExecutor(2) as executor:
            source = await open_source(uri, HdfsSettings(), executor)
            manifest = await Manifest.open(_state(state), _key(source), executor)
            return await _unchanged(source, manifest)

    found = asyncio.run(listed())
    # Not getrusage: there the peak of the process that started this one counts too.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return found, int(peak.split()[1]) // 1024


async def _unchanged(source: StorageSource, manifest: Manifest) -> int:
    same = 0
    rows = manifest.rows()
    merged = differences(_admitted(source, Selection()), rows)
    async with aclosing(rows), aclosing(merged) as groups:
        async for group in groups:
            same += sum(item.end - item.begin for item in group if isinstance(item, Same))
    return same


def _state(folder: Path) -> StateFolder:
    return StateFolder.at(locate(str(folder), HdfsSettings()))


def _key(source: StorageSource) -> ManifestKey:
    return ManifestKey("bench", "bench", source.root_uri, 1, "")


async def _manifest(source: StorageSource, state: Path, executor: ThreadPoolExecutor) -> Manifest:
    """One that knows every file as it is."""
    manifest = await Manifest.open(_state(state), _key(source), executor)
    async for batch in source.walk(lambda _: True):
        for entry in batch:
            if isinstance(entry, FileEntry):
                manifest.record(
                    FileRecord(
                        *(entry.path, entry.uri, entry.size, entry.modified_us),
                        outcome=FileOutcome.INDEXED,
                        version=entry.modified_us,
                    )
                )
        if manifest.is_checkpoint_due:
            await manifest.checkpoint()
    await manifest.finish()
    return manifest


async def _admitted(source: StorageSource, selection: Selection) -> AsyncGenerator[FileBatch, None]:
    async with aclosing(source.walk(selection.enters)) as listing:
        async for batch in listing:
            if not isinstance(batch, FileBatch):
                raise RuntimeError("a folder could not be listed")  # noqa: TRY004 — no wrong type
            if selection.admits_all(batch.paths):
                yield batch
                continue
            taken = [selection.admits(path) for path in batch.paths]
            yield FileBatch(
                batch.root_uri,
                list(compress(batch.paths, taken)),
                list(compress(batch.sizes, taken)),
                list(compress(batch.modified_us, taken)),
            )


async def _reading(
    lake: _Lake, folder: str, files: int, size: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds by arm."""
    _say(f"reading: {files} files of {size} bytes")
    readers = LARGE_READERS if size == LARGE_BYTES else SMALL_READERS
    names = [f"{folder}/{number:05d}" for number in range(files)]
    lake.fill(names, lambda _: os.urandom(size))
    with ThreadPoolExecutor(2) as executor, ThreadPoolExecutor(readers) as threads:
        source = await open_source(f"{lake.uri}/{folder}", HdfsSettings(), executor)
        entries = [entry async for batch in source.walk(lambda _: True) for entry in batch]

        async def ours() -> int:
            total = 0
            left = iter(entries)

            async def reader() -> None:
                nonlocal total
                for entry in left:
                    read = await source.read(entry, size) if isinstance(entry, FileEntry) else b""
                    if isinstance(read, Fault):
                        raise RuntimeError(read.message)  # noqa: TRY004 — no wrong type
                    total += len(read)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(readers):
                    tasks.create_task(reader())
            return total

        async def raw() -> int:
            def read(name: str) -> int:
                file = lake.client.read(f"{lake.path}/{name}")
                # The quicker way of either.
                return len(b"".join(file) if size == LARGE_BYTES else file.read())

            return sum(threads.map(read, names))

        return await _in_turns(rounds, files * size, ours=ours, raw=raw)


async def _rerun(lake: _Lake, documents: int, home: Path) -> dict[str, Any]:
    """A second job, each as its user runs it; the embedder is not what is measured."""
    _say(f"rerun: sluice up, and sluice ingest of {documents} documents twice")
    names = [f"documents/{number % 20:02d}/note-{number:05d}.md" for number in range(documents)]
    lake.fill(names, lambda name: f"# {name}\n\nWhat is written in {name} stays there.\n".encode())
    state = (home / "state").as_uri()
    environ = {**os.environ, "SLUICE_INGEST__STATE_URI": state, "SLUICE_EMBEDDING__KIND": "hashing"}
    command = [sys.executable, "-m", "client", "ingest", f"{lake.uri}/documents"]
    summaries = []
    async with local_server(home, environ=environ) as address:
        command += ["--collection", "bench", "--target", address, "--json"]
        for _ in range(2):
            began = time.perf_counter()
            done = await asyncio.to_thread(
                subprocess.run, command, env=environ, capture_output=True, text=True, check=False
            )
            seconds = time.perf_counter() - began
            if done.returncode != 0:
                error = done.stderr[-2000:]
                raise RuntimeError(f"the job ended with status {done.returncode}:\n{error}")
            summaries.append((json.loads(done.stdout), seconds))
    (first, _), (second, command_s) = summaries
    if (first["indexed"], second["unchanged"]) != (documents, documents):
        raise RuntimeError(f"the second job did not find all unchanged: {second}")
    return {
        "documents": documents,
        "duration_s": second["duration_s"],
        "with_start_of_the_program_s": round(command_s, 3),
        "first_run_s": first["duration_s"],
    }


async def _in_turns(
    rounds: int, wanted: int, **arms: Callable[[], Awaitable[int]]
) -> dict[str, list[float]]:
    """Seconds of each arm by round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            began = time.perf_counter()
            done = await arm()
            if done != wanted:
                raise RuntimeError(f"{name} did {done} instead of {wanted}")
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _arms(seconds: dict[str, list[float]], amount: float) -> dict[str, float]:
    rates = {name: amount / statistics.median(runs) for name, runs in seconds.items()}
    of_raw = round(rates["ours"] / rates["raw"], 3)
    return {name: round(rate, 1) for name, rate in rates.items()} | {"ours_of_raw": of_raw}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
