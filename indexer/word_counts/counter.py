"""A pass over an index version: what it holds is listed, what changed counted, the sum published.

The store decides: what it does not list is taken back, what was never counted is read, in lots of a
bounded size. A write that was acknowledged before a pass began is in what that pass publishes; one
that comes later brings about a pass of its own.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol

from common.errors import Contended
from indexer.word_counts.ledger import DamagedLedger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.coordination import VersionRecord, WordStatisticsRecord
    from indexer.store import ChunkWords, StoreCatalog, VectorStore
    from indexer.word_counts.ledger import Ledger
    from indexer.word_counts.ledgers import Ledgers
    from indexer.word_counts.publisher import Publisher
    from rerank_zig import WordCounts

logger = logging.getLogger(__name__)

_LOT_CHUNKS: Final = 1_000
_ATTEMPTS: Final = 4


class WordCounter(Protocol):
    """Counts the words of chunks; the same text gives the same counts everywhere."""

    def count_words(self, titles: Sequence[bytes], texts: Sequence[bytes]) -> WordCounts:
        """Count n titles and n texts in UTF-8. Blocking."""
        ...


class Counter:
    """Counts versions, one at a time."""

    def __init__(
        self, stores: StoreCatalog, ledgers: Ledgers, publisher: Publisher, words: WordCounter
    ) -> None:
        self._stores = stores
        self._ledgers = ledgers
        self._publisher = publisher
        self._words = words
        self._turn = asyncio.Lock()

    async def count(self, record: VersionRecord) -> WordStatisticsRecord | None:
        """Publish what the version holds now; None if it is gone.

        Raises:
            NotFound: its store is not there, or not any more.
            Contended: others published in between, again and again.
            Unavailable: the store, the coordinator or the ledger does not answer.
        """
        async with self._turn:
            for _ in range(_ATTEMPTS):
                try:
                    draft = await self._publisher.begin(record)
                    if draft is None:
                        await self._ledgers.forget(record.store_collection)
                        return None
                    known = draft.seen.published
                    if known is not None and known.analysis > self._ledgers.analysis:
                        return known  # an indexer of a newer release counts
                    async with self._ledgers.opened(record.store_collection) as ledger:
                        await self._compare(
                            ledger, await self._stores.open(record.store_collection)
                        )
                        table = await self._ledgers.call(ledger.table)
                    published = await self._publisher.publish(draft, table)
                except DamagedLedger as error:
                    logger.warning(
                        "a ledger of words is thrown away, all is counted anew",
                        extra={"store": record.store_collection, "cause": error.message},
                    )
                    await self._ledgers.forget(record.store_collection)
                    continue
                if published is not None:
                    return published
        raise Contended(
            f"the words of version {record.number} of collection {record.collection} are counted "
            "by others at the same time; they are counted again later"
        )

    async def _compare(self, ledger: Ledger, store: VectorStore) -> None:
        """Bring the ledger to what the store holds."""
        await self._ledgers.call(ledger.begin_listing)
        async with aclosing(store.pages()) as pages:
            async for chunk_ids in pages:
                await self._ledgers.call(ledger.list_held, chunk_ids)
        await self._ledgers.call(ledger.discount_unlisted)
        after = ""
        while lot := await self._ledgers.call(ledger.uncounted, after, _LOT_CHUNKS):
            after = lot[-1]
            # What is gone since it was listed is left out: whoever deleted it has it counted.
            found = await store.words(lot)
            await self._ledgers.call(self._add, ledger, found)

    def _add(self, ledger: Ledger, found: Sequence[ChunkWords]) -> None:
        counts = self._words.count_words(
            [chunk.title.encode() for chunk in found], [chunk.text.encode() for chunk in found]
        )
        ledger.count([chunk.id for chunk in found], counts)
