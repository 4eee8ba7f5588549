"""The narrow key-value seam through which services agree, and the values that cross it.

A coordinator orders every change by one growing revision, changes several keys in one compare-and-
set transaction, ties keys to leases, and tells followers of every state they missed. The protocol
follows etcd's data model (https://etcd.io/docs/v3.5/learning/data_model/). It knows nothing of
collections or instances, and its callers must never learn which implementation stands behind it.

Keys are relative paths without a leading slash (``collections/default/docs/active``). Every call is
bounded by the coordinator's timeout and raises CoordinatorUnavailable, with a retry delay, when
the coordinator does not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

MAX_OPERATIONS = 128
"""Most conditions, and most operations, of one transaction (etcd's own default)."""

RETRY_AFTER_MS = 1000
"""When a call that found no coordinator may be worth repeating."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value; ``lease`` is the id of the lease it is bound to, 0 for none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries under a prefix, ascending by key, as they stood at one revision."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A key was put, or deleted where ``value`` is None, at ``mod_revision``."""

    key: str
    value: bytes | None
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if the key's revisions are those given; revision 0 means that the key is absent."""

    key: str
    create_revision: int | None = None
    mod_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; bound to a lease (its id) it is deleted when the lease ends."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key; deleting what is absent changes nothing."""

    key: str


@dataclass(frozen=True, slots=True)
class DeletePrefix:
    """Delete every key that begins with the prefix."""

    prefix: str


Operation = Put | Delete | DeletePrefix


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a transaction was carried out, and the store's revision after it."""

    committed: bool
    revision: int


class Lease(Protocol):
    """Keeps the keys bound to it alive until ``ttl_s`` seconds after the last keep-alive."""

    @property
    def id(self) -> int:
        """Identifies the lease in Put; never 0."""

    @property
    def ttl_s(self) -> int:
        """The time to live that was granted, in seconds; at least the one asked for."""

    async def keep_alive(self) -> bool:
        """Renew the lease; False if it had ended, and its keys with it."""

    async def revoke(self) -> None:
        """End the lease and delete its keys now; an ended lease is left as it is."""


class Watch(Protocol):
    """Yields every change under a prefix in order of revision.

    A lost connection is taken up again after the last revision that was yielded. Where the
    history is no longer kept, the prefix is listed again: a put is yielded for each key that is
    there and a delete for each known key that vanished, so that a follower ends in the present
    state. Iterating ends only when the coordinator is closed, and never raises
    CoordinatorUnavailable. Iterate once; cancel the iterating task to stop.
    """

    @property
    def connected(self) -> bool:
        """False from the loss of the connection until the watch stands again."""

    def __aiter__(self) -> AsyncIterator[Change]: ...


class Coordinator(Protocol):
    """A key-value store with revisions, transactions, leases and watches."""

    @property
    def healthy(self) -> bool:
        """Whether the last exchange with the coordinator succeeded."""

    async def get(self, key: str) -> Entry | None:
        """The entry as of now, None if the key is absent."""

    async def list(self, prefix: str) -> Snapshot:
        """Every entry under the prefix, at one revision."""

    async def transact(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> Outcome:
        """Carry out all operations if all conditions hold, else none.

        Raises:
            NotFound: a put names a lease that has ended; nothing was changed.
            InvalidArgument: more than MAX_OPERATIONS, or one key is written twice.
            CoordinatorUnavailable: where the request may have been sent, the outcome is unknown:
                read before repeating.
        """

    def watch(self, prefix: str, *, after_revision: int, known: Collection[str] = ()) -> Watch:
        """Follow the changes after a revision.

        Args:
            prefix: watched keys begin with it.
            after_revision: revision of the snapshot that the follower starts from.
            known: keys of that snapshot, so that a deletion can be told even where the history
                between the snapshot and now is gone.
        """

    async def grant_lease(self, ttl_s: int) -> Lease:
        """A new lease that lives for ``ttl_s`` seconds, at least 1."""

    def lease(self, lease_id: int, ttl_s: int) -> Lease:
        """A handle on a lease that was granted elsewhere, by its id; nothing is asked.

        ``ttl_s`` is what was granted, for those who go by the handle.
        """

    async def aclose(self) -> None:
        """Close connections and files; watches end. Leases are left to expire."""


def prefix_end(prefix: str) -> str:
    """The first key after all that begin with the prefix; InvalidArgument for the empty prefix."""
    if not prefix:
        raise InvalidArgument("a prefix must not be empty", field="prefix")
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def check_transaction(conditions: Sequence[Condition], operations: Sequence[Operation]) -> None:
    """Refuse what not every implementation can carry out.

    Raises:
        InvalidArgument: too many parts, or a key that is put and also put or deleted again.
    """
    if max(len(conditions), len(operations)) > MAX_OPERATIONS:
        raise InvalidArgument(f"use at most {MAX_OPERATIONS} a transaction", field="operations")
    puts = [operation.key for operation in operations if isinstance(operation, Put)]
    deletes = {operation.key for operation in operations if isinstance(operation, Delete)}
    prefixes = tuple(op.prefix for op in operations if isinstance(op, DeletePrefix))
    if len(set(puts)) != len(puts) or any(
        key in deletes or key.startswith(prefixes) for key in puts
    ):
        raise InvalidArgument("a transaction may write a key only once", field="operations")


def check_ttl(ttl_s: int) -> int:
    """Return the time to live, in seconds; InvalidArgument if it is below 1."""
    if ttl_s < 1:
        raise InvalidArgument("use at least 1 second", field="ttl_s")
    return ttl_s
