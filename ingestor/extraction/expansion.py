"""How far what is compressed may expand: neither beyond a bound, nor as only a bomb does.

Real logs and tables expand up to a hundredfold; a bomb a thousandfold, which is as far as deflate
goes. So a bomb is refused after its first 64 MiB, long before the bound is met, and before lines
that hold nothing have taken a worker for minutes.
"""

from __future__ import annotations

from ingestor.extraction.extracted import Refusal
from ingestor.faults import Cause

_MAX_RATIO = 250
_FREE_BYTES = 64 * 2**20


def check(expanded: int, packed: int, max_bytes: int) -> None:
    """Refuse bytes that were, or are declared to be, expanded from so many packed ones."""
    if expanded > max_bytes:
        raise Refusal(Cause.TOO_LARGE, f"it expands to over {max_bytes} bytes")
    if expanded > _FREE_BYTES and expanded > _MAX_RATIO * packed:
        message = f"it expands over {_MAX_RATIO}-fold, as bombs do: if it is none, expand it first"
        raise Refusal(Cause.TOO_LARGE, message)


def check_text(size: int, packed: int, max_bytes: int) -> None:
    """Refuse documents that hold far more text together than the file has bytes.

    So do dictionaries of columnar files, blocks of Avro and long names of columns, which no codec's
    stream counts. Text of names and templates repeats in every row, hence both bounds must be met.
    """
    if size > max_bytes and size > _MAX_RATIO * packed:
        message = f"its documents hold over {max_bytes} bytes, {_MAX_RATIO}-fold what the file has"
        raise Refusal(Cause.TOO_LARGE, message)
