"""A channel as every client of Sluice opens it: retries, keepalive, trace context.

Retries are made by gRPC itself from the service config, and only for methods that are safe to
repeat. Tracing wraps the channel rather than using interceptors: those of grpc.aio put a task and
a queue between the caller and each message of a stream, and here calls stay what they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
from pydantic import Field

from common.config import Settings
from common.rpc.credentials import channel_credentials
from common.telemetry import ClientSpan

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Unary methods that may be repeated without changing anything twice.
IDEMPOTENT = (
    ("sluice.query.v1.QueryService", "Search"),
    ("sluice.collections.v1.CollectionsService", "DescribeCollection"),
    ("sluice.collections.v1.CollectionsService", "ListCollections"),
    ("sluice.index.v1.IndexService", "DeleteDocuments"),
    ("grpc.health.v1.Health", "Check"),
)


class ChannelSettings(Settings):
    """How a client reaches a server.

    Attributes:
        max_message_bytes: greatest request and response message.
        max_attempts: tries of an idempotent call, the first one included.
        tls: speak TLS; implied by any of the files.
        tls_ca: PEM authorities that sign servers; None for those that come with gRPC.
        tls_certificate: PEM chain of the client, for servers that ask for one.
        tls_key: PEM private key of the client.
        tls_server_name: the name the server's certificate must bear, where it is not the target's.
    """

    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_attempts: int = Field(default=4, ge=1, le=5)
    tls: bool = False
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None


DEFAULT_SETTINGS = ChannelSettings()


def open_channel(target: str, settings: ChannelSettings = DEFAULT_SETTINGS) -> grpc.aio.Channel:
    """A channel to the servers behind a target; connects on first use.

    Args:
        target: HOST:PORT, or a gRPC name such as ``dns:///query.sluice:50052``: calls go round
            all addresses it resolves to.
        settings: bounds and TLS.

    Raises:
        ConfigurationError: the TLS files cannot be used.
    """
    options = _options(settings)
    files = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
    if not settings.tls and not any(files):
        return _TracedChannel(grpc.aio.insecure_channel(target, options))
    return _TracedChannel(grpc.aio.secure_channel(target, channel_credentials(*files), options))


def service_config(max_attempts: int) -> dict[str, Any]:
    """The gRPC service config (its format: grpc/service_config.proto): balancing and retries."""
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        # When half of these tokens are spent by failures (one each; a success gives half a token
        # back), retries pause: a server in trouble must not get four times its load.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }
    if max_attempts > 1:
        retry_policy = {
            "maxAttempts": max_attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        names = [{"service": service, "method": method} for service, method in IDEMPOTENT]
        config["methodConfig"] = [{"name": names, "retryPolicy": retry_policy}]
    return config


def _options(settings: ChannelSettings) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(service_config(settings.max_attempts))),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A server that was away is found again within seconds.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if settings.tls_server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return options


class _TracedCall:
    """A method of a channel, of any of the four kinds, that takes trace context along."""

    def __init__(self, method: str, call: Callable[..., Any]) -> None:
        self._method = method.removeprefix("/")
        self._call = call

    def __call__(self, *args: Any, metadata: Any = None, **options: Any) -> Any:  # noqa: ANN401  # the stub's own types hold
        span = ClientSpan(self._method)
        call = self._call(*args, metadata=(*(metadata or ()), *span.headers().items()), **options)
        if span.is_recording():
            call.add_done_callback(lambda done: span.finish(_code_of(done)))
        return call


def _code_of(call: grpc.aio.Call) -> str:
    """The status of a call that is done."""
    if not call.done():
        return grpc.StatusCode.UNKNOWN.name
    status = call.code()
    try:
        # code() is a coroutine, but for a call that is done it never waits.
        status.send(None)
    except StopIteration as returned:
        code: grpc.StatusCode = returned.value
        return code.name
    finally:
        status.close()
    return grpc.StatusCode.UNKNOWN.name


class _TracedChannel(grpc.aio.Channel):
    """A channel whose calls carry trace context; everything else is the channel's own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as the stubs call it
        return _TracedCall(method, self._channel.unary_unary(method, *args, **options))

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as above
        return _TracedCall(method, self._channel.unary_stream(method, *args, **options))

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as above
        return _TracedCall(method, self._channel.stream_unary(method, *args, **options))

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as above
        return _TracedCall(method, self._channel.stream_stream(method, *args, **options))

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002  # the interface's
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._channel.__aexit__(kind, error, traceback)
