"""A gRPC server as every service runs it: health, reflection, bounds, errors, orderly stop.

Knows nothing of what it serves: services come as bindings. Opening never leaves a half-open server
behind, and stopping always ends within the drain time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import AfterValidator, Field

from common.config import Settings
from common.errors import ConfigurationError
from common.rpc.credentials import server_credentials
from common.rpc.health import Health, HealthCondition
from common.rpc.interceptor import ServerInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from common.rpc.interceptor import Refusal

    # Runs until the event is set; calls with the address once requests are taken.
    Service: TypeAlias = Callable[[asyncio.Event, Callable[[str], None]], Awaitable[None]]

logger = logging.getLogger(__name__)

_MAX_PORT = 65_535
# Many times what a watch takes to tell of a change, in seconds.
LAME_DUCK_S = 0.25


def _is_address(listen: str) -> str:
    """The text itself; gRPC would take a port that is too great modulo 65,536."""
    host, _, port = listen.rpartition(":")
    if listen.removeprefix("unix:") not in {listen, ""}:
        return listen
    if host and port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT:
        return listen
    raise ValueError(f"write HOST:PORT, the port from 0 to {_MAX_PORT}, or unix:PATH")


ListenAddress: TypeAlias = Annotated[str, AfterValidator(_is_address)]

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """One service that a server offers.

    Attributes:
        name: full name of the proto service, e.g. ``sluice.query.v1.QueryService``.
        register: adds its servicer to a server.
        conditions: what else the server's health tells of, by name.
        refusal: asked before a request is read that comes alone: the error that it gives is the
            answer, None lets the request in. It must not block.
    """

    name: str
    register: Callable[[grpc.aio.Server], None]
    conditions: Mapping[str, HealthCondition] = field(default_factory=dict)
    refusal: Refusal | None = None


class ServerSettings(Settings):
    """Where and within which bounds a server listens.

    Attributes:
        listen: HOST:PORT (port 0 takes a free one) or unix:PATH.
        max_message_bytes: greatest request and response message.
        max_concurrent_rpcs: beyond it an RPC is refused with RESOURCE_EXHAUSTED.
        drain_s: how long RPCs in flight may go on after the server was told to stop; new ones are
            taken for the first moment of it, while clients learn that it goes.
        tls_certificate: PEM chain; with tls_key the server speaks TLS only.
        tls_key: PEM private key.
        tls_client_ca: PEM authorities; with it clients must show a certificate.
    """

    listen: ListenAddress = "127.0.0.1:50051"
    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_concurrent_rpcs: int = Field(default=256, ge=1)
    drain_s: float = Field(default=20.0, ge=0.0)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None


class GrpcServer:
    """A running server; made by ``open``.

    Attributes:
        address: HOST:PORT that is really bound, or unix:PATH.
    """

    def __init__(self, server: grpc.aio.Server, health: Health, address: str) -> None:
        self._server = server
        self._health = health
        self.address = address

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: ServerSettings, bindings: Sequence[ServiceBinding]
    ) -> AsyncIterator[Self]:
        """Serve until the block ends, then tell NOT_SERVING, drain and stop.

        Who announces the server elsewhere withdraws that first, inside the block. Those who watch
        the announcement or the health may have sent a call before they saw it: calls are taken
        for another moment, then refused.

        Raises:
            ConfigurationError: the address cannot be bound, or the TLS files cannot be used.
        """
        # A client, which imports this module too, starts faster without.
        from grpc_reflection.v1alpha import reflection  # noqa: PLC0415  # as said above

        credentials = server_credentials(
            settings.tls_certificate, settings.tls_key, settings.tls_client_ca
        )
        server = grpc.aio.server(
            interceptors=[
                ServerInterceptor({one.name: one.refusal for one in bindings if one.refusal})
            ],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        names = [binding.name for binding in bindings]
        health = Health(
            names,
            {name: told for binding in bindings for name, told in binding.conditions.items()},
        )
        for binding in bindings:
            binding.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        reflection.enable_server_reflection([*names, HEALTH, reflection.SERVICE_NAME], server)
        address = _bind(server, settings.listen, credentials)
        await server.start()
        logger.info("serving", extra={"address": address, "services": names})
        try:
            yield cls(server, health, address)
        finally:
            logger.info("stopping", extra={"address": address, "drain_s": settings.drain_s})
            health.stop()
            lame_s = min(LAME_DUCK_S, settings.drain_s)
            try:
                await asyncio.sleep(lame_s)
            finally:
                await server.stop(settings.drain_s - lame_s)
            logger.info("stopped", extra={"address": address})


async def serve(
    settings: ServerSettings,
    bindings: Sequence[ServiceBinding],
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set, then drain.

    Args:
        settings: where and within which bounds.
        bindings: the services.
        stop: set it to end, e.g. by ``stop_on_signals``.
        on_ready: gets the bound address once requests are answered.

    Raises:
        ConfigurationError: as ``GrpcServer.open``.
    """
    async with GrpcServer.open(settings, bindings) as server:
        if on_ready is not None:
            on_ready(server.address)
        await stop.wait()


def stop_on_signals(stop: asyncio.Event) -> None:
    """Let the first SIGTERM or SIGINT set the event; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def first() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, first)


def run_until_signal(name: str, service: Service) -> None:
    """Run a service in an event loop of its own until SIGTERM or SIGINT; tells when it is ready."""

    def ready(address: str) -> None:
        # What was loaded stays. To walk it, the collector would hold up calls again and again.
        gc.collect()
        gc.freeze()
        # For who started it, beside the log.
        print(f"sluice {name} is ready on {address}", file=sys.stderr, flush=True)  # noqa: T201 — as said

    async def serving() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        await service(stop, ready)

    asyncio.run(serving())


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # A second server on the port is an error, not a silent share of its clients.
        ("grpc.so_reuseport", 0),
        # Clients may probe an idle connection this often; ours do so every 30 s.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # Find dead clients, so that their streams end.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ConfigurationError(
            f"listen: cannot bind {listen}; another process holds it or it is no address of this"
            " machine; stop that process or choose another (port 0 takes a free one)"
        ) from error
    if listen.startswith("unix:"):
        return listen
    return f"{listen.rpartition(':')[0]}:{port}"
