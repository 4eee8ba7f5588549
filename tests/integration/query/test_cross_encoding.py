"""A cross-encoder puts the first candidates of a real index in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.errors import FailedPrecondition
from query.chunks import ChunkCache
from query.ranking import RerankMode
from query.search_result import Degradation
from tests.integration.query.asking import FAILOVER, QUEUES, QUOTA, ask
from tests.integration.query.test_ranking import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tests.integration.query.asking import OpenSearcher
    from tests.integration.query.written_index import WrittenIndex

MODE = RerankMode.CROSS_ENCODER


class ShortestFirst:
    """Finds the shortest text the best; affords as many as the test says."""

    def __init__(self, affords: int = 100) -> None:
        self._affords = affords
        self.texts: list[str] = []
        self.budget_s = 0.0

    async def score(
        self, _query: str, texts: Sequence[str], *, budget_s: float
    ) -> NDArray[np.float32]:
        self.texts, self.budget_s = list(texts), budget_s
        return np.array([-len(text) for text in texts[: self._affords]], np.float32)

    async def aclose(self) -> None:
        pass


async def test_the_first_hits_are_in_its_order_and_the_rest_follow(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    encoder = ShortestFirst()
    searcher = await open_searcher(cross_encoder=encoder)
    fused = [hit.chunk_id for hit in (await ask(searcher)).hits]
    result = await ask(searcher, mode=MODE, cross_encoder_candidates=3, explain=True)
    assert result.cross_encoded == 3
    first = [hit.parts.cross_encoder for hit in result.hits[:3] if hit.parts]
    assert len(set(first)) == 3
    assert None not in first
    assert first == sorted(first, key=lambda score: -(score or 0))
    assert {hit.chunk_id for hit in result.hits[:3]} == set(fused[:3])
    assert [hit.chunk_id for hit in result.hits[3:]] == fused[3:]
    assert [hit.parts.cross_encoder for hit in result.hits[3:] if hit.parts] == [None, None]
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert result.degraded == ()
    assert result.explanation is not None
    assert result.explanation.mode is MODE
    assert 9 < encoder.budget_s <= 10
    stages = ["route", "embed", "retrieve", "rerank", "cross_encode", "fetch", "assemble"]
    assert list(result.timings_ms) == stages


async def test_it_reads_the_title_before_the_text(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER, QUEUES)
    encoder = ShortestFirst()
    await ask(await open_searcher(cross_encoder=encoder), mode=MODE)
    texts = [f"Failover\n{text}" for text in FAILOVER.chunks]
    assert sorted(encoder.texts) == sorted([*texts, *QUEUES.chunks])


async def test_only_the_texts_it_is_given_are_read_for_it(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    source = Reading(index)
    searcher = await open_searcher(
        cross_encoder=ShortestFirst(), source=source, texts=ChunkCache(0)
    )
    fused = [hit.chunk_id for hit in (await ask(searcher)).hits]
    source.read.clear()
    await ask(searcher, mode=MODE, cross_encoder_candidates=2, top_k=1)
    assert source.read[0] == fused[:2]


async def test_what_time_did_not_allow_is_said(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER, QUOTA, QUEUES)
    searcher = await open_searcher(cross_encoder=ShortestFirst(affords=2))
    result = await ask(searcher, mode=MODE, explain=True)
    assert result.cross_encoded == 2
    assert result.degraded == (Degradation.CROSS_ENCODER_CUT,)
    assert len(result.hits) == 5
    late = await ask(await open_searcher(cross_encoder=ShortestFirst(), reserve_s=60), mode=MODE)
    assert late.cross_encoded == 0
    assert late.degraded == (Degradation.RERANK_SKIPPED, Degradation.CROSS_ENCODER_CUT)


async def test_an_empty_collection_is_no_fault(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding()
    encoder = ShortestFirst()
    result = await ask(await open_searcher(cross_encoder=encoder), mode=MODE, explain=True)
    assert (result.hits, result.cross_encoded, result.degraded) == ((), 0, ())


async def test_a_server_without_one_refuses_at_once(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    source = Reading(index)
    with pytest.raises(FailedPrecondition, match=r"set query\.cross_encoder\.folder"):
        await ask(await open_searcher(source=source), mode=MODE)
    assert not source.calls
