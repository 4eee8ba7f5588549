"""Groups of texts are the same, whatever windows they are looked at in."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from query.duplicates import MAX_COMPARED_BYTES, RESEMBLANCE, TextGroups
from rerank_zig import RerankLibrary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Comparing:
    """The native library, and how many texts it was given at each call."""

    def __init__(self) -> None:
        self._library = RerankLibrary.load()
        self.calls: list[int] = []

    async def __call__(self, texts: Sequence[bytes]) -> NDArray[np.int32]:
        self.calls.append(len(texts))
        return self._library.group_duplicates(texts, RESEMBLANCE)


@pytest.mark.parametrize("seed", range(20))
async def test_windows_do_not_matter(seed: int):
    rng = random.Random(seed)
    words = [f"w{chr(97 + n)}" for n in range(26)]
    originals = [rng.choices(words, k=60) for _ in range(5)]
    texts = []
    for _ in range(40):
        text = list(rng.choice(originals))
        text[rng.randrange(60)] = rng.choice(words)
        texts.append(" ".join(text).encode())
    indices = rng.sample(range(1000), 40)
    expected = [indices[n] for n in Comparing()._library.group_duplicates(texts, RESEMBLANCE)]
    groups = TextGroups(Comparing())
    found: dict[int, int] = {}
    start = 0
    while start < 40:
        end = start + rng.randint(1, 15)
        window = dict(zip(indices[start:end], texts[start:end], strict=True))
        found |= await groups.leaders(window)
        start = end
    assert [found[index] for index in indices] == expected
    assert len(set(expected)) < 40


async def test_only_leaders_are_compared_again():
    comparing = Comparing()
    groups = TextGroups(comparing)
    assert await groups.leaders({}) == {}
    assert await groups.leaders({7: b"a lone text"}) == {7: 7}
    assert comparing.calls == []
    assert await groups.leaders({3: b"A lone text!", 5: b"another"}) == {3: 7, 5: 5}
    assert await groups.leaders({1: b"another"}) == {1: 5}
    assert comparing.calls == [3, 3]


async def test_a_text_beyond_the_bound_repeats_none():
    groups = TextGroups(Comparing())
    text = b"word " * (MAX_COMPARED_BYTES // 5)
    longer = text.ljust(MAX_COMPARED_BYTES + 1)
    assert await groups.leaders({0: text, 1: longer, 2: text, 3: longer}) == {
        0: 0,
        1: 1,
        2: 0,
        3: 3,
    }
