"""Sources: where files come from, listed in a stable order, and read whole or at any place.

A listing streams, and its order is that of the paths' components, so that it can be merged with a
manifest in the same order. A folder that cannot be listed is an item of the listing, not the end of
it. A storage that is out of reach is waited for within a bound; then the job ends with Unavailable,
whatever it was doing: an outage is never the fault of a file. Nothing is ever written.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

import pyarrow as pa

from common.errors import FailedPrecondition, NotFound, SluiceError, Unavailable
from ingestor.faults import Cause, Fault, FaultStage, os_fault
from ingestor.storage.daemon_threads import DaemonThreads
from ingestor.storage.filesystems import locate
from ingestor.storage.hdfs_errors import BlockError
from ingestor.storage.listing import MAX_BATCH, Batch, FileBatch, FileEntry, ListingFault, order
from ingestor.storage.outage import Outage, refused_s
from ingestor.storage.storage_calls import LocalCalls, RemoteCalls
from ingestor.storage.walk import walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from concurrent.futures import Executor

    from ingestor.settings import HdfsSettings
    from ingestor.storage.storage_calls import StorageCalls
    from ingestor.storage.storages import Storage, StoredFile

__all__ = [
    "MAX_BATCH",
    "Batch",
    "FileBatch",
    "FileEntry",
    "ListingFault",
    "OpenFile",
    "Source",
    "StorageSource",
    "open_source",
    "order",
]

T = TypeVar("T")

MAX_CALLS = 64
# A block that no data node gives is asked for so often at least. The file is at fault itself if any
# other was read meanwhile; else that is waited for.
_BLOCK_ATTEMPTS = 3
# A job that has done nothing yet says soon that it cannot.
_TIMEOUT_AT_START_S = 10.0
_OUTAGE_AT_START_S = 5.0
_REFUSED_AT_START_S = 1.0


class Source(Protocol):
    """A root and the files under it."""

    @property
    def root_uri(self) -> str:
        """Canonical URI; a folder's ends with a slash."""

    def walk(self, enters: Callable[[str], bool]) -> AsyncGenerator[Batch, None]:
        """Walk the folders that ``enters`` admits, ascending by ``order(path)`` over all batches.

        ``enters`` may be called on another thread. One batch is fetched ahead.

        Raises:
            FailedPrecondition: the root cannot be listed, or a folder only in part.
            Unavailable: the storage is out of reach; FailedPrecondition: it no longer accepts this
                job. So do the other methods.
        """

    async def stat(self, path: str) -> FileEntry | Fault | None:
        """The file as it is now; None if there is none, a fault if nobody can tell."""

    async def read(self, entry: FileEntry, max_bytes: int) -> bytes | Fault:
        """The whole content, or why not; ``Cause.GONE`` if it vanished since it was listed."""

    async def open(self, entry: FileEntry) -> OpenFile | Fault:
        """Open a file for reading at any place; ``Cause.GONE`` as in ``read``."""


class OpenFile(Protocol):
    """A file that is read at any place; safe from one task at a time."""

    @property
    def size(self) -> int:
        """Bytes, as it was when it was opened."""

    async def read_at(self, offset: int, length: int) -> bytes | Fault:
        """The bytes there; fewer only at the end of the file."""

    async def aclose(self) -> None:
        """Close it."""


class StorageSource:
    """The files of a ``Storage``, called through ``StorageCalls``.

    Data nodes may be away for ``outage_s``.
    """

    def __init__(self, storage: Storage, calls: StorageCalls, outage_s: float) -> None:
        self._storage = storage
        self._calls = calls
        self._outage_s = outage_s
        self._reads = 0
        self._broken = 0  # files since the last read that went well

    @property
    def root_uri(self) -> str:
        """See ``Source``."""
        return self._storage.root_uri

    async def walk(self, enters: Callable[[str], bool]) -> AsyncGenerator[Batch, None]:
        """See ``Source``."""
        if self._storage.file_name is not None:
            entry = await self.stat(self._storage.file_name)
            if isinstance(entry, Fault):
                yield [ListingFault(self._storage.file_name, self.root_uri, entry)]
            elif entry is not None:
                yield [entry]
            return
        listing = _Listing(self._storage, enters)
        ahead = asyncio.ensure_future(self._next_batch(listing))
        try:
            while (batch := await ahead) is not None:
                ahead = asyncio.ensure_future(self._next_batch(listing))
                await asyncio.sleep(0)  # so that it begins before this one is worked on
                if batch:
                    yield batch
        finally:
            ahead.cancel()
            with suppress(asyncio.CancelledError, SluiceError):
                await ahead

    async def stat(self, path: str) -> FileEntry | Fault | None:
        """See ``Source``."""
        return await self.tried(lambda: self._storage.stat(path))

    async def read(self, entry: FileEntry, max_bytes: int) -> bytes | Fault:
        """See ``Source``."""
        read = await self.tried(
            lambda: self._storage.read(entry.path, max_bytes), is_read=entry.size > 0
        )
        if read is None:
            return Fault(FaultStage.READ, Cause.TOO_LARGE, f"over {max_bytes} bytes")
        if isinstance(read, bytes) and (cut := await self._cut(entry, len(read))) is not None:
            return cut
        return read

    async def open(self, entry: FileEntry) -> OpenFile | Fault:
        """See ``Source``."""
        file = await self.tried(lambda: self._storage.open(entry.path))
        if isinstance(file, Fault):
            return file
        if (cut := await self._cut(entry, file.size)) is not None:
            await self.tried(file.close)
            return cut
        return _SourceFile(self, self._storage, entry.path, file)

    async def _cut(self, entry: FileEntry, size: int) -> Fault | None:
        """Why less than what was listed can be read, unless the file itself has become smaller.

        hdfs-native does not see the last block of a file that is being appended to.
        """
        if size >= entry.size:
            return None
        now = await self.stat(entry.path)
        if not isinstance(now, FileEntry) or now.size <= size:
            return now if isinstance(now, Fault) else None
        message = f"it is being written: {size} of {now.size} bytes can be read"
        return Fault(FaultStage.READ, Cause.UNREADABLE, message)

    async def tried(self, function: Callable[[], T], *, is_read: bool = False) -> T | Fault:
        """Call for one file; a fault if it is the file that cannot be read.

        Args:
            function: the call.
            is_read: whether it asks a data node, as only reads do.
        """
        outage = Outage(self._outage_s)
        reads, attempts = self._reads, 0
        while True:
            try:
                result = await self._calls.call(self._storage, function)
            except BlockError as error:
                attempts += 1
                self._broken += attempts == 1
                delay_s = outage.delay_s()
                # Others are read meanwhile: then it is this file.
                is_alone = attempts >= _BLOCK_ATTEMPTS and self._reads > reads
                if delay_s is not None and not is_alone:
                    await asyncio.sleep(delay_s)
                    continue
                if not is_alone and self._broken > 1:
                    raise Unavailable(
                        f"{self.root_uri}: no data node gave a block for {self._outage_s:g} s"
                        f" ({error.strerror}): run the job again when the storage is well"
                    ) from None
                return os_fault(FaultStage.READ, error)
            except (OSError, pa.ArrowException) as error:
                return os_fault(FaultStage.READ, error)
            if is_read:
                self._reads, self._broken = self._reads + 1, 0
            return result

    async def _next_batch(self, listing: _Listing) -> Batch | None:
        def fetch() -> tuple[Iterator[Batch], Batch | None]:
            batches = listing.take()
            return batches, next(batches, None)

        batches, batch = await self._calls.call(self._storage, fetch)
        listing.put_back(batches, batch)
        return batch


