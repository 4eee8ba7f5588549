"""Which index version answers a search: taken once at its start and used to its end.

The routes held in memory answer as a rule. Only where they have nothing, or name a version that is
gone, is the coordinator itself asked, for the routes follow it by watch and may lag behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import EmbedderMismatch, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from common.coordination import IndexRegistry, Pointer, Routes
    from common.embedding import EmbedderSpec
    from common.rpc import Deadline
    from query.search_query import SearchQuery


class Router:
    """Pins versions for searches with one embedder.

    Args:
        routes: the active pointers as last known.
        registry: the pointers as they are.
        embedder: what this server embeds queries with.
    """

    def __init__(self, routes: Routes, registry: IndexRegistry, embedder: EmbedderSpec) -> None:
        self._routes = routes
        self._registry = registry
        self._embedder = embedder

    @property
    def stale(self) -> bool:
        """Whether the routes may be behind because the coordinator does not answer."""
        return self._routes.stale

    async def pin(self, query: SearchQuery, deadline: Deadline) -> Pointer:
        """The active version, at least the one the query's consistency token names.

        Raises:
            NotFound: no such collection.
            FailedPrecondition: no version is active, or it was written with another embedder.
            DeadlineExceeded: the version the token names is not active yet.
        """
        if query.at_least is not None:
            pointer = await self._routes.wait_for(
                query.tenant, query.collection, query.at_least.generation, deadline.remaining_s()
            )
        else:
            try:
                pointer = self._routes.active(query.tenant, query.collection)
            except NotFound:
                return await self.pin_afresh(query)
        return self._checked(pointer)

    async def pin_afresh(self, query: SearchQuery) -> Pointer:
        """The active version as the coordinator knows it now.

        Raises:
            NotFound: no such collection.
            FailedPrecondition: as of ``pin``.
            CoordinatorUnavailable: the coordinator does not answer.
        """
        state = await self._registry.collection(query.tenant, query.collection)
        if state.active is None:
            raise FailedPrecondition(
                f"collection {query.collection} has no active version; activate one first"
            )
        return self._checked(state.active)

    def _checked(self, pointer: Pointer) -> Pointer:
        if pointer.embedder != self._embedder:
            written, ours = pointer.embedder, self._embedder
            raise EmbedderMismatch(
                f"version {pointer.version} of collection {pointer.collection} was written with "
                f"{written.model} ({written.variant}, {written.digest[:12]}), this server embeds "
                f"with {ours.model} ({ours.variant}, {ours.digest[:12]}); configure the same "
                "embedder or rebuild the collection"
            )
        return pointer
