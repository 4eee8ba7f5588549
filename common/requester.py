"""Who asks: the name under which a person or a job is told to others."""

from __future__ import annotations

import getpass
import os
import socket

MAX_BYTES = 256


def requester() -> str:
    """``user@host, process N``, at most 256 bytes of UTF-8; reads the environment's user name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in a container
        user = f"uid {os.getuid()}"
    name = f"{user}@{socket.gethostname()}, process {os.getpid()}"
    # The environment may hold bytes that are no text.
    return name.encode(errors="replace")[:MAX_BYTES].decode(errors="ignore")
