"""What an index says it holds of a root, by file, while a job finds out what became of each.

Kept in a private temporary SQLite database, so that memory does not grow with the index. It has no
name once it is open, so that it goes with the job however that ends. One thread of its own makes
every call.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.errors import FailedPrecondition
from ingestor.state.file_records import Holding, Kinds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence

T = TypeVar("T")

_AT_ONCE = 500
_SCHEMA = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -8192;
    CREATE TABLE held (
        uri TEXT PRIMARY KEY, version INTEGER, kinds INTEGER, documents INTEGER,
        met INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
"""
_ADD = """
    INSERT INTO held (uri, version, kinds, documents) VALUES (?, ?, ?, ?)
    ON CONFLICT (uri) DO UPDATE SET version = max(version, excluded.version),
    kinds = kinds | excluded.kinds, documents = documents + excluded.documents
"""
_UNMET = """
    SELECT uri, version, kinds, documents FROM held WHERE met = 0 AND uri > ?
    ORDER BY uri LIMIT ?
"""


class HeldFiles:
    """Files of which the index holds documents; made by ``open``."""

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[HeldFiles]:
        """An empty one; FailedPrecondition where there is no place for it."""
        with ThreadPoolExecutor(1, "sluice-held") as thread:
            loop = asyncio.get_running_loop()
            try:
                database = await loop.run_in_executor(thread, _create)
            except (OSError, sqlite3.OperationalError) as error:
                raise _no_place(error) from None
            try:
                yield cls(database, thread)
            finally:
                thread.submit(database.close)  # after what was begun; the thread ends then

    async def add(self, documents: Iterable[tuple[str, Kinds, int, int]]) -> None:
        """Add documents: the URI of the file, what they are of it, their version, how many."""
        files: dict[str, Holding] = {}
        for uri, kind, version, number in documents:
            held = files.get(uri, Holding())
            files[uri] = Holding(
                max(held.version, version), held.kinds | kind, held.documents + number
            )

        def add() -> None:
            self._database.execute("BEGIN")
            self._database.executemany(
                _ADD,
                [
                    (uri, held.version, int(held.kinds), held.documents)
                    for uri, held in files.items()
                ],
            )
            self._database.execute("COMMIT")

        await self._blocking(add)

    async def meet(self, uris: Sequence[str]) -> dict[str, Holding]:
        """What the index holds of those of these files that it knows; they are met from now on."""

        def meet() -> dict[str, Holding]:
            met: dict[str, Holding] = {}
            self._database.execute("BEGIN")
            for begin in range(0, len(uris), _AT_ONCE):
                some = uris[begin : begin + _AT_ONCE]
                places = ",".join("?" * len(some))
                # Only places are put into the statement.
                where = f"uri IN ({places})"
                statement = f"SELECT uri, version, kinds, documents FROM held WHERE {where}"  # noqa: S608 — as above
                met.update(_holdings(self._database.execute(statement, some)))
                self._database.execute(f"UPDATE held SET met = 1 WHERE {where}", some)  # noqa: S608 — as above
            self._database.execute("COMMIT")
            return met

        return await self._blocking(meet)

    async def clear(self) -> None:
        """Forget all."""

        def clear() -> None:
            self._database.execute("DELETE FROM held")

        await self._blocking(clear)

    async def is_empty(self) -> bool:
        """Whether the index holds nothing."""

        def look() -> bool:
            return self._database.execute("SELECT 1 FROM held LIMIT 1").fetchone() is None

        return await self._blocking(look)

    async def unmet(self) -> AsyncGenerator[dict[str, Holding], None]:
        """The files that were not met, ascending by URI, some at a time."""
        last = ""

        def read() -> dict[str, Holding]:
            return dict(_holdings(self._database.execute(_UNMET, (last, _AT_ONCE))))

        while found := await self._blocking(read):
            yield found
            last = next(reversed(found))

    async def _blocking(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.OperationalError as error:
            raise _no_place(error) from None


def _create() -> sqlite3.Connection:
    with tempfile.TemporaryDirectory(prefix="sluice-held-") as folder:  # only this user's
        database = sqlite3.connect(Path(folder) / "held.sqlite", isolation_level=None)
        try:
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database


def _no_place(error: Exception) -> FailedPrecondition:
    place = tempfile.tempdir or "a temporary folder"
    return FailedPrecondition(
        f"what the index holds could not be noted in {place}: {error}; make room there, or set "
        "TMPDIR"
    )


def _holdings(rows: Iterable[tuple[str, int, int, int]]) -> Iterable[tuple[str, Holding]]:
    return (
        (uri, Holding(version, Kinds(kinds), documents)) for uri, version, kinds, documents in rows
    )
