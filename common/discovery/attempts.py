"""The attempts of one call to a fleet: how many, at whom, and with which pauses."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from common.discovery.backoff import delay_s, is_passing
from common.discovery.failures import Unconnected
from common.errors import DeadlineExceeded, SluiceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

    from common.discovery.backoff import Backoff
    from common.discovery.fleet import Fleet
    from common.rpc import Deadline


class Attempts:
    """Bounds the attempts of one call: at each server in turn, with a pause after each round.

    Args:
        fleet: the servers.
        retry: rounds and pauses.
        goes_on: after which failures the next attempt follows.
        deadline: neither a pause nor the search for a server goes beyond it.
        stays: the first attempt is at the server that answered last.

    Attributes:
        address: of the attempt under way; empty while there is none.
    """

    def __init__(
        self,
        fleet: Fleet,
        retry: Backoff,
        *,
        goes_on: Callable[[SluiceError], bool] = is_passing,
        deadline: Deadline | None = None,
        stays: bool = True,
    ) -> None:
        self._fleet = fleet
        self._retry = retry
        self._goes_on = goes_on
        self._deadline = deadline
        self._stays = stays
        self.address = ""
        self._tried: set[str] = set()
        self._rounds = 0
        # Of this round: what a server answered says more than that another one did not.
        self._answered: SluiceError | None = None

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """The channel for the next attempt."""
        self.address = ""
        self.address = await self._pick()
        async with self._fleet.channel(self.address) as channel:
            yield channel
            self._fleet.answered(self.address)

    async def failed(self, failure: SluiceError) -> None:
        """Turn to the next server, after a pause if all had their turn.

        Raises:
            SluiceError: the failure, if it does not go on after it or every attempt is used up.
        """
        if self.address:
            self._tried.add(self.address)
            if isinstance(failure, Unavailable | DeadlineExceeded):
                self._fleet.turn_from(self.address)
        if not isinstance(failure, Unconnected):
            self._answered = failure
        if not self._goes_on(failure):
            raise failure
        if self.address and not self._fleet.is_exhausted(self._tried):
            return
        self._rounds += 1
        pause_s = delay_s(self._retry, self._rounds, failure)
        is_late = self._deadline is not None and self._deadline.remaining_s() <= pause_s
        if self._rounds >= self._retry.max_attempts or is_late:
            raise self._answered or self._fleet.no_answer(self._tried)
        self._tried.clear()
        self._answered = None
        await asyncio.sleep(pause_s)

    async def _pick(self) -> str:
        pick = self._fleet.pick(self._tried, stays=self._stays)
        if self._deadline is None:
            return await pick
        try:
            async with self._deadline.timeout():
                return await pick
        except TimeoutError:
            raise DeadlineExceeded(
                "the coordinator did not tell in time where the servers are; check that etcd runs "
                "and has a leader, or allow more time"
            ) from None
