"""Texts that nearly repeat each other, followed over the windows that a selection looks at.

Groups are made by texts alone, whichever documents they are of and whichever of them is shown in
the end. It must never compare texts itself: that is the native library's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of two texts' sets of three words in a row: from here on one nearly repeats the other.
RESEMBLANCE: Final = 0.9
MAX_DUPLICATES: Final = 100  # listed a hit
# A longer text is a duplicate of none; all candidates together stay within the library's bound.
MAX_COMPARED_BYTES: Final = 32 * 1024

Group: TypeAlias = Callable[[Sequence[bytes]], Awaitable[NDArray[np.int32]]]
"""Of n texts, at most 4,096, the index of the first one that each nearly repeats, itself if none.
A text that repeats none leads, and texts are held against leaders only."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Where a hit's text stands once more; the span counts characters, half open."""

    chunk_id: str
    document_id: str
    source_uri: str
    title: str
    span: tuple[int, int]


class TextGroups:
    """Finds for each text the first one that it nearly repeats, also of an earlier window."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._leaders: dict[int, bytes] = {}

    async def leaders(self, texts: Mapping[int, bytes]) -> dict[int, int]:
        """Of each candidate the one that leads its group, itself if its text is new.

        Args:
            texts: by candidate, best first, of candidates that were not asked for before.
        """
        leaders = {index: index for index in texts}
        compared = {i: text for i, text in texts.items() if len(text) <= MAX_COMPARED_BYTES}
        known = len(self._leaders)
        candidates = [*self._leaders, *compared]
        if len(candidates) > 1 and compared:
            found = await self._group([*self._leaders.values(), *compared.values()])
            for index, leader in zip(compared, found[known:].tolist(), strict=True):
                leaders[index] = candidates[leader]
        self._leaders |= {i: text for i, text in compared.items() if leaders[i] == i}
        return leaders
