"""What was counted of one index version: what each chunk contributed, and the sum.

A SQLite file, or a temporary one that goes with its connection; what exceeds a small cache lies on
disk. Each step is one transaction, so chunks and sum agree whenever a process dies. It is a cache:
one that cannot be used is thrown away and everything counted anew, which nobody else notices. A
chunk's id fixes its words, so a ledger may be as old as it likes. Blocking, and made for one thread
at a time.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from common.errors import SluiceError, Unavailable
from common.word_table import WordTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rerank_zig import WordCounts

# Stand in the header of the file: whose it is, and the version of its layout with that of the
# rules by which the words were counted.
_APPLICATION: Final = 0x534C5743  # SLWC
_LAYOUT: Final = 1
_CACHE_KIB: Final = 16 * 2**10
_BUSY_RETRY_MS: Final = 1_000
# Chunks taken back in one step.
_STEP_CHUNKS: Final = 1_000

_SCHEMA: Final = """
BEGIN;
CREATE TABLE chunks (
    chunk_id TEXT PRIMARY KEY NOT NULL,
    text_words INTEGER NOT NULL,
    title_words INTEGER NOT NULL,
    hashes BLOB NOT NULL
);
CREATE TABLE terms (hash INTEGER PRIMARY KEY, frequency INTEGER NOT NULL);
CREATE TABLE totals (
    chunks INTEGER NOT NULL,
    text_words INTEGER NOT NULL,
    title_words INTEGER NOT NULL,
    occurrences INTEGER NOT NULL
);
INSERT INTO totals VALUES (0, 0, 0, 0);
PRAGMA application_id = {application};
PRAGMA user_version = {version};
COMMIT;
"""
_UNCOUNTED: Final = """SELECT chunk_id FROM listed
WHERE chunk_id > ? AND NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.chunk_id = listed.chunk_id)
ORDER BY chunk_id LIMIT ?"""
_UNLISTED: Final = """SELECT rowid, text_words, title_words, hashes FROM chunks
WHERE rowid > ? AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.chunk_id = chunks.chunk_id)
ORDER BY rowid LIMIT ?"""
_WEIGH: Final = """INSERT INTO terms VALUES (?, ?)
ON CONFLICT (hash) DO UPDATE SET frequency = frequency + excluded.frequency"""
_TOTAL: Final = """UPDATE totals SET chunks = chunks + ?, text_words = text_words + ?,
title_words = title_words + ?, occurrences = occurrences + ?"""
_TERMS: Final = "SELECT hash, frequency FROM terms WHERE frequency != 0 ORDER BY hash"
_TERM: Final = np.dtype([("hash", np.int64), ("frequency", np.int64)])


class DamagedLedger(SluiceError):
    """The file cannot be used; it is to be thrown away."""


class Ledger:
    """The open ledger of one index version. Make it with `Ledger.open`."""

    def __init__(self, connection: sqlite3.Connection, analysis: int) -> None:
        self._connection = connection
        self._analysis = analysis

    @classmethod
    def open(cls, path: Path | None, analysis: int) -> Self:
        """Open a file, made anew where it is absent or of other making; None for a temporary one.

        Args:
            path: in a folder that is there.
            analysis: rules by which the words are counted.

        Raises:
            Unavailable: another process has it open, or it can be neither read nor made.
        """
        with _our_errors():
            with suppress(DamagedLedger):
                return cls(_connect(path, analysis), analysis)
            assert path is not None  # noqa: S101 — a temporary file is new
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).unlink()
            return cls(_connect(path, analysis), analysis)

    def close(self) -> None:
        """Close the file; a temporary one is gone."""
        self._connection.close()

    def begin_listing(self) -> None:
        """Forget which chunks the store was said to hold."""
        with self._step():
            self._connection.execute("DELETE FROM listed")

    def list_held(self, chunk_ids: Sequence[str]) -> None:
        """The store holds these chunks; some may have been listed already."""
        with self._step():
            self._connection.executemany(
                "INSERT OR IGNORE INTO listed VALUES (?)", ((chunk_id,) for chunk_id in chunk_ids)
            )

    def uncounted(self, after: str, limit: int) -> list[str]:
        """The first chunks beyond this id, ascending, that are listed and were not counted."""
        with _our_errors():
            return [row[0] for row in self._connection.execute(_UNCOUNTED, (after, limit))]

    def count(self, chunk_ids: Sequence[str], counts: WordCounts) -> None:
        """Add chunks that were not counted: n different ids and their counts."""
        offsets, hashes = counts.offsets.tolist(), counts.hashes.astype("<u4", copy=False)
        text_words, title_words = counts.text_words.tolist(), counts.title_words.tolist()
        with self._step():
            self._connection.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?)",
                (
                    (id_, text_words[i], title_words[i], hashes[offsets[i] : offsets[i + 1]].data)
                    for i, id_ in enumerate(chunk_ids)
                ),
            )
            self._weigh(hashes, 1)
            totals = (len(chunk_ids), sum(text_words), sum(title_words), len(hashes))
            self._connection.execute(_TOTAL, totals)

    def discount_unlisted(self) -> int:
        """Take back what was counted of chunks that are not listed; how many there were."""
        gone, after = 0, 0
        while True:
            with self._step():
                rows = self._connection.execute(_UNLISTED, (after, _STEP_CHUNKS)).fetchall()
                if not rows:
                    break
                hashes = np.concatenate([np.frombuffer(row[3], "<u4") for row in rows])
                self._connection.executemany(
                    "DELETE FROM chunks WHERE rowid = ?", ((row[0],) for row in rows)
                )
                self._weigh(hashes, -1)
                text_words, title_words = (sum(row[column] for row in rows) for column in (1, 2))
                totals = (-len(rows), -text_words, -title_words, -len(hashes))
                self._connection.execute(_TOTAL, totals)
            gone, after = gone + len(rows), rows[-1][0]
        if gone:
            with self._step():
                self._connection.execute("DELETE FROM terms WHERE frequency = 0")
        return gone

    def table(self) -> WordTable:
        """The sum.

        Raises:
            DamagedLedger: it is not that of the chunks.
        """
        with _our_errors():
            chunks, text_words, title_words, occurrences = self._connection.execute(
                "SELECT * FROM totals"
            ).fetchone()
            terms = np.fromiter(self._connection.execute(_TERMS), _TERM)
            (held,) = self._connection.execute("SELECT COUNT(*) FROM chunks").fetchone()
        frequencies = terms["frequency"]
        least, most = (frequencies.min(), frequencies.max()) if len(terms) else (1, 0)
        if least < 1 or most > chunks or frequencies.sum() != occurrences or chunks != held:
            raise DamagedLedger("the sum in a ledger of words is not that of its chunks")
        return WordTable(
            analysis=self._analysis,
            chunks=chunks,
            text_words=text_words,
            title_words=title_words,
            hashes=terms["hash"].astype(np.uint32),
            frequencies=frequencies.astype(np.uint32),
        )

    def _weigh(self, hashes: NDArray[np.uint32], sign: int) -> None:
        unique, counts = np.unique(hashes, return_counts=True)
        weights = (sign * counts).tolist()
        self._connection.executemany(_WEIGH, zip(unique.tolist(), weights, strict=True))

    @contextmanager
    def _step(self) -> Iterator[None]:
        """One transaction: whole, or not at all where it fails."""
        with _our_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled it back already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _connect(path: Path | None, analysis: int) -> sqlite3.Connection:
    """Open a file that is ours or new; DamagedLedger if it is neither."""
    # The empty name is SQLite's own for a temporary file: https://sqlite.org/inmemorydb.html
    connection = sqlite3.connect(
        path or "", timeout=1.0, isolation_level=None, check_same_thread=False
    )
    try:
        with _our_errors():
            _prepare(connection, analysis)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, analysis: int) -> None:
    connection.execute("PRAGMA temp_store = FILE")
    connection.execute(f"PRAGMA main.cache_size = -{_CACHE_KIB}")
    connection.execute(f"PRAGMA temp.cache_size = -{_CACHE_KIB}")
    # Several processes on one file would take turns in the middle of a pass.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    ours = (_APPLICATION, _LAYOUT << 16 | analysis)
    if not tables:
        connection.executescript(_SCHEMA.format(application=ours[0], version=ours[1]))
    elif (application, version) != ours:
        raise DamagedLedger("the file is no ledger of words, or one of other rules")
    # Beside the file: what a pass lists is nobody's afterwards.
    connection.execute("CREATE TEMP TABLE listed (chunk_id TEXT PRIMARY KEY) WITHOUT ROWID")


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # it lacks what it should hold
            raise DamagedLedger("a ledger of words is not whole") from error
        raise Unavailable(
            f"a ledger of words cannot be used ({error.sqlite_errorname}); give each indexer an "
            "indexer.word_counts.folder of its own that it may write, on a disk with room",
            retry_after_ms=_BUSY_RETRY_MS,
        ) from error
    except sqlite3.DatabaseError as error:
        raise DamagedLedger(f"a ledger of words is damaged ({type(error).__name__})") from error
    except OSError as error:
        raise Unavailable(
            f"a ledger of words cannot be replaced ({error.strerror}); check "
            "indexer.word_counts.folder"
        ) from error
