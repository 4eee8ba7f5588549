"""Values of cells as text and as metadata, whatever kind of table they come from.

Dates and times become RFC 3339 text, in UTC; those without a zone are taken to be in UTC. Bytes are
text if they are UTF-8 (or the fallback encoding's), else nothing; decimals and whole numbers beyond
64 bits are text, numbers that are not finite are nothing. Nested values become lines as those of
JSON Lines do.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from ingestor.extraction import plain_text
from ingestor.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.records import MetadataValue

MAX_METADATA_CHARACTERS = 1000
MAX_LIST_VALUES = 64
_INT64 = 2**63


def cell(row: Mapping[str, object], column: str) -> object:
    """The value of a column; a dotted name reaches into nested records. None if there is none."""
    if column in row:
        return row[column]
    head, dot, rest = column.partition(".")
    inner = row.get(head)
    return cell(inner, rest) if dot and isinstance(inner, dict) else None


def as_text(value: object, fallback_encoding: str | None = None) -> str:
    """The value as text; empty for null."""
    if isinstance(value, str):
        return plain_text.clean(value)
    if type(value) is int:
        return str(value)
    return "\n".join(as_lines("", value, fallback_encoding))


def as_lines(name: str, value: object, fallback_encoding: str | None = None) -> list[str]:
    """Lines ``name: value``, without those of empty values."""
    plain = _as_json(value, fallback_encoding)
    return [plain_text.clean(line) for line in plain_text.flatten(name, plain)]


def as_metadata(  # noqa: PLR0911 — a case a type
    value: object, fallback_encoding: str | None = None
) -> MetadataValue | None:
    """The value as metadata hold it, text cut at 1,000 characters; None for what is left out."""
    plain = _as_json(value, fallback_encoding)
    match plain:
        case None:
            return None
        case str() | list() | dict() if not plain:
            return None
        case bool():
            return plain
        case int():
            return plain if -_INT64 <= plain < _INT64 else str(plain)
        case float():
            return plain
        case str():
            return _cut(plain)
        case list() if not any(isinstance(item, dict | list) for item in plain):
            texts = [_cut(as_text(item)) for item in plain if item not in {None, ""}]
            return texts[:MAX_LIST_VALUES] or None
        case _:
            return _cut(json.dumps(plain, ensure_ascii=False))


def _cut(text: str) -> str:
    return plain_text.clean(text)[:MAX_METADATA_CHARACTERS]


def _as_json(  # noqa: PLR0911 — a case a type
    value: object, fallback_encoding: str | None
) -> object:
    """The value in the types of JSON."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            decoded = plain_text.decode(value, fallback_encoding)
            return None if isinstance(decoded, Fault) or decoded.replaced else decoded.text
        case datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return moment.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case dict():
            return {str(key): _as_json(member, fallback_encoding) for key, member in value.items()}
        case list() | tuple():
            if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):  # noqa: PLR2004
                # How pyarrow gives a map: pairs.
                return _as_json(dict(value), fallback_encoding)
            return [_as_json(item, fallback_encoding) for item in value]
        case _:
            return str(value)  # decimals, UUIDs
