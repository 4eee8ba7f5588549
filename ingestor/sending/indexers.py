"""The indexers that there are: found through the coordinator, followed while the job runs.

Without a coordinator, and as long as none is announced, there is the one that the settings name.
While the coordinator is away, and while none is announced any more, the last known ones are kept:
one that comes back comes back under its address. Each address has one channel, opened at
its first use and closed when it is announced no longer and nobody uses it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from common.coordination import Instances
from common.errors import SluiceError
from common.rpc import open_channel, translate_rpc_error
from ingestor.sending.backoff import delay_s, is_passing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from common.connection import ConnectionSettings
    from common.coordination import Coordinator
    from ingestor.settings import StreamSettings

R = TypeVar("R")

SERVICE = "indexer"


@dataclass(slots=True)
class _Channel:
    channel: grpc.aio.Channel
    users: int = 0


class Indexers:
    """All indexers; made by ``open``."""

    def __init__(self, client: ConnectionSettings, coordinator: Coordinator | None) -> None:
        self._settings = client.channel
        self._coordinator = coordinator
        self._known: tuple[str, ...] = (client.target,)
        self._instances: Instances | None = None
        self._discovering = asyncio.Lock()
        self._channels: dict[str, _Channel] = {}
        self._preferred = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, client: ConnectionSettings, coordinator: Coordinator | None
    ) -> AsyncIterator[Indexers]:
        """Know the indexers while the context is open; nobody is called before the first use."""
        indexers = cls(client, coordinator)
        try:
            yield indexers
        finally:
            await indexers._close()

    async def addresses(self) -> tuple[str, ...]:
        """The addresses, at least one, in order.

        Raises:
            CoordinatorUnavailable: it does not answer, and did not before.
        """
        await self._discover()
        return self._current()

    async def changed(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Wait until the addresses are others than those known; they."""
        instances = await self._discover()
        if instances is None:
            await asyncio.Event().wait()  # one address, for ever
        else:
            await instances.wait_for(lambda: self._current() != known)
        return self._current()

    @asynccontextmanager
    async def channel(self, address: str) -> AsyncIterator[grpc.aio.Channel]:
        """The channel to an address; it stays open as long as it is used."""
        if address not in self._channels:
            self._channels[address] = _Channel(open_channel(address, self._settings))
        used = self._channels[address]
        used.users += 1
        try:
            yield used.channel
        finally:
            used.users -= 1
            await self._close_unneeded()

    async def call(
        self, make: Callable[[grpc.aio.Channel], Awaitable[R]], settings: StreamSettings
    ) -> R:
        """Make a call that is safe to repeat to any of them, to others where it fails.

        Raises:
            SluiceError: what waiting cannot cure, or the last failure of too many.
        """
        attempts = Attempts(self, settings)
        while True:
            try:
                async with attempts.channel() as channel:
                    return await make(channel)
            except grpc.aio.AioRpcError as error:
                failure = translate_rpc_error(error)
            except SluiceError as error:
                failure = error
            await attempts.failed(failure)

    async def preferred(self) -> str:
        """The address that answered last, as far as is known."""
        addresses = await self.addresses()
        return self._preferred if self._preferred in addresses else addresses[0]

    def turn_from(self, address: str) -> int:
        """Prefer the next one to an address that failed; how many there are."""
        addresses = self._current()
        if address in addresses and self._preferred in {address, ""}:
            self._preferred = addresses[(addresses.index(address) + 1) % len(addresses)]
        return len(addresses)

    async def _discover(self) -> Instances | None:
        """Follow the coordinator, if there is one, from the first use on."""
        if self._coordinator is None or self._instances is not None:
            return self._instances
        async with self._discovering:
            if self._instances is None:
                self._instances = await Instances.open(self._coordinator, SERVICE)
        return self._instances

    def _current(self) -> tuple[str, ...]:
        if self._instances is not None:
            running = {instance.address for instance in self._instances.running}
            self._known = tuple(sorted(running)) or self._known
        return self._known

    async def _close_unneeded(self) -> None:
        current = self._current()
        for address in [a for a, one in self._channels.items() if not one.users]:
            if address not in current:
                await self._channels.pop(address).channel.close()

    async def _close(self) -> None:
        async with AsyncExitStack() as stack:
            for one in self._channels.values():
                stack.push_async_callback(one.channel.close)
            if self._instances is not None:
                stack.push_async_callback(self._instances.aclose)


class Attempts:
    """Bounds the attempts of one call: at each indexer in turn, with a pause after each round."""

    def __init__(self, indexers: Indexers, settings: StreamSettings) -> None:
        self._indexers = indexers
        self._settings = settings
        self._address = ""
        self._failures = 0

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """The channel for the next attempt."""
        self._address = await self._indexers.preferred()
        async with self._indexers.channel(self._address) as channel:
            yield channel

    async def failed(self, failure: SluiceError) -> None:
        """Turn to the next indexer, after a pause if all had their turn.

        Raises:
            SluiceError: the failure, if waiting cannot cure it or every attempt is used up.
        """
        if not is_passing(failure):
            raise failure
        self._failures += 1
        rounds, turn = divmod(self._failures, self._indexers.turn_from(self._address))
        if rounds >= self._settings.max_attempts:
            raise failure
        if not turn:
            await asyncio.sleep(delay_s(self._settings, rounds, failure))
