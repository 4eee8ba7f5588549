"""What a client is told to reach: one address, or all servers that are announced in etcd.

    HOST:PORT, dns:///NAME:PORT        as gRPC names servers
    etcd:///INSTALLATION/SERVICE       those announced in the etcd of section ``coordinator``
    etcd://H1:2379,H2:2379/INSTALLATION/SERVICE

Parses only; it must never connect, and never takes a secret: TLS and the user of etcd are settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from common.errors import ConfigurationError

if TYPE_CHECKING:
    from common.coordination import CoordinatorSettings

_ETCD = "etcd"
# https://github.com/grpc/grpc/blob/master/doc/naming.md
_GRPC = frozenset({"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"})
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MAX_PORT = 65_535
_MAX_ENDPOINTS = 16
_FORMS = "write HOST:PORT, dns:///NAME:PORT, etcd:///INSTALLATION/SERVICE or etcd://HOST:PORT/…"


@dataclass(frozen=True, slots=True)
class Target:
    """A target, taken apart.

    Attributes:
        text: as it was written; a name for gRPC unless it is announced.
        installation: whose servers; empty for a target that is not announced.
        service: which of its services, such as ``query``; empty likewise.
        endpoints: of etcd, HOST:PORT each; empty for those of the settings.
    """

    text: str
    installation: str = ""
    service: str = ""
    endpoints: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a target apart.

        Raises:
            ConfigurationError: it is none; says how one is written.
        """
        scheme, separator, rest = text.partition("://")
        if scheme.startswith(f"{_ETCD}:/"):
            raise ConfigurationError(f"{text}: {_FORMS}")
        if not separator or scheme in _GRPC:
            return cls(text)
        if scheme != _ETCD:
            raise ConfigurationError(f"{text}: {scheme}:// cannot be used here; {_FORMS}")
        authority, _, path = rest.partition("/")
        if "@" in authority:
            # The text may hold a password, so it is not repeated.
            raise ConfigurationError(
                "a target names no user; set coordinator.user and coordinator.password_file"
            )
        *installation, service = path.split("/")
        if not installation or not all(map(_SEGMENT.fullmatch, installation)):
            raise ConfigurationError(f"{text}: names no installation; {_FORMS}")
        if not _SERVICE.fullmatch(service):
            raise ConfigurationError(f"{text}: ends with the name of a service, such as query")
        endpoints = tuple(authority.split(",")) if authority else ()
        if len(endpoints) > _MAX_ENDPOINTS or not all(map(_is_endpoint, endpoints)):
            raise ConfigurationError(
                f"{text}: name 1 to {_MAX_ENDPOINTS} endpoints of etcd, HOST:PORT each, or none"
            )
        return cls(text, "/".join(installation), service, endpoints)

    @property
    def is_announced(self) -> bool:
        """Whether the servers are those announced in etcd."""
        return bool(self.service)

    def of_service(self, service: str) -> Self:
        """The same installation's servers of another service; itself if it is not announced."""
        if not self.is_announced:
            return self
        text = f"{self.text.removesuffix(self.service)}{service}"
        return replace(self, text=text, service=service)

    def prefix(self, configured: str = "") -> str:
        """Prefix of the installation's keys; ``configured`` is that of the settings.

        An installation is named by its prefix without the version; one whose prefix has no version
        can be named where the settings say so.
        """
        bare = f"/{self.installation}"
        return bare if bare == configured else f"{bare}/v1"

    def coordinator(self, settings: CoordinatorSettings) -> CoordinatorSettings:
        """The settings of the etcd where the servers are announced; credentials as they are."""
        return settings.model_copy(
            update={
                "kind": "etcd",
                "endpoints": self.endpoints or settings.endpoints,
                "prefix": self.prefix(settings.prefix),
            }
        )


def _is_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT
