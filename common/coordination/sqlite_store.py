"""The SQLite file of the embedded coordinator: entries, the revision counter, leases.

Blocking, and made for one thread: whoever holds a store calls it from a single thread. The file is
held under an exclusive lock from opening to closing. A change is durable before its transaction
returns, and published in order of revision, once, after it is durable.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.coordination.coordinator import (
    Change,
    Condition,
    Delete,
    Entry,
    Operation,
    Outcome,
    Put,
    Snapshot,
    prefix_end,
)
from common.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_SCHEMA = """
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL,
    lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (revision INTEGER NOT NULL);
INSERT INTO counter SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM counter);
COMMIT;
"""
_GET = "SELECT key, value, create_revision, mod_revision, lease FROM entries WHERE key = ?"
_LIST = """SELECT key, value, create_revision, mod_revision, lease FROM entries
WHERE key >= ? AND key < ? ORDER BY key"""
_PUT = """INSERT INTO entries VALUES (:key, :value, :revision, :revision, :lease)
ON CONFLICT (key) DO UPDATE SET value = :value, mod_revision = :revision, lease = :lease"""
_DELETE = "DELETE FROM entries WHERE key = ? RETURNING key"
_DELETE_RANGE = "DELETE FROM entries WHERE key >= ? AND key < ? RETURNING key"
_DELETE_LEASED = "DELETE FROM entries WHERE lease = ? RETURNING key"
_DELETE_ALL_LEASED = "DELETE FROM entries WHERE lease != 0 RETURNING key"


@dataclass(slots=True)
class _Term:
    """How long a lease lasts: its time to live and when it ends, on the monotonic clock."""

    ttl_s: int
    ends_at_s: float


class SqliteStore:
    """The open file.

    Args:
        path: created with its folder if absent.
        publish: receives the changes of each transaction, in order.

    Raises:
        FailedPrecondition: another process holds the file, or it is no coordinator's file.
    """

    def __init__(self, path: Path, publish: Callable[[Sequence[Change]], None]) -> None:
        self._publish = publish
        self._leases: dict[int, _Term] = {}
        self._connection = _open(path)
        with self._transaction() as (revision, changes):
            changes.extend(self._remove(revision, _DELETE_ALL_LEASED))

    @property
    def revision(self) -> int:
        """The revision of the last change."""
        return int(self._connection.execute("SELECT revision FROM counter").fetchone()[0])

    def get(self, key: str) -> Entry | None:
        """See Coordinator."""
        self.expire()
        row = self._connection.execute(_GET, (key,)).fetchone()
        return Entry(*row) if row else None

    def snapshot(self, prefix: str) -> Snapshot:
        """See Coordinator.list."""
        self.expire()
        rows = self._connection.execute(_LIST, (prefix, prefix_end(prefix))).fetchall()
        return Snapshot(self.revision, tuple(Entry(*row) for row in rows))

    def transact(self, conditions: Sequence[Condition], operations: Sequence[Operation]) -> Outcome:
        """See Coordinator."""
        self.expire()
        if not all(self._holds(condition) for condition in conditions):
            return Outcome(committed=False, revision=self.revision)
        leases = {operation.lease for operation in operations if isinstance(operation, Put)}
        if not leases <= {0, *self._leases}:
            raise NotFound("the lease has ended and its keys with it; grant a new one")
        with self._transaction() as (revision, changes):
            for operation in operations:
                changes.extend(self._apply(revision, operation))
        return Outcome(committed=True, revision=self.revision)

    def grant(self, ttl_s: int) -> int:
        """The id of a new lease."""
        lease = secrets.randbits(62) + 1
        self._leases[lease] = _Term(ttl_s, time.monotonic() + ttl_s)
        return lease

    def keep_alive(self, lease: int) -> bool:
        """Start the lease's term again; False if it has ended."""
        self.expire()
        term = self._leases.get(lease)
        if term is None:
            return False
        term.ends_at_s = time.monotonic() + term.ttl_s
        return True

    def revoke(self, lease: int) -> None:
        """End the lease and delete its keys."""
        if lease in self._leases:
            with self._transaction() as (revision, changes):
                changes.extend(self._remove(revision, _DELETE_LEASED, lease))
            del self._leases[lease]

    def expire(self) -> float | None:
        """End the leases that are due; seconds until the next is, None without leases."""
        now_s = time.monotonic()
        for lease in [lease for lease, term in self._leases.items() if term.ends_at_s <= now_s]:
            self.revoke(lease)
        ends = [term.ends_at_s for term in self._leases.values()]
        return min(ends) - now_s if ends else None

    def close(self) -> None:
        """Close the file and let go of its lock."""
        self._connection.close()

    def _holds(self, condition: Condition) -> bool:
        row = self._connection.execute(_GET, (condition.key,)).fetchone()
        entry = Entry(*row) if row else Entry(condition.key, b"", 0, 0)
        return condition.create_revision in {
            None,
            entry.create_revision,
        } and condition.mod_revision in {None, entry.mod_revision}

    def _apply(self, revision: int, operation: Operation) -> list[Change]:
        if isinstance(operation, Put):
            values = {
                "key": operation.key,
                "value": operation.value,
                "revision": revision,
                "lease": operation.lease,
            }
            self._connection.execute(_PUT, values)
            return [Change(operation.key, operation.value, revision)]
        if isinstance(operation, Delete):
            return self._remove(revision, _DELETE, operation.key)
        bounds = (operation.prefix, prefix_end(operation.prefix))
        return self._remove(revision, _DELETE_RANGE, *bounds)

    def _remove(self, revision: int, statement: str, *values: str | int) -> list[Change]:
        keys = sorted(row[0] for row in self._connection.execute(statement, values).fetchall())
        return [Change(key, None, revision) for key in keys]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[tuple[int, list[Change]]]:
        """A transaction with its revision, which counts only if something changes."""
        changes: list[Change] = []
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            revision = self.revision + 1
            yield revision, changes
            if changes:
                self._connection.execute("UPDATE counter SET revision = ?", (revision,))
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        if changes:
            self._publish(changes)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # the caller keeps to one thread, which need not be the one that opens
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # exclusive locking must be asked for before the journal is touched: then the log needs no
        # shared memory and the lock is held until close (https://www.sqlite.org/wal.html#noshm)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
    except sqlite3.DatabaseError as error:
        connection.close()
        if error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise FailedPrecondition(
                f"{path} is in use by another process; stop that process, use another data "
                "directory, or set coordinator.kind to etcd to run several processes"
            ) from error
        raise FailedPrecondition(
            f"{path} cannot be opened as the coordinator's file ({error}); set coordinator.path "
            "to a file of its own on a local disk that this user may write"
        ) from error
    return connection
