"""The address under which a service announces itself: one that other machines can connect to.

What a service listens on is no such address where it is every address of the machine. It must never
announce one of those: whoever read it would connect to itself.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.coordination.settings import CoordinatorSettings

# What stands for every address of the machine, and the kind of them.
_EVERY = {"0.0.0.0": socket.AF_INET, "[::]": socket.AF_UNSPEC, "[::0]": socket.AF_UNSPEC}
_MAX_PORT = 65_535


def advertised(service: str, advertise: str, listening: str, settings: CoordinatorSettings) -> str:
    """The address to announce, HOST:PORT. Asks the resolver, so it may block.

    Listening on every address, a service is announced by the one from which this machine reaches
    etcd: those who find it there are on that network too. If etcd is known by a loopback address
    alone, all are on this machine. The embedded coordinator's file is read on this machine alone.

    Args:
        service: the section of its settings, such as ``indexer``.
        advertise: what those settings say; empty for nothing.
        listening: what is bound: HOST:PORT or unix:PATH.
        settings: where it is announced.

    Raises:
        ConfigurationError: ``advertise`` is no HOST:PORT, or the machine has no address towards
            etcd.
    """
    if advertise:
        host, _, port = advertise.rpartition(":")
        if host and port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT:
            return advertise
        raise ConfigurationError(
            f"{service}.advertise: write HOST:PORT, the port from 1 to {_MAX_PORT}, not {advertise}"
        )
    host, _, port = listening.rpartition(":")
    family = _EVERY.get(host)
    if family is None:
        return listening
    if settings.kind == "embedded":
        return f"127.0.0.1:{port}" if family is socket.AF_INET else f"[::1]:{port}"
    own = _own_addresses(settings.endpoints, family)
    if not own:
        raise ConfigurationError(
            f"{service}.advertise: set the HOST:PORT under which other machines reach this "
            f"{service}: it listens on {listening}, and from here there is no way to the "
            "coordinator.endpoints that would tell"
        )
    best = min(own, key=_is_loopback)  # of equals the first
    return f"[{best}]:{port}" if ":" in best else f"{best}:{port}"


def _own_addresses(endpoints: Sequence[str], family: socket.AddressFamily) -> list[str]:
    """The addresses of this machine from which it would connect to these; nothing is sent."""
    own: list[str] = []
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        with suppress(OSError):
            found = socket.getaddrinfo(host.strip("[]"), port, family, socket.SOCK_DGRAM)
            for kind, how, protocol, _, remote in found:
                with suppress(OSError), socket.socket(kind, how, protocol) as towards:
                    towards.connect(remote)
                    own.append(str(towards.getsockname()[0]))
    return own


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
