"""The time that a line of a log tells, by a pattern in the directives of ``strptime``.

    %Y %y  year, of four or two digits    %m %d  month, day      %b  Jan … Dec     %a  Mon … Sun
    %H %M %S  hour, minute, second        %I %p  1 … 12, AM/PM   %f  fraction of a second
    %z  +hh:mm, -hhmm or Z                %s  seconds since the epoch

A blank stands for any number of them. The pattern is looked for in the first 256 characters, first
match first. Times without ``%z`` are taken to be in UTC. Where a pattern tells no year it is given,
and goes up by one when the time falls by more than half a year; a line that seems to be more than
half a year ahead is one of the year before.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SEARCHED_CHARACTERS = 256
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>\d\d?)",
    "d": r"(?P<d>\d\d?)",
    "b": f"(?P<b>{'|'.join(_MONTHS)})",
    "a": "(?:mon|tue|wed|thu|fri|sat|sun)",
    "H": r"(?P<H>\d\d?)",
    "I": r"(?P<I>\d\d?)",
    "p": "(?P<p>am|pm)",
    "M": r"(?P<M>\d\d)",
    "S": r"(?P<S>\d\d)",
    "f": r"(?P<f>\d{1,9})",
    "z": r"(?P<z>z|[+-]\d\d:?\d\d)",
    "s": r"(?P<s>\d{9,11})",
    "%": "%",
}
_TOKEN = re.compile(r"%(.?)| +|[^% ]+", re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HALF_A_YEAR_US = 183 * 86_400 * 1_000_000
_CENTURY_TURNS_AT = 69  # as POSIX has it: 68 is 2068, 69 is 1969


class Timestamps:
    """Finds times in lines, in their order.

    Args:
        pattern: see the module; ValueError if it does not tell a day and an hour, or tells a year
            besides ``year``, or none without.
        year: that of the first line, where the pattern tells none.
    """

    def __init__(self, pattern: str, year: int | None) -> None:
        self._expression = _compiled(pattern, has_year=year is not None)
        self._year = year
        self._last_us: int | None = None
        self._last_found = ""

    def find(self, line: str) -> int | None:
        """Microseconds since the epoch; None if the line tells no time."""
        found = self._expression.search(line, 0, _SEARCHED_CHARACTERS)
        if found is None:
            return None
        if found[0] == self._last_found:  # as most lines of a busy log
            return self._last_us
        try:
            time_us = self._time_us(found.groupdict())
        except (ValueError, OverflowError):  # the 30th of February
            return None
        self._last_found, self._last_us = found[0], time_us
        return time_us

    def _time_us(self, told: dict[str, str | None]) -> int:
        fraction_us = int((told.get("f") or "").ljust(6, "0")[:6])
        if seconds := told.get("s"):
            return int(seconds) * 1_000_000 + fraction_us
        time_us = _microseconds(told, self._year_of(told)) + fraction_us
        if self._year is None or self._last_us is None:
            return time_us
        fell_us = self._last_us - time_us
        if fell_us > _HALF_A_YEAR_US:
            self._year += 1
            time_us = _microseconds(told, self._year) + fraction_us
        elif fell_us < -_HALF_A_YEAR_US:  # a late line, from before the turn of the year
            time_us = _microseconds(told, self._year - 1) + fraction_us
        return time_us

    def _year_of(self, told: dict[str, str | None]) -> int:
        if year := told.get("Y"):
            return int(year)
        if year := told.get("y"):
            return int(year) + (2000 if int(year) < _CENTURY_TURNS_AT else 1900)
        assert self._year is not None  # noqa: S101 — checked with the pattern
        return self._year


def _microseconds(told: dict[str, str | None], year: int) -> int:
    month = told.get("m")
    name = told.get("b")
    hour = int(told.get("H") or told.get("I") or 0)
    if half := told.get("p"):
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    moment = datetime(
        year,
        int(month) if month else _MONTHS.index((name or "").lower()) + 1,
        int(told["d"] or 0),
        hour,
        int(told.get("M") or 0),
        min(59, int(told.get("S") or 0)),  # a leap second belongs to the one before
        tzinfo=UTC,
    )
    zone = told.get("z")
    if zone and zone not in "zZ":
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        moment -= timedelta(minutes=minutes if zone[0] == "+" else -minutes)
    return (moment - _EPOCH) // _MICROSECOND


def _compiled(pattern: str, *, has_year: bool) -> re.Pattern[str]:
    expression = ""
    told = set()
    for token in _TOKEN.finditer(pattern):
        directive = token[1]
        if directive is None:
            expression += " +" if token[0].isspace() else re.escape(token[0])
        elif directive in _DIRECTIVES and (directive == "%" or directive not in told):
            expression += _DIRECTIVES[directive]
            told.add(directive)
        else:
            raise ValueError(f"%{directive} is unknown, or stands there twice")
    if "s" not in told:
        day = "d" in told and told & {"m", "b"}
        if not day or not (told & {"H"} or {"I", "p"} <= told):
            raise ValueError("it must tell the day and the hour, or %s")
        if bool(told & {"Y", "y"}) == has_year:
            raise ValueError("it must tell the year (%Y or %y), or year must be given, not both")
    elif has_year:
        raise ValueError("%s tells the year: leave out year")
    # Digits that go on are another number.
    return re.compile(rf"(?<!\d){expression}(?!\d)", re.IGNORECASE)
