"""The word statistics of the versions that are searched, loaded beside the searches and followed.

Asking never waits: what is not loaded is answered with None, and words are weighed by the
candidates. The last table that could be read serves until a newer one can be. One table is loaded
at a time; all together hold a bounded number of bytes, and those of versions that nobody searches
any more are dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from common.errors import SluiceError
from common.identity import DEFAULT_TENANT, store_collection
from common.telemetry import describe_exception
from common.word_table import TERM_BYTES, UnreadableTable, decode
from rerank_zig import ANALYSIS, WordStatistics

if TYPE_CHECKING:
    from common.coordination import Pointer, Routes, WordStatisticsRecord
    from common.word_parts import WordParts
    from query.index_version import IndexVersion

logger = logging.getLogger(__name__)

KEEP_S: Final = 30.0
"""How long the table of a version that is not active stays after its last use."""

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0

_MAX_DOUBLINGS: Final = 16
# What zlib and the header may add to a table.
_SLACK_BYTES: Final = 2**12
_SLACK_SHARE: Final = 0.01


class _Place(NamedTuple):
    tenant: str
    collection: str
    number: int


@dataclass(slots=True)
class _Loaded:
    """A table in memory; ``used_s`` is the moment of its last use on the loop's clock."""

    digest: str
    statistics: WordStatistics
    used_s: float

    @property
    def size(self) -> int:
        return len(self.statistics.hashes) * TERM_BYTES


@dataclass(frozen=True, slots=True)
class _Failed:
    """A table that could not be loaded: how often, and when a search may have it tried again."""

    table: str
    times: int
    retry_at_s: float


