"""A fleet as the channel that generated stubs call: each unary call is balanced by itself.

The call's ``timeout`` is its deadline over all attempts. Streams are not balanced: they belong to
one server, whose channel ``Fleet.one`` gives; asking for one here is a fault of the program. When
repeats fail too, the servers are in trouble together: then there are none for a while, so that they
do not get many times their load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from common.discovery.failures import Unannounced, Unconnected
from common.errors import CoordinatorUnavailable, Overloaded, SluiceError, Unavailable
from common.rpc import Deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc

    from common.discovery.backoff import Backoff
    from common.discovery.fleet import Fleet

# As gRPC throttles retries (its gRFC A6), but that a first attempt is free: where one of many
# servers dies, all calls to it fail at once, and each may go on to another.
_MOST_TOKENS = 100
_TOKENS_OF_A_SUCCESS = 0.5


def balanced(fleet: Fleet, retry: Backoff, *, repeat: bool) -> grpc.aio.Channel:
    """The channel for a stub.

    Args:
        fleet: the servers.
        retry: rounds and pauses.
        repeat: for calls that are safe to repeat: they go on where a server is unavailable or
            overloaded. Others go on only where they were not sent.
    """
    # Of a channel, stubs use nothing but its four makers of calls.
    return cast("grpc.aio.Channel", _Balanced(fleet, retry, _may_help if repeat else _is_unsent))


class _Balanced:
    """What a stub uses of a channel."""

    def __init__(
        self, fleet: Fleet, retry: Backoff, goes_on: Callable[[SluiceError], bool]
    ) -> None:
        self._fleet = fleet
        self._retry = retry
        self._goes_on = goes_on
        self._tokens: float = _MOST_TOKENS

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Callable[..., Awaitable[Any]]:  # noqa: ANN401  # as the stubs call it
        async def call(request: object, *, timeout: float | None = None, **more: Any) -> Any:  # noqa: ANN401, ASYNC109  # gRPC's own signature
            deadline = None if timeout is None else Deadline.after(timeout)

            async def once(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401  # as above
                left_s = None if deadline is None else deadline.remaining_s()
                made: Any = channel.unary_unary(method, *args, **options)
                return await made(request, timeout=left_s, **more)

            failed = 0

            def goes_on(failure: SluiceError) -> bool:
                nonlocal failed
                may_go_on = self._goes_on(failure)
                if not may_go_on or isinstance(failure, Unconnected):
                    return may_go_on
                failed += 1
                if failed > 1:
                    self._tokens = max(0, self._tokens - 1)
                return self._tokens > _MOST_TOKENS / 2

            answer = await self._fleet.call(once, self._retry, goes_on=goes_on, deadline=deadline)
            self._tokens = min(_MOST_TOKENS, self._tokens + _TOKENS_OF_A_SUCCESS)
            return answer

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Callable[..., NoReturn]:  # noqa: ANN401  # as above
        def call(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401  # as above
            raise NotImplementedError(f"{method}: open a stream on the channel of Fleet.one")

        return call

    stream_unary = stream_stream = unary_stream


def _may_help(error: SluiceError) -> bool:
    """Whether another server may do better, or the same one soon."""
    # Whoever waits for an answer is told at once that there is nobody to ask.
    if isinstance(error, CoordinatorUnavailable | Unannounced):
        return False
    return isinstance(error, Unavailable | Overloaded)


def _is_unsent(error: SluiceError) -> bool:
    return isinstance(error, Unconnected)
