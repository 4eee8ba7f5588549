"""Asks servers for their health by gRPC's own protocol (grpc.health.v1, Check), within a bound.

For probes, scripts that wait for a server, and ``doctor``. Each server is asked once: a probe must
not repeat, and must never change anything. A probe starts every few seconds, so nothing heavy may
be imported here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.discovery import open_fleet
from common.errors import DeadlineExceeded
from common.rpc import Deadline

if TYPE_CHECKING:
    from client.settings import Connection
    from common.discovery import Fleet

SERVING = "SERVING"
UNREACHABLE = "UNREACHABLE"
NOT_OFFERED = "NOT_OFFERED"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """What one server said of itself.

    Attributes:
        address: as gRPC names it.
        status: a status of grpc.health.v1; NOT_OFFERED, if it knows no such service or no health;
            UNREACHABLE, if there was no answer.
        reason: the whole in one line for a person.
    """

    address: str
    status: str
    reason: str

    @property
    def is_serving(self) -> bool:
        """Whether it takes requests."""
        return self.status == SERVING


async def ask_servers(
    target: str, settings: Connection, *, service: str, timeout_s: float
) -> list[ServerHealth]:
    """Ask every server behind a target, all at once.

    Args:
        target: an address, or an etcd target for all that are announced there.
        settings: TLS, and the coordinator of an etcd target.
        service: full name of a proto service, or of a condition of the server; empty for the whole
            server.
        timeout_s: bound on all of it, in seconds.

    Raises:
        ConfigurationError: the target or the files of credentials cannot be used.
        CoordinatorUnavailable: it does not say which servers there are.
        DeadlineExceeded: it does not say so in time.
        Unavailable: none is announced.
    """
    deadline = Deadline.after(timeout_s)
    once = settings.channel.model_copy(update={"max_attempts": 1})
    async with open_fleet(target, once, settings.coordinator, service="query") as fleet:
        try:
            async with deadline.timeout():
                addresses = await fleet.addresses()
        except TimeoutError:
            raise DeadlineExceeded(
                f"etcd did not say in {timeout_s:g} s which servers {target} has; see that it runs"
            ) from None
        left_s = deadline.remaining_s()
        asked = (ask(fleet, address, service=service, timeout_s=left_s) for address in addresses)
        return await asyncio.gather(*asked)


async def ask(fleet: Fleet, address: str, *, service: str, timeout_s: float) -> ServerHealth:
    """Ask one server of a fleet, within ``timeout_s`` seconds."""
    request = health_pb2.HealthCheckRequest(service=service)
    async with fleet.channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return _without_answer(error, address, service, timeout_s)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return ServerHealth(address, status, f"{address} says {status}")


def _without_answer(
    error: grpc.aio.AioRpcError, address: str, service: str, timeout_s: float
) -> ServerHealth:
    code = error.code()
    if code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}:
        return ServerHealth(address, NOT_OFFERED, f"{address} does not offer {service or 'health'}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        reason = f"{address} did not answer within {timeout_s:.2g} s"
    elif code is grpc.StatusCode.UNAVAILABLE:
        details = " ".join((error.details() or "").split())
        reason = f"no server answers at {address}: {details}"
    else:
        reason = f"{address} refused to answer: {code.name}"
    return ServerHealth(address, UNREACHABLE, reason)
