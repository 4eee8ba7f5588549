"""Which coordinator a process uses, and opening it.

The only place that chooses between the implementations and reads credential files; it must never
put what it read into an error or a log.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from common.config import Settings
from common.coordination.embedded import EmbeddedCoordinator
from common.coordination.etcd import EtcdCoordinator
from common.coordination.etcd_link import Credentials
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from common.coordination.coordinator import Coordinator


class CoordinatorSettings(Settings):
    """Section ``coordinator``.

    ``path`` is the file of the embedded coordinator. All other names but ``timeout_ms`` are for
    etcd: ``endpoints`` are HOST:PORT; TLS is used if ``ca_file`` or ``cert_file`` is set; files
    hold PEM, and ``password_file`` the password on its first line.
    """

    kind: Literal["embedded", "etcd"] = "embedded"
    path: Path | None = None
    endpoints: tuple[str, ...] = Field(default=("127.0.0.1:2379",), min_length=1, max_length=16)
    prefix: str = Field(default="/sluice/v1", pattern="^(/[A-Za-z0-9._-]+)+$")
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout_ms: int = Field(default=5_000, ge=100, le=60_000)

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("set user and password_file together, or neither")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("set cert_file and key_file together, or neither")
        return self


def open_coordinator(settings: CoordinatorSettings) -> Coordinator:
    """The coordinator that the settings name; close it with aclose.

    Call it in the event loop that is to use it: etcd's channel belongs to that loop, and is
    connected at the first call. Opening the embedded one blocks for a few milliseconds.

    Raises:
        ConfigurationError: a path is missing or a credential file cannot be read.
        FailedPrecondition: another process holds the embedded coordinator's file.
    """
    timeout_s = settings.timeout_ms / 1000
    if settings.kind == "embedded":
        if settings.path is None:
            raise ConfigurationError("coordinator.path: name the embedded coordinator's file")
        return EmbeddedCoordinator(settings.path, timeout_s=timeout_s)
    password = _read("password_file", settings.password_file)
    credentials = Credentials(
        ca=_read("ca_file", settings.ca_file),
        certificate=_read("cert_file", settings.cert_file),
        key=_read("key_file", settings.key_file),
        user=settings.user,
        password=None if password is None else password.decode().partition("\n")[0].rstrip("\r"),
    )
    return EtcdCoordinator(
        settings.endpoints, prefix=settings.prefix, credentials=credentials, timeout_s=timeout_s
    )


def _read(name: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"coordinator.{name}: {path} cannot be read ({error.strerror}); name a file that this "
            "user may read"
        ) from None
