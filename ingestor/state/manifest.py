"""The manifest: what is known of each file of one source root in one index version.

A folder of its own for each (tenant, collection, root, index version) holds

    manifest.parquet          one row a file, ascending by ``listing.order`` of the path
    segment-<n>.parquet       rows recorded since, each replacing an earlier row of its path
    running                   there while a job runs: put before anything is sent, taken away after
                              the segments were merged into the manifest

so that a killed job loses at most what it recorded since its last checkpoint. The manifest saves
reading and never decides what is right: if it is missing, unreadable, left by a job that did not
end, or describes another index than the one at hand, it says so (``doubtful``), and the job asks
the index. Dead letters are rows of it, so they can never disagree. Rows stream in batches; the
memory needed does not grow with the number of files.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import pyarrow as pa
from pyarrow import parquet

from common.errors import FailedPrecondition
from ingestor.state.rows import BATCH_ROWS, SCHEMA, Rows, merged, to_batch
from ingestor.storage.listing import order
from ingestor.storage.outage import is_passing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
    from concurrent.futures import Executor

    from ingestor.state.file_records import FileRecord
    from ingestor.state.state_folder import StateFolder

logger = logging.getLogger(__name__)

T = TypeVar("T")

MANIFEST = "manifest.parquet"
RUNNING = "running"
_SEGMENT = "segment-"
# Each is open while they are merged.
_MAX_SEGMENTS = 16
MAX_BUFFERED = 5_000


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """What a manifest describes.

    ``index_created_at`` tells apart two indexes that bear the same number: a collection deleted and
    made again, or another cluster.
    """

    tenant: str
    collection: str
    root_uri: str
    index_version: int
    index_created_at: str

    def folder(self, state: StateFolder) -> StateFolder:
        """Where it lives."""
        return root_folder(state, self.tenant, self.collection, self.root_uri).folder(
            version_folder_name(self.index_version)
        )


def root_folder(state: StateFolder, tenant: str, collection: str, root_uri: str) -> StateFolder:
    """The folder of one root; beneath it is one folder for each index version."""
    digest = hashlib.blake2b(root_uri.encode(), digest_size=16).hexdigest()
    return state.folder(tenant, collection, digest)


def version_folder_name(version: int) -> str:
    """Name of the folder of one index version beneath its root's."""
    return f"v{version:06d}"


