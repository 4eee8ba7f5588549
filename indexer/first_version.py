"""Giving a collection its first version: empty, and active at once.

It goes on where a crash left one half made. The version is pinned while it is made, so that the
collector does not take it for an abandoned build.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.coordination import VersionState
from common.errors import Contended, SluiceError

if TYPE_CHECKING:
    from common.coordination import (
        ChunkingSpec,
        CollectionState,
        IndexRegistry,
        Pins,
        VersionRecord,
    )
    from common.embedding import EmbedderSpec
    from indexer.versions import Versions

_UNFINISHED = frozenset({VersionState.BUILDING, VersionState.READY})


@dataclass(frozen=True, slots=True)
class FirstVersions:
    """Makes first versions of one embedder and chunking."""

    registry: IndexRegistry
    versions: Versions
    pins: Pins
    embedder: EmbedderSpec
    chunking: ChunkingSpec

    async def activate(self, state: CollectionState) -> None:
        """Activate an empty version of a collection that has no active one.

        Raises:
            Contended: another process makes or deletes it; nothing that is left is in the way of
                a repeat.
        """
        for record in state.versions:
            if self._is_half_made(record, state) and await self._made(record):
                return
        begun = await self.registry.begin_version(
            state.tenant, state.name, self.embedder, self.chunking
        )
        await self._made(begun)

    def _is_half_made(self, record: VersionRecord, state: CollectionState) -> bool:
        built = state.build is not None and state.build.version == record.number
        alike = (record.embedder, record.chunking) == (self.embedder, self.chunking)
        return record.state in _UNFINISHED and alike and not built

    async def _made(self, record: VersionRecord) -> bool:
        """Whether it could be made of this version: not if it holds anything."""
        async with self.pins.writing(record.tenant, record.collection, record.number):
            if await (await self.versions.create(record)).count():
                return False
            if record.state is VersionState.BUILDING:
                record = await self.registry.set_state(
                    record, VersionState.READY, documents=0, chunks=0
                )
            try:
                await self.registry.activate_first(record)
            except Contended:
                with suppress(SluiceError):  # the collector takes it, unless it is in use
                    await self.registry.fail(record, "another version was activated first")
                raise
            return True
