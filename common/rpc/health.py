"""grpc.health.v1 for one server: every service of it is up, until the server stops.

Unlike the servicer that ships with grpc, a watch ends once it has told NOT_SERVING, so that
watchers never hold up a server that drains.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_Status: TypeAlias = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health ships no types
    """Health of the named services and of the server as a whole (the empty name)."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services) | {""}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Answer NOT_SERVING from now on, and end the watches."""
        self._stopping.set()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802  # untyped message; named by the contract
        """The present status; NOT_FOUND for an unknown service."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return self._status(request.service)

    async def Watch(self, request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401, N802, ARG002  # as above
        """The present status, then NOT_SERVING when the server stops."""
        yield self._status(request.service)
        if not self._stopping.is_set():
            await self._stopping.wait()
            yield self._status(request.service)

    def _status(self, service: str) -> _Status:
        if service not in self._services:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        return _Status(status=_Status.NOT_SERVING if self._stopping.is_set() else _Status.SERVING)
