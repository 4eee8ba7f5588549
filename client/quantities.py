"""Numbers and times as a person reads them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

UNKNOWN = "-"
_TENTHS_BELOW = 10


def count(many: int | None) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if many is None else f"{many:,}"


def number(many: int | None, what: str) -> str:
    """So many of something, in English: ``1 query``, ``2 queries``."""
    if many == 1:
        return f"1 {what}"
    return f"{count(many)} {what[:-1]}ies" if what.endswith("y") else f"{count(many)} {what}s"


def rate(per_s: float) -> str:
    """How many a second."""
    return f"{per_s:.1f}/s" if per_s < _TENTHS_BELOW else f"{per_s:,.0f}/s"


def moment(time: datetime | None) -> str:
    """A time in the zone of whoever reads it, to the minute."""
    return UNKNOWN if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")


def ago(time: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits; a clock that is ahead counts as now."""
    if time is None:
        return UNKNOWN
    seconds = max(0, int((now - time).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:,} {unit} ago"
    return f"{seconds} s ago"
