"""Which index version answers a search: taken once at its start and used to its end.

What serves in memory answers as a rule. Only where there is nothing, where it turns out to be gone,
or where a version is asked for by its number, is the coordinator itself asked.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from common.coordination import VersionState
from common.errors import EmbedderMismatch, FailedPrecondition
from query.index_version import IndexVersion
from query.switching import PIN_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.coordination import IndexRegistry
    from common.embedding import EmbedderSpec
    from common.rpc import Deadline
    from query.pinning import HeldVersion, PinnedVersions
    from query.search_query import SearchQuery
    from query.switching import Switching

KEEP_S: Final = 5.0
"""Golden queries come many in a row; between them nothing has to be asked."""

MAX_KEPT: Final = 64
"""Versions kept so at once; the oldest goes first."""

# Of the time left, at most this much is kept for telling that a wait was in vain: a client's own
# clock runs out at the same moment, and then it would not hear why.
ANSWER_S: Final = 0.1
ANSWER_SHARE: Final = 0.1

_SEARCHABLE: Final = frozenset({VersionState.READY, VersionState.ACTIVE, VersionState.RETIRED})


class Router:
    """Pins versions for searches with one embedder.

    Args:
        switching: what serves each collection.
        registry: pointers and records as they are.
        pinned: holds what was asked for by number.
        embedder: what this server embeds queries with.
        keep_s: how long a version asked for by number stays pinned, and its record is believed.
    """

    def __init__(
        self,
        switching: Switching,
        registry: IndexRegistry,
        pinned: PinnedVersions,
        embedder: EmbedderSpec,
        *,
        keep_s: float = KEEP_S,
    ) -> None:
        self._switching = switching
        self._registry = registry
        self._pinned = pinned
        self._embedder = embedder
        self._keep_s = keep_s
        self._kept: dict[tuple[str, str, int], HeldVersion] = {}

    @property
    def stale(self) -> bool:
        """Whether what serves may be behind because the coordinator does not answer."""
        return self._switching.stale

    @asynccontextmanager
    async def pinned(self, query: SearchQuery, deadline: Deadline) -> AsyncIterator[IndexVersion]:
        """The version to search, held while the context is open.

        It is the one the query names by number, else the active one, at least the one that its
        consistency token names.

        Raises:
            NotFound: no such collection or version.
            FailedPrecondition: no version is active, the version named is BUILDING or FAILED, or it
                was written with another embedder.
            DeadlineExceeded: the version the token names is not active yet.
            CoordinatorUnavailable: the coordinator has to be asked and does not answer.
        """
        held = self._switching.current(query.tenant, query.collection)
        if query.index_version and (held is None or held.version.number != query.index_version):
            held = self._kept.get((query.tenant, query.collection, query.index_version))
        if query.at_least is not None:
            left_s = deadline.remaining_s()
            held = await self._switching.at_least(
                query.tenant,
                query.collection,
                query.at_least.generation,
                left_s - min(ANSWER_S, ANSWER_SHARE * left_s),
            )
        if held is None:
            async with self.pinned_afresh(query) as version:
                yield version
        else:
            with held.used() as version:
                yield self._checked(version)

    @asynccontextmanager
    async def pinned_afresh(
        self, query: SearchQuery, gone: IndexVersion | None = None
    ) -> AsyncIterator[IndexVersion]:
        """The version to search as the coordinator knows it now; held while the context is open.

        Args:
            query: what is searched.
            gone: a version that the store no longer has. If another one serves by now, that is
                taken without a question.

        Raises:
            NotFound: no such collection or version.
            FailedPrecondition: as of ``pinned``.
            CoordinatorUnavailable: the coordinator does not answer.
        """
        held = self._switching.current(query.tenant, query.collection)
        if query.index_version:
            held = self._keep(await self._recorded(query))
        elif held is None or (gone is not None and held.version.number == gone.number):
            held = self._keep(await self._active(query))
        with held.used() as version:
            self._checked(version)
            await held.pinned(PIN_WITHIN_S)
            yield version

    async def _active(self, query: SearchQuery) -> IndexVersion:
        state = await self._registry.collection(query.tenant, query.collection)
        if state.active is None:
            raise FailedPrecondition(
                f"collection {query.collection} has no active version; activate one first"
            )
        return IndexVersion.active(state.active)

    async def _recorded(self, query: SearchQuery) -> IndexVersion:
        record = await self._registry.version(query.tenant, query.collection, query.index_version)
        if record.state not in _SEARCHABLE:
            raise FailedPrecondition(
                f"version {record.number} of collection {record.collection} is "
                f"{record.state.value}; only a version that is ready, active or retired can be "
                "searched"
            )
        return IndexVersion.recorded(record)

    def _keep(self, version: IndexVersion) -> HeldVersion:
        """Hold a version for a short while, in the place of one of its number held before.

        What was read of it may be believed meanwhile: a number is used once, an embedder never
        changes, and while the version is pinned its records stay in the store. Should the pin have
        come too late, the store says that they are gone, and it is read again. All that may be
        missed is that it was called FAILED a moment ago.
        """
        key = (version.tenant, version.collection, version.number)
        self._forget(key)
        while len(self._kept) >= MAX_KEPT:
            self._forget(next(iter(self._kept)))
        held = self._kept[key] = self._pinned.hold(version)
        asyncio.get_running_loop().call_later(self._keep_s, self._forget, key, held)
        return held

    def _forget(self, key: tuple[str, str, int], only: HeldVersion | None = None) -> None:
        """Hold it no longer; only if it still is ``only``, where that is given."""
        held = self._kept.get(key)
        if held is not None and only in {None, held}:
            del self._kept[key]
            held.release()

    def _checked(self, version: IndexVersion) -> IndexVersion:
        if version.embedder != self._embedder:
            written, ours = version.embedder, self._embedder
            raise EmbedderMismatch(
                f"version {version.number} of collection {version.collection} was written with "
                f"{written.model} ({written.variant}, {written.digest[:12]}), this server embeds "
                f"with {ours.model} ({ours.variant}, {ours.digest[:12]}); configure the same "
                "embedder or rebuild the collection"
            )
        return version
