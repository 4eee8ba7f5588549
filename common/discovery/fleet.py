"""The servers of one service: found through the coordinator, followed, and balanced over.

A fleet without a coordinator is the one target it was opened with; so is one with a coordinator as
long as nobody is announced. While the coordinator is away, and while nobody is announced any more,
the last known servers are kept: one that comes back comes back under its address. A server that
dies leaves with its lease; until then it is passed over from its first failure on, for a short time
at each. One that drains withdraws before it stops, and gets no new call from then on. Each address
has one channel, opened at its first use and closed when it is announced no longer and nobody uses
it. A fleet must never send again what a server may have taken, unless its caller says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from common.discovery.attempts import Attempts
from common.discovery.backoff import is_passing
from common.discovery.failures import Unannounced, Unconnected
from common.discovery.target import Target
from common.errors import ConfigurationError, SluiceError
from common.rpc import is_unconnected, open_channel, translate_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from common.coordination import Coordinator, Instances
    from common.discovery.backoff import Backoff
    from common.rpc import ChannelSettings, Deadline

R = TypeVar("R")

# How long a server that failed gets no calls while others are there.
PASS_OVER_S = 2.0
_MOST_NAMED = 5


@dataclass(slots=True)
class _Channel:
    channel: grpc.aio.Channel
    users: int = 0


class Fleet:
    """All servers of a service; made by ``open`` or ``open_fleet``."""

    def __init__(
        self,
        target: Target,
        settings: ChannelSettings,
        coordinator: Coordinator | None,
        service: str,
    ) -> None:
        self._target = target
        self._service = target.service or service
        # Where others may answer, gRPC must not spend a call's time on one that does not.
        once = settings.model_copy(update={"max_attempts": 1})
        self._settings = settings if coordinator is None else once
        self._coordinator = coordinator
        is_address = target.text and not target.is_announced
        self._known: tuple[str, ...] = (target.text,) if is_address else ()
        self._instances: Instances | None = None
        self._discovering = asyncio.Lock()
        self._unknown: SluiceError | None = None
        self._unknown_since_s = 0.0
        self._channels: dict[str, _Channel] = {}
        self._answered = ""
        self._passed_over_until_s: dict[str, float] = {}
        # Clients that start together must not begin with the same server.
        self._turn = random.randrange(1 << 16)  # noqa: S311 — no secret

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        target: str,
        channel: ChannelSettings,
        coordinator: Coordinator | None,
        *,
        service: str,
    ) -> AsyncIterator[Self]:
        """Know the servers while the context is open; nobody is called before the first use.

        Args:
            target: see ``Target``; of an etcd target only the service counts, for the coordinator
                is open already. Empty for those announced alone.
            channel: TLS and bounds of each connection.
            coordinator: where servers are announced; None for the target alone.
            service: under which name, such as ``query``, if the target names none.

        Raises:
            ConfigurationError: the target is none, or needs a coordinator.
        """
        parsed = Target.parse(target)
        if coordinator is None and (parsed.is_announced or not target):
            raise ConfigurationError(
                f"{target or service}: only a coordinator of kind etcd knows the servers; set "
                "coordinator.kind and coordinator.endpoints, or name a server as HOST:PORT"
            )
        fleet = cls(parsed, channel, coordinator, service)
        try:
            yield fleet
        finally:
            await fleet._close()

    @property
    def is_followed(self) -> bool:
        """Whether there may be others than the target."""
        return self._coordinator is not None

    async def addresses(self) -> tuple[str, ...]:
        """The addresses, at least one, in order.

        Raises:
            CoordinatorUnavailable: it does not answer, and did not before.
            Unannounced: there is none, and was none before.
        """
        await self._discover()
        return self._current() or self._raise_unannounced()

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

    @asynccontextmanager
    async def one(self) -> AsyncIterator[grpc.aio.Channel]:
        """The channel for a stream: to one server that can be connected to, which it ends with."""
        tried: set[str] = set()
        while True:
            address = await self.pick(tried)
            tried.add(address)
            async with self.channel(address) as channel:
                if tried.issuperset(self._current()) or await _connects(channel):
                    yield channel
                    return
            self.turn_from(address)

    async def call(
        self,
        make: Callable[[grpc.aio.Channel], Awaitable[R]],
        retry: Backoff,
        *,
        goes_on: Callable[[SluiceError], bool] = is_passing,
        deadline: Deadline | None = None,
    ) -> R:
        """Make a call to the server that has the least to do, and to others where it fails.

        Args:
            make: makes the call on a channel; by default it must be safe to repeat.
            retry: rounds and pauses.
            goes_on: after which failures the next server is asked.
            deadline: no pause goes beyond it; the call itself must keep it by ``make``.

        Raises:
            SluiceError: one after which it does not go on, or the last of too many.
        """
        attempts = Attempts(self, retry, goes_on=goes_on, deadline=deadline, stays=False)
        while True:
            try:
                async with attempts.channel() as channel:
                    return await make(channel)
            except grpc.aio.AioRpcError as error:
                unsent = is_unconnected(error)
                failure = (
                    self.no_answer({attempts.address}) if unsent else translate_rpc_error(error)
                )
            except SluiceError as error:
                failure = error
            await attempts.failed(failure)

    async def pick(self, without: Collection[str] = (), *, stays: bool = False) -> str:
        """The address with the fewest calls in flight; of equals each in turn.

        Args:
            without: those that had their turn; if it is all of them, any is picked.
            stays: the one that answered last, if it did not fail since.
        """
        addresses = await self.addresses()
        now_s = time.monotonic()
        passed_over = {a for a, until_s in self._passed_over_until_s.items() if until_s > now_s}
        if stays and self._answered in {*addresses} - passed_over - {*without}:
            return self._answered
        start = self._turn % len(addresses)
        ring = addresses[start:] + addresses[:start]
        chosen = min(
            [address for address in ring if address not in without] or ring,
            key=lambda address: (address in passed_over, self._in_flight(address)),
        )
        self._turn = addresses.index(chosen) + 1
        return chosen

    async def preferred(self) -> str:
        """The address that answered last, as far as is known."""
        return await self.pick(stays=True)

    def turn_from(self, address: str) -> None:
        """Pass over an address that failed, for a short time and while others are there."""
        now_s = time.monotonic()
        still = {a: until_s for a, until_s in self._passed_over_until_s.items() if until_s > now_s}
        self._passed_over_until_s = still | {address: now_s + PASS_OVER_S}

    def no_answer(self, tried: Collection[str]) -> Unconnected:
        """The error that says at which addresses nobody answered, and what to do."""
        names = ", ".join([*sorted(tried)[:_MOST_NAMED], *["…"][: len(tried) - _MOST_NAMED]])
        cure = "start one with `sluice up`, or name its address with --target or client.target"
        if self.is_followed and not {*tried} <= {self._target.text}:
            cure = (
                f"announced is {self._place}: see that each {self._service} server runs, and that "
                f"{self._service}.advertise is an address which can be reached from here"
            )
        return Unconnected(f"no server answers at {names}; {cure}")

    def is_exhausted(self, tried: Collection[str]) -> bool:
        """Whether every server had its turn."""
        return {*tried}.issuperset(self._current())

    def answered(self, address: str) -> None:
        """Note who answered."""
        self._answered = address

    async def _discover(self) -> Instances | None:
        """Follow the coordinator, if there is one, from the first use on."""
        if self._coordinator is None or self._instances is not None:
            return self._instances
        # Slow to import, and not needed for a server that is known by its address.
        from common.coordination import Instances  # noqa: PLC0415  # as said above

        asked_s = time.monotonic()
        async with self._discovering:
            if self._unknown is not None and self._unknown_since_s > asked_s:
                raise self._unknown  # who waited for this answer has it
            if self._instances is None:
                try:
                    self._instances = await Instances.open(self._coordinator, self._service)
                except SluiceError as error:
                    self._unknown, self._unknown_since_s = error, time.monotonic()
                    raise
        return self._instances

    def _current(self) -> tuple[str, ...]:
        if self._instances is not None:
            running = {instance.address for instance in self._instances.running}
            self._known = tuple(sorted(running)) or self._known
        return self._known

    def _in_flight(self, address: str) -> int:
        known = self._channels.get(address)
        return known.users if known else 0

    @property
    def _place(self) -> str:
        """Where the servers are announced."""
        prefix = f"{self._target.prefix()}/" if self._target.is_announced else ""
        return f"under {prefix}instances/{self._service}/"

    def _raise_unannounced(self) -> tuple[str, ...]:
        raise Unannounced(
            f"no {self._service} server is announced {self._place} of etcd; start one with "
            f"`sluice serve {self._service}` on the same coordinator.endpoints and "
            "coordinator.prefix, or name its address as HOST:PORT"
        )

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


async def _connects(channel: grpc.aio.Channel) -> bool:
    """Whether a connection stands or can be made; gRPC bounds the attempt."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in {
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
            grpc.ChannelConnectivity.SHUTDOWN,
        }:
            return False
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return True
