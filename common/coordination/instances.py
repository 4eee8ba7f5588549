"""Announces a running service under a lease, and keeps it announced.

The lease ends by itself when the process dies. While the coordinator does not answer the service
goes on; it is announced again as soon as it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import codec, keys
from common.coordination.coordinator import Put
from common.coordination.records import Instance
from common.errors import CoordinatorUnavailable, NotFound, SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.coordination.coordinator import Coordinator, Lease

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
