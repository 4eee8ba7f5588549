"""The coordinator for many processes: etcd, reached with aetcd's protocol layer.

aetcd brings etcd's messages and stubs; the channel, its credentials, the choice among endpoints and
the watch are held here, because aetcd's client offers none of TLS, several endpoints, the revision
of a transaction, or a watch that outlives its connection. A change is sent at most once: a call
whose outcome is unknown is reported, never repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

import grpc
from aetcd import rpc

from common.coordination.coordinator import (
    Change,
    Condition,
    Delete,
    Entry,
    Operation,
    Outcome,
    Put,
    Snapshot,
    check_transaction,
    check_ttl,
    prefix_end,
)
from common.coordination.etcd_link import EtcdLink, Unreachable, is_gone, translate
from common.coordination.etcd_watch import EtcdWatch
from common.errors import CoordinatorUnavailable, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from common.coordination.etcd_link import Credentials, Message, Metadata

T = TypeVar("T")


class EtcdCoordinator:
    """Coordinator over one etcd cluster; keys live under ``prefix``.

    Args:
        endpoints: HOST:PORT each; tried in turn when one does not answer.
        prefix: put before every key.
        credentials: TLS files' contents and user, if any.
        timeout_s: bound of every call, all endpoints together.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        prefix: str,
        credentials: Credentials,
        timeout_s: float,
    ) -> None:
        self._links = [EtcdLink(endpoint, credentials) for endpoint in endpoints]
        self._current = 0
        self._namespace = prefix.rstrip("/") + "/"
        self._timeout_s = timeout_s
        self._healthy = True
        self._closed = False

    @property
    def healthy(self) -> bool:
        """Whether the last exchange with etcd succeeded."""
        return self._healthy

    @property
    def closed(self) -> bool:
        """Whether aclose was called."""
        return self._closed

    async def get(self, key: str) -> Entry | None:
        """See Coordinator; a linearizable read."""
        response = await self._range(rpc.RangeRequest(key=self._absolute(key)))
        return self._entry(response.kvs[0]) if response.kvs else None

    async def list(self, prefix: str) -> Snapshot:
        """See Coordinator; a linearizable read."""
        response = await self._range(rpc.RangeRequest(**self.key_range(prefix)))
        entries = tuple(self._entry(kv) for kv in response.kvs)
        return Snapshot(response.header.revision, entries)

    async def transact(
        self, conditions: Sequence[Condition], operations: Sequence[Operation]
    ) -> Outcome:
        """See Coordinator."""
        check_transaction(conditions, operations)
        request = rpc.TxnRequest(
            compare=[part for condition in conditions for part in self._compare(condition)],
            success=[self._request(operation) for operation in operations],
        )

        async def call(link: EtcdLink, metadata: Metadata) -> Message:
            return await link.kv.Txn(request, metadata=metadata)

        response = await self.exchange(call, repeatable=False)
        return Outcome(response.succeeded, response.header.revision)

    def watch(self, prefix: str, *, after_revision: int, known: Collection[str] = ()) -> EtcdWatch:
        """See Coordinator."""
        return EtcdWatch(self, prefix, after_revision, known)

    async def grant_lease(self, ttl_s: int) -> EtcdLease:
        """See Coordinator; etcd may grant more than was asked for."""
        request = rpc.LeaseGrantRequest(TTL=check_ttl(ttl_s))

        async def call(link: EtcdLink, metadata: Metadata) -> Message:
            return await link.lease.LeaseGrant(request, metadata=metadata)

        response = await self.exchange(call)
        return EtcdLease(self, response.ID, response.TTL)

    def lease(self, lease_id: int, ttl_s: int) -> EtcdLease:
        """See Coordinator."""
        return EtcdLease(self, lease_id, ttl_s)

    async def aclose(self) -> None:
        """Close every channel; watches end."""
        self._closed = True
        for link in self._links:
            await link.close()

    async def exchange(
        self, call: Callable[[EtcdLink, Metadata], Awaitable[T]], *, repeatable: bool = True
    ) -> T:
        """Make a call within the timeout, on the next endpoint where one does not answer.

        Args:
            call: makes the call on a link.
            repeatable: whether carrying it out twice is harmless. One that is not is tried again
                only where the connection was refused, so that it cannot have been sent.
        """
        if self._closed:
            raise _closed_error()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        attempts_left = len(self._links)
        while True:
            link = self._links[self._current]
            sent = False
            try:
                async with asyncio.timeout((deadline_s - loop.time()) / attempts_left):
                    await link.connect()
                    sent = True
                    answer = await link.exchange(call)
            except (grpc.aio.AioRpcError, Unreachable, TimeoutError) as error:
                attempts_left -= 1
                gone = is_gone(error)
                if gone:
                    self.turn_from(link)
                unknown = gone and sent and not repeatable
                if unknown or not gone or attempts_left == 0:
                    raise translate(error, link.endpoint, outcome_unknown=unknown) from error
            except asyncio.CancelledError:
                self.check_not_closed()
                raise
            else:
                self._healthy = True
                return answer

    def turn_from(self, link: EtcdLink) -> None:
        """Note that a link failed: the next exchange begins with the endpoint after it."""
        self._healthy = False
        if self._links[self._current] is link:
            self._current = (self._current + 1) % len(self._links)

    def check_not_closed(self) -> None:
        """Turn the cancellation of a call by aclose into CoordinatorUnavailable.

        To be called where a CancelledError was caught: one that the task's owner asked for is
        left as it is.
        """
        task = asyncio.current_task()
        if self._closed and (task is None or not task.cancelling()):
            raise _closed_error() from None

    def change(self, event: Message) -> Change:
        """The change that an etcd event tells of."""
        deleted = event.type == rpc.Event.DELETE
        key = self._relative(event.kv.key)
        return Change(key, None if deleted else event.kv.value, event.kv.mod_revision)

    async def keeps(self, prefix: str, revision: int) -> bool:
        """Whether the history from a revision on is still kept; one that is to come counts as kept.

        The prefix is one that the user may read.
        """
        fields = self.key_range(prefix)
        request = rpc.RangeRequest(**fields, revision=revision, limit=1, keys_only=True)

        async def call(link: EtcdLink, metadata: Metadata) -> bool:
            try:
                await link.kv.Range(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                    raise
                return "compacted" not in (error.details() or "")
            return True

        return await self.exchange(call)

    async def _range(self, request: Message) -> Message:
        async def call(link: EtcdLink, metadata: Metadata) -> Message:
            return await link.kv.Range(request, metadata=metadata)

        return await self.exchange(call)

    def _compare(self, condition: Condition) -> Iterator[Message]:
        key, equal = self._absolute(condition.key), rpc.Compare.EQUAL
        if (created := condition.create_revision) is not None:
            target = rpc.Compare.CREATE
            yield rpc.Compare(key=key, result=equal, target=target, create_revision=created)
        if (modified := condition.mod_revision) is not None:
            target = rpc.Compare.MOD
            yield rpc.Compare(key=key, result=equal, target=target, mod_revision=modified)

    def _request(self, operation: Operation) -> Message:
        if isinstance(operation, Put):
            key = self._absolute(operation.key)
            put = rpc.PutRequest(key=key, value=operation.value, lease=operation.lease)
            return rpc.RequestOp(request_put=put)
        if isinstance(operation, Delete):
            delete = rpc.DeleteRangeRequest(key=self._absolute(operation.key))
        else:
            delete = rpc.DeleteRangeRequest(**self.key_range(operation.prefix))
        return rpc.RequestOp(request_delete_range=delete)

    def key_range(self, prefix: str) -> dict[str, bytes]:
        """Request fields that name all keys under a prefix."""
        end = self._absolute(prefix_end(prefix))
        return {"key": self._absolute(prefix), "range_end": end}

    def _absolute(self, key: str) -> bytes:
        return (self._namespace + key).encode()

    def _relative(self, key: bytes) -> str:
        return key.decode().removeprefix(self._namespace)

    def _entry(self, kv: Message) -> Entry:
        key = self._relative(kv.key)
        return Entry(key, kv.value, kv.create_revision, kv.mod_revision, kv.lease)


class EtcdLease:
    """A lease held in etcd."""

    def __init__(self, coordinator: EtcdCoordinator, lease_id: int, ttl_s: int) -> None:
        self._coordinator = coordinator
        self._id = lease_id
        self._ttl_s = ttl_s

    @property
    def id(self) -> int:
        """The id that etcd gave the lease."""
        return self._id

    @property
    def ttl_s(self) -> int:
        """What etcd granted, in seconds."""
        return self._ttl_s

    async def keep_alive(self) -> bool:
        """See Lease."""

        async def call(link: EtcdLink, metadata: Metadata) -> Message:
            stream = link.lease.LeaseKeepAlive(metadata=metadata)
            try:
                await stream.write(rpc.LeaseKeepAliveRequest(ID=self._id))
                response = await stream.read()
            finally:
                stream.cancel()
            if response is grpc.aio.EOF:
                raise Unreachable
            return response

        response = await self._coordinator.exchange(call)
        return bool(response.TTL > 0)

    async def revoke(self) -> None:
        """See Lease."""

        async def call(link: EtcdLink, metadata: Metadata) -> None:
            await link.lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=self._id), metadata=metadata)

        with contextlib.suppress(NotFound):
            await self._coordinator.exchange(call)


def _closed_error() -> CoordinatorUnavailable:
    return CoordinatorUnavailable("the coordinator is closed; open a new one")