class _Listing:
    """A walk that begins again behind the last batch it gave, if it failed."""

    def __init__(self, storage: Storage, enters: Callable[[str], bool]) -> None:
        self._storage = storage
        self._enters = enters
        self._after: str | None = None
        self._batches: Iterator[Batch] | None = None

    def take(self) -> Iterator[Batch]:
        """The walk, which goes on only once it was put back."""
        batches, self._batches = self._batches, None
        return batches or walk(self._storage, self._enters, self._after)

    def put_back(self, batches: Iterator[Batch], batch: Batch | None) -> None:
        """The walk has given this batch."""
        self._batches = batches
        if batch:
            self._after = batch.paths[-1] if isinstance(batch, FileBatch) else batch[-1].path


class _SourceFile:
    """See ``OpenFile``."""

    def __init__(
        self, source: StorageSource, storage: Storage, path: str, file: StoredFile
    ) -> None:
        self._source = source
        self._storage = storage
        self._path = path
        self._file = file
        self._generation = storage.generation
        self._is_stale = False
        self.size = file.size

    async def read_at(self, offset: int, length: int) -> bytes | Fault:
        return await self._source.tried(lambda: self._read_at(offset, length), is_read=True)

    async def aclose(self) -> None:
        await self._source.tried(self._file.close)

    def _read_at(self, offset: int, length: int) -> bytes:
        if self._is_stale or self._generation != self._storage.generation:
            # Where its blocks are may have changed, or the client was left behind.
            self._generation = self._storage.generation
            self._file = self._storage.open(self._path)
            self._is_stale = False
        try:
            return self._file.read_at(offset, length)
        except OSError:
            self._is_stale = True
            raise


async def open_source(uri: str, hdfs: HdfsSettings, executor: Executor) -> StorageSource:
    """Open a root.

    Args:
        uri: of a folder or a single file, or a local path.
        hdfs: how HDFS is opened; its bounds hold for every storage that is not local.
        executor: runs the calls to local files; others have threads of their own, which may hang.

    Raises:
        NotFound: nothing is there.
        FailedPrecondition: it cannot be opened, or is neither a file nor a folder; or the storage
            does not accept this job.
        Unavailable: the storage is out of reach.
        SluiceError: as ``filesystems.locate``.
    """
    location = await asyncio.get_running_loop().run_in_executor(executor, locate, uri, hdfs)
    calls: StorageCalls
    at_start: StorageCalls
    if location.is_local:
        calls = at_start = LocalCalls(executor)
    else:
        threads = DaemonThreads(MAX_CALLS)
        calls = RemoteCalls(
            threads,
            timeout_s=hdfs.timeout_s,
            outage_s=hdfs.outage_s,
            refused_s=refused_s(hdfs),
        )
        at_start = RemoteCalls(
            threads,
            timeout_s=min(hdfs.timeout_s, _TIMEOUT_AT_START_S),
            outage_s=min(hdfs.outage_s, _OUTAGE_AT_START_S),
            refused_s=_REFUSED_AT_START_S,
        )
    storage = location.storage()
    try:
        await at_start.call(storage, storage.open_root)
    except (OSError, pa.ArrowException) as error:
        fault = os_fault(FaultStage.LIST, error)
        if fault.cause == Cause.GONE:
            raise NotFound(f"{location.uri}: there is no such file or folder") from None
        raise FailedPrecondition(f"{location.uri} cannot be opened: {fault.message}") from None
    return StorageSource(storage, calls, hdfs.outage_s)
