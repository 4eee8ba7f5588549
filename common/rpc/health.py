"""grpc.health.v1 for one server: every service of it is up, until the server stops.

Beside its services a server tells of conditions, such as whether a dependency can be reached, under
names of their own; they never change the health of a service or of the whole. Unlike the servicer
that ships with grpc, a watch ends once it has told that the server stops, so that watchers never
hold up a server that drains.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_Status: TypeAlias = health_pb2.HealthCheckResponse


class HealthCondition:
    """Something that holds or does not, told to those who ask for a server's health."""

    def __init__(self, *, holds: bool = True) -> None:
        self._holds = holds
        self._listeners: list[Callable[[], None]] = []

    @property
    def holds(self) -> bool:
        """What was told last."""
        return self._holds

    def tell(self, *, holds: bool) -> None:
        """Say whether it holds from now on."""
        if holds is not self._holds:
            self._holds = holds
            for listener in self._listeners:
                listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call the listener after each change."""
        self._listeners.append(listener)


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health ships no types
    """Health of the named services, of the server as a whole (the empty name), and conditions.

    Args:
        services: full names of proto services.
        conditions: by the name under which they are asked for; no service's.
    """

    def __init__(
        self, services: Iterable[str], conditions: Mapping[str, HealthCondition] | None = None
    ) -> None:
        self._services = frozenset(services) | {""}
        self._conditions = dict(conditions or {})
        self._stopping = False
        self._changed = asyncio.Event()
        for condition in self._conditions.values():
            condition.on_change(self._wake)

    def stop(self) -> None:
        """Answer NOT_SERVING from now on, and end the watches."""
        self._stopping = True
        self._wake()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802  # untyped message; named by the contract
        """The present status; NOT_FOUND for an unknown service."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return _Status(status=status)

    async def Watch(self, request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401, N802, ARG002  # as above
        """The present status, then each other one, until the server stops."""
        told = None
        while True:
            # Taken before the status, so that no change while it is told is missed.
            changed, stopping = self._changed, self._stopping
            if (status := self._status(request.service)) != told:
                told = status
                yield _Status(status=status)
            if stopping:
                return
            await changed.wait()

    def _wake(self) -> None:
        """Wake those who wait for a change; the next wait for the next one."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> int:
        condition = self._conditions.get(service)
        if condition is None and service not in self._services:
            return int(_Status.SERVICE_UNKNOWN)
        up = not self._stopping and (condition is None or condition.holds)
        return int(_Status.SERVING if up else _Status.NOT_SERVING)
