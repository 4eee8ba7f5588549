"""The ingestor's memory: the peaks of a job over few files and many, of large ones, of one huge.

Each arm is a `sluice ingest` of its own, with the settings that it has by default, over a folder
made for it. The index service behind it acknowledges every document and keeps nothing, so what
stands here is the ingestor alone; one arm has a slow service, before which the job fills whatever
it may hold. Peaks are the kernel's, read from /proc while the job runs: on Linux only. Everything
lives in a temporary folder, one arm's files at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from google.protobuf.timestamp_pb2 import Timestamp
from pyarrow import parquet

from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from indexer.settings import IndexerSettings
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    import grpc

LIMIT_MB = 600
SAMPLES = Path(__file__).resolve().parent.parent / "samples"
FOLDER_FILES = 1_000
SMALL_BYTES = 4_000
LARGE_BYTES = 10_000_000
ROW_BYTES = 10_000
ROW_GROUP_ROWS = 12_800  # 128 MB, as Hadoop's writers cut them
# Nearly twice what a job holds of them unacknowledged.
SLOW_FILES, SLOW_MB_S = 24, 30.0
LOOK_EVERY_S = 0.02
JOB_TIMEOUT_S = 900.0
WORDS = b"the name node keeps the block map in memory and the data nodes report to it "
FORMATS = [{"match": "*.parquet", "format": "parquet", "id": "id", "text": ["text"]}]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    small_files: tuple[int, ...] = (2_000, 20_000, 100_000)
    large_files: int = 60
    rows: int = 100_000
    copies: int = 100


QUICK = Sizes(small_files=(2_000, 20_000), rows=20_000, copies=10)


@dataclass(slots=True)
class Peaks:
    """The most resident memory so far, in bytes: of the job's processes, each and all at once."""

    main: int = 0
    worker: int = 0
    sampled_sum: int = 0


@dataclass(frozen=True, slots=True)
class Arm:
    """A folder and what is told of its job; ``unchanged`` names a second one over it."""

    name: str
    fill: Callable[[Path], None]
    unchanged: str | None = None
    index_mb_s: float = float("inf")
    environ: dict[str, str] = field(default_factory=dict)


