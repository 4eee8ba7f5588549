"""What every cross-encoder promises, shown on each of them."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from query.cross_encoder import CrossEncoder, CrossEncoderSettings, open_cross_encoder
from tests.unit.query.cross_encoder_folders import QUERY, TEXTS, write_tiny

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FOREVER_S = 100.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cross-encoders")
    return {
        "fp32": write_tiny(folder / "fp32"),
        "int8": write_tiny(folder / "int8", int8=True),
        "two labels": write_tiny(folder / "two-labels", labels=2),
    }


@pytest.fixture(params=["fp32 on 1 thread", "fp32 on 3 threads", "int8 on 3 threads", "two labels"])
async def encoder(
    request: pytest.FixtureRequest, folders: dict[str, Path]
) -> AsyncIterator[CrossEncoder]:
    name, _, threads = request.param.partition(" on ")
    settings = CrossEncoderSettings(folder=folders[name], threads=int(threads[:1] or 0))
    opened = open_cross_encoder(settings)
    yield opened
    await opened.aclose()


async def test_with_time_enough_each_text_has_a_score_of_its_own(encoder: CrossEncoder) -> None:
    scores = await encoder.score(QUERY, TEXTS, budget_s=FOREVER_S)
    assert scores.shape == (len(TEXTS),)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == len(TEXTS)


async def test_neighbours_and_order_never_change_a_score(encoder: CrossEncoder) -> None:
    scores = await encoder.score(QUERY, TEXTS, budget_s=math.inf)
    order = np.random.default_rng(3).permutation(len(TEXTS))
    moved = await encoder.score(QUERY, [TEXTS[i] for i in order], budget_s=math.inf)
    np.testing.assert_array_equal(moved, scores[order])
    for text, score in zip(TEXTS, scores, strict=True):
        np.testing.assert_array_equal(
            await encoder.score(QUERY, [text], budget_s=FOREVER_S), [score]
        )


async def test_the_query_is_part_of_the_score(encoder: CrossEncoder) -> None:
    one = await encoder.score(QUERY, TEXTS, budget_s=FOREVER_S)
    other = await encoder.score("Who closes the file?", TEXTS, budget_s=FOREVER_S)
    assert (one != other).all()


@pytest.mark.parametrize("budget_s", [0.0, -1.0, 1e-9])
async def test_without_time_nothing_is_scored(encoder: CrossEncoder, budget_s: float) -> None:
    scores = await encoder.score(QUERY, TEXTS, budget_s=budget_s)
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("budget_s", [0.0, FOREVER_S])
async def test_nothing_gives_nothing(encoder: CrossEncoder, budget_s: float) -> None:
    assert (await encoder.score(QUERY, [], budget_s=budget_s)).shape == (0,)


async def test_what_is_scored_in_time_is_a_beginning(encoder: CrossEncoder) -> None:
    texts = [f"{number} {TEXTS[number % len(TEXTS)]}" for number in range(60)]
    whole = await encoder.score(QUERY, texts, budget_s=FOREVER_S)
    scores, budget_s = whole[:0], 0.0005
    while len(scores) < len(whole):
        budget_s *= 2
        assert budget_s < FOREVER_S
        scores = await encoder.score(QUERY, texts, budget_s=budget_s)
        np.testing.assert_array_equal(scores, whole[: len(scores)])


@pytest.mark.parametrize(
    "odd", ["", "  \n", "\u0000", "日本語 🦉 ǅ", "x" * 5000, "a b " * 5000, "[SEP]"]
)
async def test_odd_queries_and_texts_have_scores(encoder: CrossEncoder, odd: str) -> None:
    for query, text in ((odd, TEXTS[0]), (QUERY, odd), (odd, odd)):
        assert np.isfinite(await encoder.score(query, [text], budget_s=FOREVER_S)).sum() == 1


async def test_calls_at_once_do_not_disturb_each_other(encoder: CrossEncoder) -> None:
    queries = [f"{QUERY} {number}" for number in range(8)]
    alone = [await encoder.score(query, TEXTS, budget_s=FOREVER_S) for query in queries]
    calls = (encoder.score(query, TEXTS, budget_s=FOREVER_S) for query in queries)
    for scores, expected in zip(await asyncio.gather(*calls), alone, strict=True):
        np.testing.assert_array_equal(scores, expected)