class FollowedStatistics:
    """Word statistics by index version; made and used on one event loop.

    Args:
        routes: tell what is published and which versions are active.
        parts: where the tables are.
        max_bytes: what all tables together may take in memory; a larger one is not loaded. 0 loads
            none.
        keep_s: how long a table stays of which the version is not active, after its last use.
        retry_s: from a failed load to the next try; it doubles up to a minute.
    """

    def __init__(
        self,
        routes: Routes,
        parts: WordParts,
        *,
        max_bytes: int,
        keep_s: float = KEEP_S,
        retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._routes = routes
        self._parts = parts
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._retry_s = retry_s
        self._loop = asyncio.get_running_loop()
        self._loaded: OrderedDict[_Place, _Loaded] = OrderedDict()  # the last used one is last
        self._failed: dict[_Place, _Failed] = {}
        self._wanted: dict[_Place, bool] = {}  # whether a search asked for it
        self._loading: asyncio.Task[None] | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False
        routes.on_statistics(lambda place: self._published(_Place(*place)))
        routes.on_move(self._moved)
        for pointer in routes.pointers:
            self._want(_Place(pointer.tenant, pointer.collection, pointer.version), asked=False)

    @property
    def bytes(self) -> int:
        """What the tables take in memory."""
        return sum(one.size for one in self._loaded.values())

    def of(self, version: IndexVersion) -> WordStatistics | None:
        """The statistics of a version, None while there are none or they are not loaded yet."""
        place = _Place(version.tenant or DEFAULT_TENANT, version.collection, version.number)
        record = self._routes.statistics(place)
        if record is None or not record.chunks:
            return None
        loaded = self._loaded.get(place)
        if loaded is None or loaded.digest != record.digest:
            failed = self._failed.get(place)
            if failed is None or self._loop.time() >= failed.retry_at_s:
                self._want(place, asked=True)
        if loaded is None:
            return None
        loaded.used_s = self._loop.time()
        self._loaded.move_to_end(place)
        return loaded.statistics

    async def aclose(self) -> None:
        """Stop loading and forget all."""
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        self._loaded.clear()
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError):
                await self._loading

    def _published(self, place: _Place) -> None:
        self._failed.pop(place, None)
        if self._routes.statistics(place) is None:
            self._loaded.pop(place, None)
        elif place in self._loaded:
            self._want(place, asked=True)
        elif self._is_active(place):
            self._want(place, asked=False)

    def _moved(self, tenant: str, collection: str, pointer: Pointer | None) -> None:
        if pointer is not None:
            kin = any(one[:2] == (tenant, collection) for one in self._loaded)
            self._want(_Place(tenant, collection, pointer.version), asked=kin)
        self._tidy_later()

    def _want(self, place: _Place, *, asked: bool) -> None:
        """Have the table of a version loaded, if it is not."""
        if self._closed or not self._max_bytes:
            return
        self._wanted[place] = asked or self._wanted.get(place, False)
        if self._loading is None:
            self._loading = self._loop.create_task(self._load_wanted(), name="word-statistics")

    async def _load_wanted(self) -> None:
        try:
            while self._wanted:
                place = next(iter(self._wanted))
                await self._load(place, asked=self._wanted.pop(place))
        finally:
            self._loading = None

    async def _load(self, place: _Place, *, asked: bool) -> None:
        record = self._routes.statistics(place)
        loaded = self._loaded.get(place)
        if record is None or not record.chunks or (loaded and loaded.digest == record.digest):
            return
        size = record.terms * TERM_BYTES
        if not asked and self.bytes + size > self._max_bytes:
            return  # nothing in use makes room for what nobody asked for
        try:
            self._check_usable(record)
            blob = await self._parts.read(
                store_collection(*place),
                record.table,
                record.parts,
                max_bytes=size + int(size * _SLACK_SHARE) + _SLACK_BYTES,
            )
            statistics = await asyncio.to_thread(_read, blob, record)
        except Exception as error:  # noqa: BLE001 — whatever it is, searches go on without
            self._not_loaded(place, record, error)
            return
        if self._closed or self._routes.statistics(place) is None:
            return
        self._failed.pop(place, None)
        used_s = loaded.used_s if loaded else self._loop.time()
        self._loaded[place] = _Loaded(record.digest, statistics, used_s)
        if asked or loaded:
            self._loaded.move_to_end(place)
        else:
            self._loaded.move_to_end(place, last=False)
        while self.bytes > self._max_bytes:
            self._loaded.popitem(last=False)
        self._tidy_later()
        logger.info(
            "the words of a version are weighed by its statistics",
            extra=_named(place) | {"chunks": record.chunks, "terms": record.terms},
        )

    def _check_usable(self, record: WordStatisticsRecord) -> None:
        if record.analysis != ANALYSIS:
            raise UnreadableTable(
                "the words were counted by another release; run one release of all services"
            )
        size = record.terms * TERM_BYTES
        if size > self._max_bytes:
            raise UnreadableTable(
                f"the table takes {size} bytes; raise query.word_statistics_bytes to load it"
            )

    def _not_loaded(self, place: _Place, record: WordStatisticsRecord, error: Exception) -> None:
        """Have it tried again later, or at once where another table was published meanwhile."""
        now = self._routes.statistics(place)
        if now is None or now.table != record.table:
            self._want(place, asked=True)
            return
        before = self._failed.get(place)
        times = before.times + 1 if before and before.table == record.table else 1
        if times == 1:
            cause = {"cause": error.message} if isinstance(error, SluiceError) else {}
            logger.warning(
                "the word statistics of a version cannot be loaded, going on with what there is",
                extra=_named(place) | describe_exception(error) | cause,
            )
        delay_s = min(self._retry_s * 2 ** min(times - 1, _MAX_DOUBLINGS), MAX_RETRY_S)
        self._failed[place] = _Failed(record.table, times, self._loop.time() + delay_s)

    def _tidy_later(self) -> None:
        if self._tidying is None and not self._closed:
            self._tidying = self._loop.call_later(self._keep_s, self._tidy)

    def _tidy(self) -> None:
        """Drop the tables of versions that are neither active nor were used of late."""
        self._tidying = None
        others = [place for place in self._loaded if not self._is_active(place)]
        for place in others:
            if self._loop.time() - self._loaded[place].used_s >= self._keep_s:
                del self._loaded[place]
        if any(place in self._loaded for place in others):
            self._tidy_later()

    def _is_active(self, place: _Place) -> bool:
        return any(
            (one.tenant, one.collection, one.version) == place for one in self._routes.pointers
        )


def _read(blob: bytes, record: WordStatisticsRecord) -> WordStatistics:
    """The statistics that the parts of a table hold; UnreadableTable if it is not that table."""
    if hashlib.sha256(blob).hexdigest() != record.digest:
        raise UnreadableTable("the table of words is not the one that was published")
    table = decode(blob, max_terms=record.terms)
    if (table.analysis, table.chunks) != (record.analysis, record.chunks) or (
        len(table.frequencies) and int(table.frequencies.max()) > table.chunks
    ):
        raise UnreadableTable("the table of words does not agree with itself")
    return WordStatistics(
        chunks=table.chunks,
        text_words=table.text_words,
        title_words=table.title_words,
        hashes=table.hashes,
        frequencies=table.frequencies,
    )


def _named(place: _Place) -> dict[str, object]:
    return {
        "tenant": place.tenant,
        "collection": place.collection,
        "index_version": place.number,
    }
