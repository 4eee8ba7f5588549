"""Spans and points of time as people write them: ``90m``, ``7d``, ``2026-03-01``.

Pure functions; the clock is an argument.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw])")


def parse_duration(text: str) -> timedelta:
    """A number and s, m, h, d or w; ValueError for anything else and for nothing."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not int(match[1]):
        raise ValueError("write a time such as 30s, 90m, 24h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS_S[match[2]])


def parse_moment(given: object) -> timedelta | datetime:
    """A duration before now, or a date or time in ISO 8601; local time where no offset is named.

    Args:
        given: text, or the date or time that YAML made of it.

    Raises:
        ValueError: it is neither.
    """
    match given:
        case timedelta():
            return given
        case datetime():
            return given.astimezone()
        case date():
            return datetime.combine(given, time()).astimezone()
        case str() if _DURATION.fullmatch(given.strip().lower()):
            return parse_duration(given)
        case str():
            try:
                return datetime.fromisoformat(given.strip()).astimezone()
            except (ValueError, OverflowError):
                pass
        case _:
            pass
    raise ValueError("write a time such as 7d, 24h, 90m, 2026-03-01 or 2026-03-01T06:00+01:00")


def moment_us(moment: timedelta | datetime, now: datetime) -> int:
    """The point of time in µs since 1970."""
    point = now - moment if isinstance(moment, timedelta) else moment
    return int(point.timestamp() * 1e6)
