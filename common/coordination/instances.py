"""Announces a running service under a lease, keeps it announced, and follows those of others.

The lease ends by itself when the process dies. While the coordinator does not answer the service
goes on; it is announced again as soon as it can be, and a follower keeps the last it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import codec, keys
from common.coordination.coordinator import Entry, Put
from common.coordination.records import Instance
from common.errors import CoordinatorUnavailable, NotFound, SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.coordination.coordinator import Coordinator, Lease, Snapshot, Watch

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def register(
    coordinator: Coordinator, service: str, address: str, *, ttl_s: int
) -> AsyncIterator[Instance]:
    """Announce the service while the context is open.

    Args:
        coordinator: where to announce it.
        service: its name, such as ``query``.
        address: HOST:PORT where it answers.
        ttl_s: how long it stays announced after it died, in seconds; renewed every third of it.

    Raises:
        CoordinatorUnavailable: on entering only.
    """
    instance = Instance(uuid.uuid4().hex, service, address, datetime.now(UTC))
    announcement = _Announcement(coordinator, instance, ttl_s)
    await announcement.make()
    renewing = asyncio.create_task(announcement.keep(), name=f"register {service}")
    try:
        yield instance
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        await announcement.withdraw()


class Instances:
    """The running instances of a service, followed; open with `Instances.open`."""

    def __init__(self, snapshot: Snapshot, watch: Watch) -> None:
        self._instances: dict[str, Instance] = {}
        self._moved = asyncio.Condition()
        for entry in snapshot.entries:
            self._apply(entry.key, entry.value)
        self._following = asyncio.create_task(self._follow(watch), name="instances")

    @classmethod
    async def open(cls, coordinator: Coordinator, service: str) -> Instances:
        """Read who is running and follow from there.

        Raises:
            CoordinatorUnavailable: the coordinator does not answer now.
        """
        prefix = keys.instances_prefix(service)
        snapshot = await coordinator.list(prefix)
        watch = coordinator.watch(
            prefix,
            after_revision=snapshot.revision,
            known=[entry.key for entry in snapshot.entries],
        )
        return cls(snapshot, watch)

    @property
    def running(self) -> tuple[Instance, ...]:
        """Those announced now, by id; the last known while the coordinator does not answer."""
        return tuple(self._instances[key] for key in sorted(self._instances))

    async def wait_for(self, arrived: Callable[[], bool]) -> None:
        """Wait until a condition on ``running`` holds."""
        async with self._moved:
            await self._moved.wait_for(arrived)

    async def aclose(self) -> None:
        """Stop following."""
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following

    async def _follow(self, watch: Watch) -> None:
        async for change in watch:
            async with self._moved:
                self._apply(change.key, change.value)
                self._moved.notify_all()

    def _apply(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._instances.pop(key, None)
            return
        try:
            self._instances[key] = codec.decode_instance(Entry(key, value, 0, 0))
        except codec.UnreadableRecord:
            _log.exception("instance not readable, passed over", extra={"key": key})


class _Announcement:
    """One instance's key and the lease it is bound to."""

    def __init__(self, coordinator: Coordinator, instance: Instance, ttl_s: int) -> None:
        self._coordinator = coordinator
        self._key = keys.instances_prefix(instance.service) + instance.id
        self._value = codec.encode_instance(instance)
        self._service = instance.service
        self._ttl_s = ttl_s
        self._lease: Lease | None = None

    async def make(self) -> None:
        lease = await self._coordinator.grant_lease(self._ttl_s)
        await self._coordinator.transact([], [Put(self._key, self._value, lease.id)])
        self._lease = lease

    async def keep(self) -> None:
        """Renew for ever; a lost lease is replaced by a new one."""
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                if self._lease is None or not await self._lease.keep_alive():
                    self._lease = None
                    await self.make()
                    _log.warning("lease lost, registered again", extra={"service": self._service})
            except SluiceError as error:
                _log.warning(
                    "registration could not be renewed, trying again",
                    extra={"service": self._service, "cause": type(error).__name__},
                )

    async def withdraw(self) -> None:
        """Leave at once, or with the lease's end where the coordinator does not answer."""
        if self._lease is not None:
            with contextlib.suppress(CoordinatorUnavailable, NotFound):
                await self._lease.revoke()
