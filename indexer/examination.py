"""Verifying a version and writing down what was found, as far as its state lets it.

A builder's verification first ends its build: what is counted then can no longer grow, and query
servers may search it for golden queries. Until the verdict is there the record has one that did not
pass, so that what a crash left unverified is not activated unnoticed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.coordination import Verdict, VersionState
from common.errors import Contended, FailedPrecondition
from indexer.verification import verify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from common.coordination import IndexRegistry, VersionRecord
    from indexer.golden import Ask, Exam
    from indexer.store import VectorStore
    from indexer.verification import Examined
    from indexer.versions import Versions

_UNFINISHED = "its verification did not come to an end; verify it again"


async def _uncounted(record: VersionRecord) -> None:
    """Leave a version without word statistics."""
    del record


class Examination:
    """Examines versions for the services of this process."""

    def __init__(
        self,
        registry: IndexRegistry,
        versions: Versions,
        ask: Ask,
        *,
        count_words: Callable[[VersionRecord], Awaitable[None]] | None = None,
    ) -> None:
        """Construct it.

        Args:
            registry: the records.
            versions: what they name.
            ask: asks query servers.
            count_words: brings the word statistics of a version up to date before it can be
                searched; it takes a bounded time and never fails.
        """
        self._registry = registry
        self._versions = versions
        self._ask = ask
        self._count_words = count_words or _uncounted

    async def examine(
        self,
        record: VersionRecord,
        *,
        fence: int,
        expected_documents: int | None,
        exam: Exam | None,
    ) -> tuple[VersionRecord, Examined]:
        """Verify a version; with the fence of its builder a BUILDING one becomes READY.

        Returns:
            The record as it is then, and what was found.

        Raises:
            FailedPrecondition: the fence is not that of the build lock, the version was given up,
                or golden queries cannot be asked.
            Contended: a READY version was moved meanwhile.
        """
        if fence:
            _check_fence(record, fence)
        elif exam is not None and record.state is VersionState.BUILDING:
            raise FailedPrecondition(
                f"{_name(record)} is building: golden queries ask a version whose build has ended; "
                "wait for that or leave them out"
            )
        async with self._versions.reading(record) as store:
            if fence and record.state is VersionState.BUILDING:
                await self._count_words(record)
                record = await self._end_build(record, fence, store)
            found = await verify(
                store,
                record,
                expected_documents=expected_documents,
                exam=exam,
                ask=self._ask,
                active=await self._registry.pointer(record.tenant, record.collection),
            )
        return await self._write_down(record, found), found

    async def _end_build(
        self, record: VersionRecord, fence: int, store: VectorStore
    ) -> VersionRecord:
        return await self._registry.finish_build(
            record,
            fence,
            documents=len(await store.heads()),
            chunks=await store.count(),
            verdict=Verdict(passed=False, verified_at=datetime.now(UTC), findings=(_UNFINISHED,)),
        )

    async def _write_down(self, record: VersionRecord, found: Examined) -> VersionRecord:
        counts = {"documents": found.documents, "chunks": found.chunks}
        if record.state is VersionState.READY:
            verdict = _joined(record.verdict, found.verdict)
            return await self._registry.set_verdict(record, **counts, verdict=verdict)
        if record.state in {VersionState.ACTIVE, VersionState.RETIRED}:
            with suppress(Contended):  # it was swapped meanwhile; the report is as good without
                return await self._registry.set_verdict(record, **counts, verdict=None)
        return record


def _joined(known: Verdict | None, found: Verdict) -> Verdict:
    """The verdict to keep: without golden queries none speaks for those that were asked before."""
    if known is None or known.golden is None or found.golden is not None:
        return found
    if found.passed and not known.passed:
        return known
    return replace(found, golden=known.golden)


def _check_fence(record: VersionRecord, fence: int) -> None:
    if fence != record.fence:
        raise FailedPrecondition(
            f"{_name(record)} was begun with another fence; name the one that BeginVersion gave, "
            "or none"
        )
    if record.state is VersionState.FAILED:
        raise FailedPrecondition(
            f"{_name(record)} was given up ({record.failure}); begin another version"
        )


def _name(record: VersionRecord) -> str:
    return f"version {record.number} of {record.collection}"
