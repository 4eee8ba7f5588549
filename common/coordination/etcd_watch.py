"""A watch on etcd that outlives its streams.

etcd ends a stream when a member stops, loses its leader, or no longer keeps the history asked for.
This module opens the next one where the follower stands, or lists where that place is gone. It must
never skip a revision, and never end before the coordinator is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING

import grpc
from aetcd import rpc

from common.coordination.etcd_link import Unreachable, translate
from common.coordination.position import Position
from common.errors import CoordinatorUnavailable, SluiceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection

    from common.coordination.coordinator import Change
    from common.coordination.etcd import EtcdCoordinator
    from common.coordination.etcd_link import EtcdLink, Message, Metadata

_log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0


class EtcdWatch:
    """See Watch."""

    def __init__(
        self, coordinator: EtcdCoordinator, prefix: str, after_revision: int, known: Collection[str]
    ) -> None:
        self._coordinator = coordinator
        self._prefix = prefix
        self._position = Position(after_revision, known)
        self._must_list = False
        self._connected = True
        self._retry_s = _FIRST_RETRY_S

    @property
    def connected(self) -> bool:
        """False from the loss of the stream until the next one stands."""
        return self._connected

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._changes()

    async def _changes(self) -> AsyncGenerator[Change, None]:
        while not self._coordinator.closed:
            try:
                if self._must_list:
                    snapshot = await self._coordinator.list(self._prefix)
                    for change in self._position.relist(snapshot):
                        yield change
                    self._must_list = False
                async with self._stream() as stream:
                    while True:
                        changes = await stream.read()
                        self._connected, self._retry_s = True, _FIRST_RETRY_S
                        for change in self._position.advance(changes):
                            yield change
            except _HistoryGone:
                self._must_list = True
                await self._pause("history gone, listing again")
            except SluiceError as error:
                await self._pause(error.message)

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncIterator[_Stream]:
        create = rpc.WatchCreateRequest(
            start_revision=self._position.revision + 1, **self._coordinator.key_range(self._prefix)
        )

        async def call(link: EtcdLink, metadata: Metadata) -> _Stream:
            responses = link.watch.Watch(metadata=metadata)
            try:
                await responses.write(rpc.WatchRequest(create_request=create))
                first = await responses.read()
            except BaseException:
                responses.cancel()
                raise
            return _Stream(self._coordinator, link, responses, first)

        stream = await self._coordinator.exchange(call)
        try:
            stream.check_not_behind(self._position.revision)
            if not self._connected:
                await self._check_kept()
            yield stream
        finally:
            stream.cancel()

    async def _check_kept(self) -> None:
        """_HistoryGone if the next revision was compacted.

        The stream tells that too, but after a first response that says the watch stands.
        """
        if not await self._coordinator.keeps(self._prefix, self._position.revision + 1):
            raise _HistoryGone

    async def _pause(self, cause: str) -> None:
        if self._coordinator.closed:
            return
        if self._connected:
            _log.warning(
                "watch lost, taking it up again",
                extra={"prefix": self._prefix, "cause": cause},
            )
        self._connected = False
        await asyncio.sleep(self._retry_s * random.uniform(0.5, 1))  # noqa: S311  jitter
        self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)


class _Stream:
    """The responses of one watch on one link, from the first on."""

    def __init__(
        self, coordinator: EtcdCoordinator, link: EtcdLink, responses: Message, first: Message
    ) -> None:
        self._coordinator = coordinator
        self._link = link
        self._responses = responses
        self._first = first

    def check_not_behind(self, revision: int) -> None:
        """_HistoryGone if the store is behind the follower: it was restored from a backup."""
        if self._first is not grpc.aio.EOF and self._first.header.revision < revision:
            raise _HistoryGone

    async def read(self) -> list[Change]:
        """The changes of the next response; none in the first one.

        Raises:
            _HistoryGone: the revision asked for was compacted.
            CoordinatorUnavailable: the stream ended.
        """
        response, self._first = self._first, None
        try:
            if response is None:
                response = await self._responses.read()
            if response is grpc.aio.EOF:
                raise Unreachable  # noqa: TRY301  it is translated with the other ends of a stream
        except (grpc.aio.AioRpcError, Unreachable) as error:
            self._coordinator.turn_from(self._link)
            raise translate(error, self._link.endpoint) from error
        except asyncio.CancelledError:
            self._coordinator.check_not_closed()
            raise
        if response.compact_revision:
            raise _HistoryGone
        if response.canceled:
            raise CoordinatorUnavailable(f"etcd ended the watch: {response.cancel_reason}")
        return [self._coordinator.change(event) for event in response.events]

    def cancel(self) -> None:
        self._responses.cancel()


class _HistoryGone(Exception):
    """The changes after the follower's position are no longer kept."""
