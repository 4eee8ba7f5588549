"""Where a follower stands: the revision and the keys it knows.

It turns a fresh listing into the changes that bring the follower there, and is never ahead of what
was yielded: a change is noted after the follower took it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.coordination.coordinator import Change, Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


class Position:
    """A follower's revision and known keys."""

    def __init__(self, revision: int, known: Collection[str]) -> None:
        self.revision = revision
        self._known = set(known)

    def advance(self, changes: Sequence[Change]) -> Iterator[Change]:
        """Yield the changes of whole revisions in order, noting each; stand after the last."""
        for change in changes:
            yield change
            if change.value is None:
                self._known.discard(change.key)
            else:
                self._known.add(change.key)
        if changes:
            self.revision = changes[-1].mod_revision

    def relist(self, snapshot: Snapshot) -> Iterator[Change]:
        """Yield deletes for what vanished and puts for what is there; stand at the snapshot."""
        vanished = sorted(self._known.difference(entry.key for entry in snapshot.entries))
        yield from self.advance([Change(key, None, snapshot.revision) for key in vanished])
        puts = [Change(entry.key, entry.value, entry.mod_revision) for entry in snapshot.entries]
        yield from self.advance(puts)
        self.revision = snapshot.revision