def run(*, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        quick: fewer small files, a smaller Parquet file, a smaller mix.

    Raises:
        ValueError: this is no Linux, and memory cannot be read as it is done here.
    """
    if sys.platform != "linux":
        raise ValueError("memory is read from /proc: run this benchmark on Linux")
    sizes = QUICK if quick else Sizes()
    small = [
        Arm(f"small_files_{files}", partial(_small, files=files), f"unchanged_rerun_{files}")
        for files in sizes.small_files
    ]
    arms = [
        *small,
        Arm("large_texts", partial(_large, files=sizes.large_files)),
        Arm(
            "large_texts_slow_index",
            partial(_large, files=SLOW_FILES),
            index_mb_s=SLOW_MB_S,
        ),
        Arm(
            "parquet",
            partial(_parquet, rows=sizes.rows),
            environ={"SLUICE_INGEST__FORMATS": json.dumps(FORMATS)},
        ),
        Arm("mix", partial(_mix, copies=sizes.copies)),
    ]
    figures = asyncio.run(_measure(arms))
    fewer, most = (figures[arm.name]["peak_mb"] for arm in small[-2:])
    return {
        "limit_mb": LIMIT_MB,
        "arms": figures,
        "growth_mb": round(most - fewer, 1),
        "within_limit": all(arm["peak_mb"] <= LIMIT_MB for arm in figures.values()),
    }


async def _measure(arms: Sequence[Arm]) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
    for arm in arms:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            home = Path(folder)
            await asyncio.to_thread(arm.fill, home / "lake")
            async with GrpcServer.open(settings, _bindings(arm.index_mb_s)) as server:
                for name in filter(None, (arm.name, arm.unchanged)):
                    job = asyncio.to_thread(_job, arm, name, home, server.address)
                    figures[name] = await job
    return figures


def _job(arm: Arm, name: str, home: Path, target: str) -> dict[str, Any]:
    """One job as its user runs it, watched to its end."""
    root = home / "lake"
    sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
    mb = sum(sizes) / 1e6
    _say(f"{name}: {len(sizes)} files, {mb:.0f} MB")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    environ |= {"SLUICE_INGEST__STATE_URI": (home / "state").as_uri(), **arm.environ}
    command = [sys.executable, "-m", "client", "ingest", str(root), "--collection", "bench"]
    command += ["--target", target, "--json", "--quiet"]
    out, errors = home / "out", home / "errors"
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        began = time.perf_counter()
        with subprocess.Popen(  # noqa: S603 — our own program
            command, env=environ, stdout=stdout, stderr=stderr
        ) as process:
            peaks = _watch(process)
        seconds = time.perf_counter() - began
    if process.returncode != 0:
        error = errors.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"the job ended with status {process.returncode}:\n{error}")
    summary = json.loads(out.read_bytes())
    known = summary["unchanged"] if name == arm.unchanged else summary["files_opened"]
    if known != len(sizes):
        raise RuntimeError(f"{name}: not every file was taken: {summary}")
    return {
        "files": len(sizes),
        "documents": summary["documents"],
        "mb": round(mb, 1),
        "peak_mb": round(peaks.main / 1e6, 1),
        "largest_worker_mb": round(peaks.worker / 1e6, 1),
        "sampled_sum_mb": round(peaks.sampled_sum / 1e6, 1),
        "seconds": round(seconds, 2),
    }


def _watch(process: subprocess.Popen[bytes]) -> Peaks:
    """Look at a process and its children until it ends.

    Pages that they share count in the sum once for each of them.
    """
    peaks = Peaks()
    latest = time.monotonic() + JOB_TIMEOUT_S
    while process.poll() is None:
        if time.monotonic() > latest:
            process.kill()
            raise RuntimeError(f"the job did not end within {JOB_TIMEOUT_S:.0f} s")
        _look(process.pid, peaks)
        time.sleep(LOOK_EVERY_S)
    return peaks


def _look(pid: int, peaks: Peaks) -> None:
    main = _status(pid)
    if main is None:
        return
    total = main["VmRSS"]
    peaks.main = max(peaks.main, main["VmHWM"])
    program = _program(pid)
    for child in _children(pid):
        worker = _status(child)
        # Until it runs its own program a child is its parent over again.
        if worker is None or _program(child) == program:
            continue
        total += worker["VmRSS"]
        peaks.worker = max(peaks.worker, worker["VmHWM"])
    peaks.sampled_sum = max(peaks.sampled_sum, total)


def _children(pid: int) -> list[int]:
    """Those that any thread of it started."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    except OSError:  # it, or the thread, ended just now
        pass
    return found


def _program(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _status(pid: int) -> dict[str, int] | None:
    """VmRSS and VmHWM, the most it ever was, in bytes; None of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))
    if len(fields) < 2:  # noqa: PLR2004 — a zombie has neither
        return None
    return {name: int(value.split()[0]) * 1024 for name, value in fields.items()}


def _small(root: Path, files: int) -> None:
    for number in range(files):
        folder = root / f"{number // FOLDER_FILES:04d}"
        if number % FOLDER_FILES == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:06d}.txt").write_bytes(_text(number, SMALL_BYTES))


def _large(root: Path, files: int) -> None:
    """An emoji makes every character of a Python text four bytes."""
    root.mkdir()
    for number in range(files):
        (root / f"{number:03d}.txt").write_bytes("😀 ".encode() + _text(number, LARGE_BYTES))


def _parquet(root: Path, rows: int) -> None:
    root.mkdir()
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    plain = {"compression": "none", "use_dictionary": False}
    with parquet.ParquetWriter(root / "rows.parquet", schema, **plain) as file:
        for start in range(0, rows, ROW_GROUP_ROWS):
            numbers = range(start, min(start + ROW_GROUP_ROWS, rows))
            columns = {
                "id": [f"row-{number}" for number in numbers],
                "text": [_text(number, ROW_BYTES).decode() for number in numbers],
            }
            file.write_table(pa.table(columns, schema), row_group_size=ROW_GROUP_ROWS)


def _mix(root: Path, copies: int) -> None:
    """The samples, PDF and office documents among them, beside small texts and large ones."""
    for number in range(copies):
        shutil.copytree(SAMPLES, root / "samples" / f"{number:03d}")
    _small(root / "small", copies * 20)
    _large(root / "large", max(4, copies // 10))


def _text(number: int, size: int) -> bytes:
    """No two alike."""
    head = f"Note {number}. ".encode()
    return (head + WORDS * (size // len(WORDS) + 1))[:size]


class _Index(index_pb2_grpc.IndexServiceServicer):
    """Acknowledges so many MB/s of documents, which it does not keep."""

    def __init__(self, mb_s: float) -> None:
        self._byte_s = 1 / (mb_s * 1e6)

    async def IndexDocuments(  # noqa: N802 — named by the contract
        self,
        request_iterator: AsyncIterator[index_pb2.IndexDocumentsRequest],
        context: grpc.aio.ServicerContext[
            index_pb2.IndexDocumentsRequest, index_pb2.IndexDocumentsResponse
        ],
    ) -> AsyncGenerator[index_pb2.IndexDocumentsResponse]:
        del context
        limits = IndexerSettings()
        async for request in request_iterator:
            if request.HasField("opening"):
                opened = index_pb2.StreamOpened(
                    index_version=1,
                    max_batch_documents=limits.max_batch_documents,
                    max_batch_bytes=limits.max_batch_bytes,
                    max_document_bytes=limits.max_document_bytes,
                )
                yield index_pb2.IndexDocumentsResponse(opened=opened)
                continue
            if self._byte_s:
                await asyncio.sleep(request.ByteSize() * self._byte_s)
            response = index_pb2.IndexDocumentsResponse()
            for document in request.batch.documents:
                response.acknowledgements.acknowledgements.add(
                    document_id=document.document_id,
                    version=document.version,
                    outcome=index_pb2.OUTCOME_INDEXED,
                    chunk_count=1,
                )
            yield response

    async def ListDocuments(  # noqa: N802 — named by the contract
        self,
        request: index_pb2.ListDocumentsRequest,
        context: grpc.aio.ServicerContext[
            index_pb2.ListDocumentsRequest, index_pb2.ListDocumentsResponse
        ],
    ) -> AsyncGenerator[index_pb2.ListDocumentsResponse]:
        del request, context
        for response in list[index_pb2.ListDocumentsResponse]():
            yield response


class _Collections(collections_pb2_grpc.CollectionsServiceServicer):
    """Has every collection, in its first version."""

    async def CreateCollection(  # noqa: N802 — named by the contract
        self,
        request: collections_pb2.CreateCollectionRequest,
        context: grpc.aio.ServicerContext[
            collections_pb2.CreateCollectionRequest, collections_pb2.CreateCollectionResponse
        ],
    ) -> collections_pb2.CreateCollectionResponse:
        del context
        collection = collections_pb2.Collection(tenant=request.tenant, name=request.collection)
        collection.active.version = 1
        collection.versions.add(number=1, created_at=Timestamp(seconds=1))
        return collections_pb2.CreateCollectionResponse(collection=collection)


def _bindings(index_mb_s: float) -> list[ServiceBinding]:
    """A job that writes one version for the first time asks for no more than is answered here."""
    index = _Index(index_mb_s)  # type: ignore[abstract]  # as said
    collections = _Collections()  # type: ignore[abstract]  # as said
    return [
        ServiceBinding(
            "sluice.index.v1.IndexService",
            lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(index, server),
        ),
        ServiceBinding(
            "sluice.collections.v1.CollectionsService",
            lambda server: collections_pb2_grpc.add_CollectionsServiceServicer_to_server(
                collections, server
            ),
        ),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