class Manifest:
    """One manifest while a job works on it; ``doubtful`` if the index must be asked too."""

    def __init__(
        self, folder: StateFolder, key: ManifestKey, executor: Executor, *, doubtful: bool
    ) -> None:
        self._folder = folder
        self._metadata = {name.encode(): str(value).encode() for name, value in asdict(key).items()}
        self._executor = executor
        self._buffer: list[FileRecord] = []
        self._segments = 0
        self._numbered = 0
        self._abandoned = False
        self._checkpointing = asyncio.Lock()
        self._marking = asyncio.Lock()
        self._running = False
        self.key = key
        self.doubtful = doubtful

    @classmethod
    async def open(cls, state: StateFolder, key: ManifestKey, executor: Executor) -> Manifest:
        """Open it, with what a killed job left merged in."""

        def prepare() -> Manifest:
            folder = key.folder(state)
            folder.delete_unfinished()
            names = folder.names()
            found = [name for name in names if name == MANIFEST or name.startswith(_SEGMENT)]
            if not all(_describes(folder, name, key) for name in found):
                logger.warning("the manifest describes another index or is unreadable")
                for name in names:  # not the folder: it is locked
                    folder.delete(name)
                return cls(folder, key, executor, doubtful=True)
            doubtful = RUNNING in names or MANIFEST not in names
            manifest = cls(folder, key, executor, doubtful=doubtful)
            if doubtful:  # and is until a job comes to its end, whatever the merge leaves here
                manifest._running = True
                manifest._mark()
            manifest._merge()
            return manifest

        try:
            return await asyncio.get_running_loop().run_in_executor(executor, prepare)
        except OSError as error:
            raise unusable_state(error) from None

    @staticmethod
    def is_settled(folder: StateFolder) -> bool:
        """Whether no job is at work in this folder, nor was killed there. Blocks."""
        return RUNNING not in folder.names()

    async def rows(self) -> AsyncGenerator[Rows, None]:
        """Rows as they stood when the manifest was opened or last merged, ascending, in batches.

        One batch is read ahead.
        """
        opened = await self._blocking(self._open_batches)
        if opened is None:
            return
        with opened:
            ahead = asyncio.ensure_future(self._blocking(opened.rows))
            try:
                while (rows := await ahead) is not None:
                    ahead = asyncio.ensure_future(self._blocking(opened.rows))
                    yield rows
            finally:
                await asyncio.gather(ahead, return_exceptions=True)  # it reads the file

    async def begin(self) -> None:
        """Put the mark of a running job; to be called before anything is sent."""
        if self._running:
            return
        async with self._marking:  # nobody sends before the mark is there
            if not self._running:
                await self._blocking(self._mark)
                self._running = True

    def record(self, record: FileRecord) -> None:
        """Remember what became of a file; durable after the next checkpoint."""
        self._buffer.append(record)

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether so much is remembered that it should be written."""
        return len(self._buffer) >= MAX_BUFFERED

    async def checkpoint(self) -> None:
        """Make what was recorded durable."""
        async with self._checkpointing:
            records, self._buffer = self._buffer, []
            if not records or self._abandoned:
                return
            latest = {record.path: record for record in records}
            ascending = sorted(latest.values(), key=lambda record: order(record.path))
            if self._segments == _MAX_SEGMENTS:
                await self._blocking(self._merge_segments)
                self._segments = 1
            self._numbered += 1
            self._segments += 1
            name = f"{_SEGMENT}{self._numbered:06d}.parquet"
            await self._blocking(self._write, name, [to_batch(ascending)])

    def abandon(self) -> None:
        """Write nothing any more: another job may be at it."""
        self._abandoned = True

    async def merge(self) -> None:
        """Merge what was recorded into the manifest; the mark of a running job stays."""
        await self.checkpoint()
        await self._blocking(self._merge)

    async def finish(self) -> None:
        """Merge and take the mark away: the manifest now tells all there is to know."""
        await self.merge()
        if self.doubtful:
            await self._blocking(self._write_if_missing)
        if self._running:
            await self._blocking(self._folder.delete, RUNNING)
            self._running = False
        self.doubtful = False

    def _mark(self) -> None:
        with self._folder.replacing(RUNNING) as sink:
            sink.write(b"a job is running, or was killed\n")

    def _write_if_missing(self) -> None:
        if MANIFEST not in self._folder.names():
            self._write(MANIFEST, [])

    def _write(self, name: str, batches: Iterable[pa.RecordBatch]) -> None:
        schema = SCHEMA.with_metadata(self._metadata)
        with (
            self._folder.replacing(name) as sink,
            parquet.ParquetWriter(sink, schema, compression="zstd") as writer,
        ):
            for batch in batches:
                writer.write_batch(batch, row_group_size=BATCH_ROWS)

    def _merge(self) -> None:
        """Merge manifest and segments, newest row first; a crash on the way repeats it."""
        segments = [name for name in self._folder.names() if name.startswith(_SEGMENT)]
        if not segments:
            return
        with _opened(self._folder, [MANIFEST, *segments]) as streams:
            self._write(MANIFEST, merged(streams))
        # Oldest first: one that is left by a crash must not hide a newer one.
        for name in segments:
            self._folder.delete(name)
        self._segments = self._numbered = 0

    def _merge_segments(self) -> None:
        """Merge the segments into the newest of them; a crash on the way loses nothing."""
        segments = [name for name in self._folder.names() if name.startswith(_SEGMENT)]
        with _opened(self._folder, segments) as streams:
            self._write(segments[-1], merged(streams, keep_removed=True))
        for name in segments[:-1]:
            self._folder.delete(name)

    def _open_batches(self) -> _Stored | None:
        try:
            return _Stored(self._folder.open_input(MANIFEST))
        except FileNotFoundError:
            return None

    async def _blocking(self, function: Callable[..., T], *arguments: object) -> T:
        if self._abandoned:
            raise FailedPrecondition("the manifest was left to another job; start this one again")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, function, *arguments)
        except OSError as error:
            raise unusable_state(error) from None


@asynccontextmanager
async def only_job(state: StateFolder, key: ManifestKey, executor: Executor) -> AsyncIterator[None]:
    """Keep other jobs from the manifest: two would overwrite each other's rows.

    FailedPrecondition if another job is at it.
    """
    with ExitStack() as stack:
        lock = key.folder(state).locked()
        try:
            await asyncio.get_running_loop().run_in_executor(executor, stack.enter_context, lock)
        except BlockingIOError:
            raise FailedPrecondition(
                f"another job over {key.root_uri} is running: wait for its end"
            ) from None
        except OSError as error:
            raise unusable_state(error) from None
        yield


def unusable_state(error: OSError) -> FailedPrecondition:
    """The error of a state folder that cannot be read or written."""
    reason = error.strerror or str(error).partition("\n")[0]
    return FailedPrecondition(f"ingest.state_uri: the state cannot be read or written: {reason}")


class _Stored:
    """The rows of one Parquet file, some thousand at a time."""

    def __init__(self, source: object) -> None:
        self._file = parquet.ParquetFile(source)
        self._batches: Iterator[pa.RecordBatch] = self._file.iter_batches(batch_size=BATCH_ROWS)

    def rows(self) -> Rows | None:
        batch = next(self._batches, None)
        return None if batch is None else Rows(batch)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close(force=True)


@contextmanager
def _opened(folder: StateFolder, names: Iterable[str]) -> Iterator[list[_Stored]]:
    """The files of these that there are, last name first: the newest segment first."""
    with ExitStack() as stack:
        there = folder.names().keys()
        yield [
            stack.enter_context(_Stored(folder.open_input(name)))
            for name in sorted(there & set(names), reverse=True)
        ]


def read_rows(folder: StateFolder) -> Iterator[Rows]:
    """Rows of a manifest for reading only, segments included, ascending by path.

    Blocks. Nothing if there is none.
    """
    found = [name for name in folder.names() if name == MANIFEST or name.startswith(_SEGMENT)]
    with _opened(folder, found) as streams:
        for batch in merged(streams):
            yield Rows(batch)


def read_key(folder: StateFolder) -> ManifestKey | None:
    """What the manifest in this folder describes; None without a readable one. Blocks."""
    for name in folder.names():
        if name == MANIFEST or name.startswith(_SEGMENT):
            return _key(folder, name)
    return None


def version_keys(
    state: StateFolder, tenant: str, collection: str, version: int
) -> Iterator[ManifestKey]:
    """The manifests of an index version, one a root; another index may have its number. Blocks."""
    roots = state.folder(tenant, collection)
    for root in roots.names():
        key = read_key(roots.folder(root, version_folder_name(version)))
        if key is not None:
            yield key


def _key(folder: StateFolder, name: str) -> ManifestKey | None:
    try:
        with folder.open_input(name) as source:
            stored = parquet.read_schema(source)
        texts = {key.decode(): value.decode() for key, value in (stored.metadata or {}).items()}
        if not stored.equals(SCHEMA):
            return None
        return ManifestKey(
            texts["tenant"],
            texts["collection"],
            texts["root_uri"],
            int(texts["index_version"]),
            texts["index_created_at"],
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        # The storage's own failures have a number, what is wrong within a file has none.
        if error.errno is not None or is_passing(error):
            raise
        return None
    except (pa.ArrowException, KeyError, ValueError):
        return None


def _describes(folder: StateFolder, name: str, key: ManifestKey) -> bool:
    return _key(folder, name) == key
