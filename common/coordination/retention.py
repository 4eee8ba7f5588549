"""Which versions of a collection nobody needs any more: a pure rule over what was read.

It never names the active version, the one being built, or one that its builder may still activate.
That nobody reads a version is for the collector to make sure of before it deletes the store.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from common.coordination.records import VersionState

if TYPE_CHECKING:
    from datetime import datetime

    from common.coordination.records import CollectionState, VersionRecord


def collectable(
    state: CollectionState,
    *,
    keep_versions: int,
    keep_days: float,
    keep_failed_s: float,
    now: datetime,
) -> tuple[VersionRecord, ...]:
    """The versions to delete, by number.

    Args:
        state: the collection with its build under way.
        keep_versions: so many of the last retired versions stay, to be rolled back to; and as many
            of the last READY ones, but always one, which somebody may be about to activate.
        keep_days: further ones stay until they are out of use for longer than that.
        keep_failed_s: how long versions stay that failed or were abandoned, in seconds.
        now: in UTC.
    """
    retired = [one for one in state.versions if one.state is VersionState.RETIRED]
    # Without an active version one of them may be about to become the first.
    ready = [
        one
        for one in state.versions
        if one.state is VersionState.READY
        and state.active is not None
        and not _is_built(one, state)
    ]
    failed = [
        one
        for one in state.versions
        if one.state is VersionState.FAILED
        or (one.state is VersionState.BUILDING and not _is_built(one, state))
    ]
    kept_for, failed_for = timedelta(days=keep_days), timedelta(seconds=keep_failed_s)
    doomed = [
        *(one for one in _newest_first(retired)[keep_versions:] if now - _idle(one) > kept_for),
        *(
            one
            for one in _newest_first(ready)[max(1, keep_versions) :]
            if now - _idle(one) > kept_for
        ),
        *(one for one in failed if now - _idle(one) > failed_for),
    ]
    return tuple(sorted(doomed, key=lambda one: one.number))


def _is_built(record: VersionRecord, state: CollectionState) -> bool:
    return state.build is not None and state.build.version == record.number


def _newest_first(records: list[VersionRecord]) -> list[VersionRecord]:
    return sorted(records, key=lambda one: (_idle(one), one.number), reverse=True)


def _idle(record: VersionRecord) -> datetime:
    """Since when nothing has become of it."""
    verified_at = record.verdict.verified_at if record.verdict else None
    return record.retired_at or record.activated_at or verified_at or record.created_at
