"""Why a call to a fleet reached nobody; on the wire they are UNAVAILABLE."""

from __future__ import annotations

from common.errors import Unavailable


class Unconnected(Unavailable):
    """No server could be connected to: the call was not sent."""


class Unannounced(Unavailable):
    """No server is announced, and none was."""
