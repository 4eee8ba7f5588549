"""One endpoint of etcd: its channel, its credentials, and what the codes of its answers mean.

A link connects, authenticates and passes one exchange on; it must never repeat an exchange that
etcd may have carried out, and never puts the password into an error or a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc
from aetcd import rpc
from grpc import ChannelConnectivity, StatusCode

from common.coordination.coordinator import RETRY_AFTER_MS
from common.errors import ConfigurationError, CoordinatorUnavailable, NotFound, SluiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
Message: TypeAlias = Any
"""A message or stream of etcd's protocol; aetcd ships no types."""

_OPTIONS = (
    # etcd closes connections that ping more often than every 5 s
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # the bound that gRPC goes by for an answer to a ping; a minute unless it is set
    ("grpc.http2.ping_timeout_ms", 5_000),
    # without this an idle watch is pinged only once a minute
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
)
_HAS_LEADER = (("hasleader", "true"),)
"""Asks etcd to end a stream whose member lost its leader, instead of leaving it silent."""

_GONE = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED})


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What an etcd endpoint asks for: PEM bytes for TLS, and a user with a password."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    user: str | None = None
    password: str | None = None

    @property
    def tls(self) -> bool:
        """Whether the channel is encrypted."""
        return self.ca is not None or self.certificate is not None


class Unreachable(Exception):
    """The endpoint takes no connection; nothing was sent."""


class EtcdLink:
    """A channel to one endpoint and the stubs on it."""

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        self.endpoint = endpoint
        self._credentials = credentials
        self._token: str | None = None
        if credentials.tls:
            secret = grpc.ssl_channel_credentials(
                credentials.ca, credentials.key, credentials.certificate
            )
            self._channel = grpc.aio.secure_channel(endpoint, secret, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        self.kv = rpc.KVStub(self._channel)
        self.lease = rpc.LeaseStub(self._channel)
        self.watch = rpc.WatchStub(self._channel)
        self._auth = rpc.AuthStub(self._channel)

    async def connect(self) -> None:
        """Wait until the channel stands; Unreachable as soon as an attempt fails."""
        state = self._channel.get_state(try_to_connect=True)
        while state is not ChannelConnectivity.READY:
            if state in {ChannelConnectivity.TRANSIENT_FAILURE, ChannelConnectivity.SHUTDOWN}:
                raise Unreachable
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def exchange(self, call: Callable[[EtcdLink, Metadata], Awaitable[T]]) -> T:
        """Make the call with this link's metadata.

        A call refused for an expired token is repeated once with a new one: etcd checks the token
        before it does anything.
        """
        try:
            return await call(self, await self._metadata())
        except grpc.aio.AioRpcError as error:
            if self._token is None or not _token_expired(error):
                raise
            self._token = None
            return await call(self, await self._metadata())

    async def close(self) -> None:
        """Close the channel; calls and streams on it end."""
        await self._channel.close()

    async def _metadata(self) -> Metadata:
        if self._credentials.user is None:
            return _HAS_LEADER
        if self._token is None:
            request = rpc.AuthenticateRequest(
                name=self._credentials.user, password=self._credentials.password
            )
            self._token = str((await self._auth.Authenticate(request)).token)
        return (*_HAS_LEADER, ("token", self._token))


def translate(error: Exception, endpoint: str, *, outcome_unknown: bool = False) -> SluiceError:
    """The error of the tree that a failed exchange becomes."""
    if isinstance(error, grpc.aio.AioRpcError):
        code, details = error.code(), error.details() or ""
        if code is StatusCode.NOT_FOUND and "lease" in details:
            return NotFound("the lease has ended and its keys with it; grant a new one")
        if code in {StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED} or (
            code is StatusCode.INVALID_ARGUMENT
            and ("authentication failed" in details or "user name is empty" in details)
        ):
            return ConfigurationError(
                f"etcd at {endpoint} refuses this user ({details}); check coordinator.user and "
                "coordinator.password_file, and that the user may read and write the prefix"
            )
        if code not in _GONE and code is not StatusCode.RESOURCE_EXHAUSTED:
            return SluiceError(f"etcd at {endpoint} answered {code.name}: {details}")
        cause = f"{code.name}: {details}"
    else:
        cause = "no connection" if isinstance(error, Unreachable) else "no answer in time"
    advice = (
        "whether the change was made is unknown: read before repeating it"
        if outcome_unknown
        else "check that etcd runs, that coordinator.endpoints and the TLS files fit, then repeat"
    )
    return CoordinatorUnavailable(
        f"etcd at {endpoint} does not answer ({cause}); {advice}", retry_after_ms=RETRY_AFTER_MS
    )


def is_gone(error: Exception) -> bool:
    """Whether another endpoint may do better."""
    return not isinstance(error, grpc.aio.AioRpcError) or error.code() in _GONE


def _token_expired(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is StatusCode.UNAUTHENTICATED or (
        error.code() is StatusCode.INVALID_ARGUMENT
        and "revision of auth store is old" in (error.details() or "")
    )
