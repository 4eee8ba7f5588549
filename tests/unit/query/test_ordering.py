"""What is done within the time that is left, and what is said of what was not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from common.embedding import EmbeddingSettings, open_embedder
from common.errors import FailedPrecondition
from common.rpc import Deadline
from common.telemetry import Stage
from query.candidates import Candidates
from query.chunks import ChunkCache, ChunkReader, ChunkText, StoredChunk
from query.index_version import IndexVersion
from query.ordering import Ordered, Ordering, Retrieved
from query.ranking import RerankMode, Scoring
from query.search_query import search_query
from query.search_result import Degradation
from query.trail import FetchingSource, Trail
from rerank_zig import FusionOptions, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

VERSION = IndexVersion(
    "default", "docs", 1, 1, open_embedder(EmbeddingSettings(kind="hashing")).spec
)
IDS = ["a", "b", "c", "d"]
SIMILARITIES = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
FUSED = np.array([0.1, 0.4, 0.2, 0.3], np.float32)  # b d c a
RESERVE_S = 1.0


@dataclass(frozen=True)
class SetDeadline(Deadline):
    """Has as much time left as the test says."""

    left_s: list[float] = field(default_factory=lambda: [10.0])

    def remaining_s(self) -> float:
        return self.left_s[-1]


class Store:
    """Reads as if it took some time; every chunk is there but those that went."""

    def __init__(self, deadline: SetDeadline, *, takes_s: float = 0.0, gone: str = "") -> None:
        self._deadline = deadline
        self._takes_s = takes_s
        self._gone = gone
        self.asked: list[list[str]] = []

    async def stored(
        self, _version: IndexVersion, ids: Sequence[str], *, texts: bool
    ) -> dict[str, StoredChunk]:
        assert texts
        self.asked.append(list(ids))
        self._deadline.left_s.append(self._deadline.remaining_s() - self._takes_s)
        return {
            id_: StoredChunk({}, ChunkText(b"T" if id_ == "c" else b"", id_.encode()))
            for id_ in ids
            if id_ not in self._gone
        }


class KeepingReranker:
    """Scores as told; keeps what it is given, as many as fit."""

    def __init__(self, fits: int = 9) -> None:
        self._fits = fits
        self.kept: list[str] = []
        self.by_texts: list[dict[str, ChunkText]] = []
        self.scored = 0

    async def score(
        self, scoring: Scoring, chunks: Mapping[str, ChunkText] | None = None
    ) -> tuple[Scores, list[str]]:
        self.scored += 1
        self.kept = [*self.kept, *(chunks or {})][-self._fits :]
        return scores(len(scoring.ids)), [id_ for id_ in scoring.ids if id_ not in self.kept]

    async def score_texts(self, scoring: Scoring, chunks: Mapping[str, ChunkText]) -> Scores:
        self.by_texts.append(dict(chunks))
        return scores(len(scoring.ids))


class Encoder:
    """The last is the best; scores as many as the test says."""

    def __init__(self, affords: int = 9) -> None:
        self._affords = affords
        self.asked: list[tuple[str, list[str], float]] = []

    async def score(
        self, query: str, texts: Sequence[str], *, budget_s: float
    ) -> NDArray[np.float32]:
        self.asked.append((query, list(texts), budget_s))
        return np.arange(len(texts), dtype=np.float32)[: self._affords]

    async def aclose(self) -> None:
        pass


def scores(count: int) -> Scores:
    zeros = np.zeros(count, np.float32)
    return Scores(
        fused=FUSED[:count],
        dense=zeros,
        lexical_raw=zeros,
        lexical=zeros,
        title=zeros,
        proximity=zeros,
        alpha=0.3,
        chunks=count,
    )


class NoStatistics:
    def of(self, _version: IndexVersion) -> None:
        return None


async def order(
    mode: RerankMode,
    *,
    reranker: KeepingReranker | None = None,
    encoder: Encoder | None = None,
    store: Store | None = None,
    deadline: SetDeadline | None = None,
    ids: Sequence[str] = IDS,
    **fields: Any,
) -> Ordered:
    deadline = deadline or SetDeadline(0)
    trail = Trail(deadline)
    scorer: Any = reranker or KeepingReranker()
    ordering = Ordering(
        reranker=scorer,
        statistics=NoStatistics(),
        reserve_s=RESERVE_S,
        cross_encoder=encoder,
        cross_encoder_candidates=3,
    )
    query = search_query(
        defaults=FusionOptions(), collection="docs", text="words", mode=mode, **fields
    )
    source = FetchingSource(store or Store(deadline), trail)
    reader = ChunkReader(source, ChunkCache(2**20))
    found = Candidates(list(ids), SIMILARITIES[: len(ids)])
    return await ordering.order(Retrieved(query, VERSION, found, reader, trail))


async def test_what_is_kept_is_scored_without_reading():
    deadline = SetDeadline(0)
    store, reranker = Store(deadline), KeepingReranker()
    await order(RerankMode.FUSED, reranker=reranker, store=store, deadline=deadline)
    assert store.asked == [IDS]
    assert reranker.scored == 2
    ordered = await order(RerankMode.FUSED, reranker=reranker, store=store, deadline=deadline)
    assert store.asked == [IDS]
    assert reranker.scored == 3
    assert not reranker.by_texts
    assert ordered.order == [1, 3, 2, 0]
    assert ordered.alpha == 0.3


async def test_only_what_is_not_kept_is_read():
    deadline = SetDeadline(0)
    store, reranker = Store(deadline), KeepingReranker()
    reranker.kept = ["a", "d"]
    await order(RerankMode.FUSED, reranker=reranker, store=store, deadline=deadline)
    assert store.asked == [["b", "c"]]


async def test_what_does_not_stay_is_scored_by_its_texts_all_of_them():
    deadline = SetDeadline(0)
    store, reranker = Store(deadline), KeepingReranker(fits=2)
    reranker.kept = ["a", "b"]
    await order(RerankMode.FUSED, reranker=reranker, store=store, deadline=deadline)
    assert store.asked == [["c", "d"], ["a", "b"]]
    [texts] = reranker.by_texts
    assert {id_: chunk.text for id_, chunk in texts.items()} == {id_: id_.encode() for id_ in IDS}


async def test_a_chunk_that_left_the_store_is_not_looked_for_again():
    deadline = SetDeadline(0)
    store, reranker = Store(deadline, gone="b"), KeepingReranker()
    ordered = await order(RerankMode.FUSED, reranker=reranker, store=store, deadline=deadline)
    assert store.asked == [IDS]
    assert not reranker.by_texts
    assert len(ordered.order) == 4


@pytest.mark.parametrize("mode", [RerankMode.FUSED, RerankMode.LEXICAL, RerankMode.CROSS_ENCODER])
@pytest.mark.parametrize(
    ("left_s", "takes_s", "scored"),
    [(0.9, 0.0, 0), (10.0, 9.5, 1)],  # too late at once; too late when the texts are there
)
async def test_without_time_the_order_is_that_of_the_vectors(
    mode: RerankMode, left_s: float, takes_s: float, scored: int
):
    deadline = SetDeadline(0, [left_s])
    reranker, encoder = KeepingReranker(), Encoder()
    ordered = await order(
        mode,
        reranker=reranker,
        encoder=encoder,
        store=Store(deadline, takes_s=takes_s),
        deadline=deadline,
    )
    assert ordered.order == [0, 1, 2, 3]
    assert np.array_equal(ordered.scores, SIMILARITIES)
    assert ordered.mode is RerankMode.DENSE
    assert ordered.alpha == 1.0
    assert reranker.scored == scored
    assert not encoder.asked
    cut = [Degradation.CROSS_ENCODER_CUT] if mode is RerankMode.CROSS_ENCODER else []
    assert list(ordered.lacking) == [Degradation.RERANK_SKIPPED, *cut]


async def test_the_cross_encoder_orders_the_first_and_leaves_the_rest():
    encoder = Encoder()
    ordered = await order(RerankMode.CROSS_ENCODER, encoder=encoder)
    [(query, texts, budget_s)] = encoder.asked
    assert (query, texts) == ("words", ["b", "d", "T\nc"])
    assert budget_s == 10.0 - RESERVE_S
    assert ordered.order == [2, 3, 1, 0]
    assert ordered.cross_encoded == {1: 0.0, 3: 1.0, 2: 2.0}
    in_order = ordered.scores[ordered.order]
    assert in_order.tolist() == sorted(in_order, reverse=True)
    assert 1 <= in_order[2] < in_order[0] <= 2
    assert in_order[3] == FUSED[0]
    assert ordered.lacking == ()


@pytest.mark.parametrize("wanted", [1, 2, 4])
async def test_a_query_says_how_many_the_cross_encoder_may_score(wanted: int):
    encoder = Encoder()
    ordered = await order(
        RerankMode.CROSS_ENCODER, encoder=encoder, cross_encoder_candidates=wanted
    )
    assert len(ordered.cross_encoded) == len(encoder.asked[0][1]) == wanted
    assert ordered.lacking == ()


async def test_fewer_than_wanted_for_lack_of_time_are_said_so():
    ordered = await order(RerankMode.CROSS_ENCODER, encoder=Encoder(affords=2))
    assert ordered.order == [3, 1, 2, 0]
    assert set(ordered.cross_encoded) == {1, 3}
    assert ordered.lacking == (Degradation.CROSS_ENCODER_CUT,)


async def test_fewer_candidates_than_wanted_lack_nothing():
    ordered = await order(RerankMode.CROSS_ENCODER, encoder=Encoder(), ids=IDS[:2])
    assert len(ordered.cross_encoded) == 2
    assert ordered.lacking == ()


async def test_a_chunk_that_left_the_store_is_not_cross_encoded_and_not_lacking():
    deadline = SetDeadline(0)
    encoder = Encoder()
    ordered = await order(
        RerankMode.CROSS_ENCODER,
        encoder=encoder,
        store=Store(deadline, gone="d"),
        deadline=deadline,
    )
    assert encoder.asked[0][1] == ["b", "T\nc"]
    assert ordered.order == [2, 1, 3, 0]
    assert ordered.lacking == ()


async def test_when_its_texts_come_too_late_the_cross_encoder_is_left_out():
    deadline = SetDeadline(0)
    reranker, encoder = KeepingReranker(), Encoder()
    reranker.kept = list(IDS)
    ordered = await order(
        RerankMode.CROSS_ENCODER,
        reranker=reranker,
        encoder=encoder,
        store=Store(deadline, takes_s=9.5),
        deadline=deadline,
    )
    assert not encoder.asked
    assert ordered.order == [1, 3, 2, 0]
    assert ordered.mode is RerankMode.CROSS_ENCODER
    assert ordered.lacking == (Degradation.CROSS_ENCODER_CUT,)


async def test_without_a_cross_encoder_its_mode_is_refused_with_the_cure():
    with pytest.raises(FailedPrecondition, match=r"set query\.cross_encoder\.folder"):
        await order(RerankMode.CROSS_ENCODER)


async def test_the_time_of_reading_is_told_apart_from_that_of_the_stage_that_reads():
    trail = Trail(Deadline.after(60))
    go = asyncio.Event()

    class Slow(Store):
        async def stored(
            self, _version: IndexVersion, ids: Sequence[str], *, texts: bool
        ) -> dict[str, StoredChunk]:
            asyncio.get_running_loop().call_later(0.05, go.set)
            await go.wait()
            return await super().stored(_version, ids, texts=texts)

    source = FetchingSource(Slow(SetDeadline(0)), trail)
    with trail.stage(Stage.SEARCH_RERANK):
        await source.stored(VERSION, IDS, texts=True)
    assert trail.timings_ms["fetch"] >= 49
    assert 0 <= trail.timings_ms["rerank"] < 49
