"""Golden queries over the wire: one search of a named version, at any query server that can.

Servers may embed with different models while an installation moves from one to another, so one that
refuses is passed over for the next. What no server can answer is a state of the installation and
says what to start; it must never look like a search that found nothing.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from common.discovery import Retry, Unannounced, Unconnected, is_passing, open_fleet
from common.errors import FailedPrecondition, SluiceError
from indexer.golden import FoundSource
from sluice.query.v1 import query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from common.coordination import Coordinator, CoordinatorSettings
    from common.discovery import Fleet
    from common.rpc import ChannelSettings

SERVICE: Final = "query"
# Of one server, for one query; then another is asked.
_TIMEOUT_S = 10.0
_RETRY = Retry(max_attempts=2)


class QueryClient:
    """Asks the query servers of a fleet; an ``indexer.golden.Ask``."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        target: str,
        channel: ChannelSettings,
        coordinator: Coordinator | None,
        settings: CoordinatorSettings | None = None,
    ) -> AsyncIterator[Self]:
        """Know the query servers while the context is open; none is called before the first query.

        Args:
            target: as ``Target`` takes it apart; empty for those announced to the coordinator.
            channel: TLS and bounds of each connection.
            coordinator: of the indexer; None for the target alone.
            settings: of the coordinator; they say whether an etcd target is announced there.

        Raises:
            ConfigurationError: the target is none, or needs a coordinator.
        """
        async with open_fleet(
            target, channel, settings, service=SERVICE, opened=coordinator
        ) as fleet:
            yield cls(fleet)

    async def __call__(
        self, tenant: str, collection: str, version: int, query: str, depth: int
    ) -> list[FoundSource]:
        """Search a version; the sources of the first hits, at most ``depth``, best first.

        Raises:
            FailedPrecondition: no query server runs, or none that can search this version.
            SluiceError: what the search failed with at every server.
        """
        request = query_pb2.SearchRequest(
            tenant=tenant,
            collection=collection,
            text=query,
            top_k=depth,
            index_version=version,
            # A source counts as found wherever else its text stands.
            keep_duplicates=True,
        )

        async def search(channel: grpc.aio.Channel) -> query_pb2.SearchResponse:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            response = await stub.Search(request, timeout=_TIMEOUT_S)
            if response.index_version != version:
                raise FailedPrecondition(
                    f"the server searched version {response.index_version} instead; it is older "
                    "than this indexer: bring it up to date"
                )
            return response

        refusals: list[FailedPrecondition] = []
        failures: list[SluiceError] = []

        def goes_on(error: SluiceError) -> bool:
            if isinstance(error, FailedPrecondition):
                refusals.append(error)
                return True
            failures.append(error)
            return is_passing(error)

        try:
            response = await self._fleet.call(search, _RETRY, goes_on=goes_on)
        except SluiceError:
            raise _outcome(collection, version, refusals, failures) from None
        return [FoundSource(hit.source_uri, hit.document_id) for hit in response.hits]


def _outcome(
    collection: str,
    version: int,
    refusals: list[FailedPrecondition],
    failures: list[SluiceError],
) -> SluiceError:
    """What all attempts together come to: waiting may cure a failure, but no refusal."""
    for failure in reversed(failures):
        if not isinstance(failure, Unannounced | Unconnected):
            return failure
    if refusals:
        return FailedPrecondition(
            f"no query server can search version {version} of collection {collection}; start a "
            "query server that embeds with what the version was written with. One that runs says: "
            f"{refusals[-1].message}"
        )
    return FailedPrecondition(f"golden queries need a query server: {failures[-1].message}")
