"""What `sluice doctor` asks of every part: findings that name a fault and its cure.

A part offers checks through an entry point of the group ``sluice.checks``; the client runs them
and knows none of them by name. A check only looks: it must never repair, create or delete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

ENTRY_POINT_GROUP = "sluice.checks"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at, in one to three words.
        ok: whether it works.
        detail: what was found, in one line.
        cure: what to do next; empty when it works.
    """

    name: str
    ok: bool
    detail: str
    cure: str = ""


class CheckSource(Protocol):
    """What an entry point of the group names; called outside any event loop, so it may start one.

    An exception is reported as a fault of the part, so a source needs to catch only what it can
    explain better.
    """

    def __call__(self, *, file: Path | None, environ: Mapping[str, str]) -> Iterable[Check]:
        """Look, and tell what was found; file and environ are what ``config.load`` takes."""
