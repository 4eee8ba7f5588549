"""The indexers that a job sends to: those announced in its coordinator, else the target's.

Everything else about them is ``common.discovery``'s.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from common.discovery import Attempts, Fleet, Target, announcing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.connection import ConnectionSettings
    from common.coordination import Coordinator, CoordinatorSettings

__all__ = ["SERVICE", "Attempts", "Indexers"]

SERVICE = "indexer"


class Indexers(Fleet):
    """All indexers; made by ``open``."""

    @classmethod
    @asynccontextmanager
    async def open(  # type: ignore[override]  # from the settings of a job
        cls,
        client: ConnectionSettings,
        coordinator: Coordinator | None,
        settings: CoordinatorSettings | None = None,
    ) -> AsyncIterator[Indexers]:
        """Know the indexers while the context is open; nobody is called before the first use.

        Args:
            client: the target and its channel.
            coordinator: that of the job, if it has one; its indexers serve in place of a target
                that is an address.
            settings: of the coordinator; they say whether an etcd target is announced there.
        """
        async with (
            announcing(Target.parse(client.target), settings, coordinator) as found,
            super().open(client.target, client.channel, found, service=SERVICE) as indexers,
        ):
            yield indexers
