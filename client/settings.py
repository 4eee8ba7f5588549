"""The sections that the command line of the client reads."""

from __future__ import annotations

from common.config import Settings
from common.connection import ConnectionSettings


class ClientConfig(Settings):
    """Read once by the command line; a program that uses the Python client needs none of it."""

    client: ConnectionSettings = ConnectionSettings()
