"""The walk over a storage: depth first, in the storage's own order, a batch at a time.

It descends where it meets a folder, so that the order is that of the paths' components and no more
than one chunk of each folder on the way is in memory. It blocks, and can begin again after any path
that it yielded. Links to folders are the storage's to leave out, which rules out loops.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa

from common.errors import FailedPrecondition
from ingestor.faults import Cause, FaultStage, os_fault
from ingestor.storage.listing import MAX_BATCH, FileBatch, ListingFault
from ingestor.storage.outage import is_passing
from ingestor.storage.storages import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ingestor.storage.listing import Batch
    from ingestor.storage.storages import Storage

# A batch this full is not held back until it is full, nor one that the storage is slow to fill.
_ENOUGH = MAX_BATCH // 2
_LINGER_S = 1.0
# Folders whose listing is on its way while the one before them is walked.
_FOLDERS_AHEAD = 2


def walk(
    storage: Storage, enters: Callable[[str], bool], after: str | None = None
) -> Iterator[Batch]:
    """Walk the folders that ``enters`` admits, from behind a path that was yielded before.

    A batch may be empty: then the next one takes its time.

    Raises:
        FailedPrecondition: the root cannot be listed, or a folder only in part.
        OSError: the storage is out of reach (``outage.is_passing``).
    """
    if not enters(""):
        return
    files = FileBatch(storage.root_uri, [], [], [])
    began = time.monotonic()
    for found in _found(storage, enters, after):
        if isinstance(found, ListingFault):
            if files:
                yield files
            yield [found]
            files = FileBatch(storage.root_uri, [], [], [])
        elif not files:
            files = found
        elif len(files) + len(found) > MAX_BATCH:
            yield files
            files = found
        else:
            files.paths += found.paths
            files.sizes += found.sizes
            files.modified_us += found.modified_us
        if len(files) >= _ENOUGH or time.monotonic() - began > _LINGER_S:
            yield files
            files = FileBatch(storage.root_uri, [], [], [])
            began = time.monotonic()
    if files:
        yield files


def _found(
    storage: Storage, enters: Callable[[str], bool], after: str | None
) -> Iterator[FileBatch | ListingFault]:
    """Files and faults in order; an empty batch where a folder ends."""
    # Of each folder on the way to ``after`` the child at which to begin.
    begins: dict[str, str] = {}
    child = after or ""
    while child:
        parent = child.rpartition("/")[0]
        begins[parent] = child
        child = parent
    root = _Folder("", storage.chunks(""))
    walking: list[Iterator[FileBatch | ListingFault | _Folder]] = [iter([root])]
    while walking:
        found = next(walking[-1], None)
        if found is None:
            walking.pop()
            yield FileBatch(storage.root_uri, [], [], [])
        elif isinstance(found, _Folder):
            begin = begins.get(found.path)
            walking.append(_children(storage, enters, found, begin, is_last=begin == after))
        else:
            yield found


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    chunks: Iterator[Chunk]


def _children(
    storage: Storage,
    enters: Callable[[str], bool],
    folder: _Folder,
    begin: str | None,
    *,
    is_last: bool,
) -> Iterator[FileBatch | ListingFault | _Folder]:
    """What is in a folder, from the child ``begin`` on, or behind it if that was the last."""
    for chunk in _ordered(storage, folder, partly=begin is not None):
        if isinstance(chunk, ListingFault):
            yield chunk
            return
        start = 0
        if begin is not None:
            start = bisect_left(chunk.paths, begin)
            if start == len(chunk.paths):
                continue
            is_there = chunk.paths[start] == begin
            if is_there and (is_last or (start, None) not in chunk.others):
                start += 1
            begin = None
        folders = _begun(storage, enters, chunk, start)
        for place, fault in chunk.others:
            if place < start:
                continue
            yield from _files(storage, chunk, start, place)
            start = place + 1
            if fault is not None:
                yield fault
            elif enters(chunk.paths[place]):
                yield next(folders)
        yield from _files(storage, chunk, start, len(chunk.paths))


def _begun(
    storage: Storage, enters: Callable[[str], bool], chunk: Chunk, start: int
) -> Iterator[_Folder]:
    """The chunk's folders that are entered; each is asked for while the one before is walked."""
    ahead: deque[_Folder] = deque()
    for place, fault in chunk.others:
        path = chunk.paths[place]
        if place >= start and fault is None and enters(path):
            ahead.append(_Folder(path, storage.chunks(path)))
            if len(ahead) > _FOLDERS_AHEAD:
                yield ahead.popleft()
    yield from ahead


def _files(storage: Storage, chunk: Chunk, start: int, end: int) -> Iterator[FileBatch]:
    if start == 0 and end == len(chunk.paths):  # also of a chunk of nothing
        yield FileBatch(storage.root_uri, chunk.paths, chunk.sizes, chunk.modified_us)
    elif start < end:
        part = slice(start, end)
        sizes, modified_us = chunk.sizes[part], chunk.modified_us[part]
        yield FileBatch(storage.root_uri, chunk.paths[part], sizes, modified_us)


def _ordered(storage: Storage, folder: _Folder, *, partly: bool) -> Iterator[Chunk | ListingFault]:
    """The folder's chunks, ascending; why not, if it cannot be listed.

    ``partly`` if some of it was yielded before.
    """
    uri = storage.root_uri + quote(folder.path)
    last = ""
    try:
        for chunk in folder.chunks:
            if not chunk.paths:
                yield chunk
                continue
            if chunk.paths[0] < last or chunk.paths != sorted(chunk.paths):
                if partly:
                    raise FailedPrecondition(
                        f"{uri}: the storage lists a large folder out of order: split it"
                    )
                yield from _sorted([chunk, *folder.chunks])
                return
            last, partly = chunk.paths[-1], True
            yield chunk
    except (OSError, pa.ArrowException) as error:
        if is_passing(error):
            raise
        fault = os_fault(FaultStage.LIST, error)
        if not folder.path:
            raise FailedPrecondition(f"{uri} cannot be listed: {fault.message}") from None
        if fault.cause == Cause.GONE:
            return
        if partly:
            raise FailedPrecondition(
                f"{uri} could be listed only in part: {fault.message}: run the job again"
            ) from None
        yield ListingFault(folder.path, uri, fault, may_be_folder=True)


def _sorted(chunks: list[Chunk]) -> Iterator[Chunk]:
    """All of a folder in one order, where the storage's own is none."""
    rows = []
    for chunk in chunks:
        others = dict(chunk.others)
        columns = zip(chunk.paths, chunk.sizes, chunk.modified_us, strict=True)
        for place, row in enumerate(columns):
            rows.append((row, place in others, others.get(place)))
    rows.sort(key=lambda row: row[0])
    for start in range(0, len(rows), MAX_BATCH):
        part = rows[start : start + MAX_BATCH]
        yield Chunk(
            [row[0] for row, _, _ in part],
            [row[1] for row, _, _ in part],
            [row[2] for row, _, _ in part],
            [(place, fault) for place, (_, is_other, fault) in enumerate(part) if is_other],
        )
