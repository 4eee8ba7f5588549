"""An embedder FOR TESTS ONLY: feature hashing of words, without a model, a file or a thread.

It finds texts that share words and nothing more. It must never serve a real collection: its
`EmbedderSpec.variant` says ``hashing``, so that whoever opens one can tell.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

from common.embedding.embedder import EmbedderSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_DEFAULT_DIMENSION = 128
_MAX_TOKENS = 256


class HashingEmbedder:
    """Signed feature hashing of lower-cased words (Weinberger et al. 2009). For tests only.

    A text without words gets the first unit vector.

    Args:
        dimension: length of a vector; 0 is 128.
    """

    def __init__(self, dimension: int = 0) -> None:
        dimension = dimension or _DEFAULT_DIMENSION
        name = f"hashing-{dimension}"
        self._spec = EmbedderSpec(
            model=name,
            digest=hashlib.sha256(name.encode()).hexdigest(),
            dimension=dimension,
            pooling="unknown",
            max_tokens=_MAX_TOKENS,
            variant="hashing",
        )

    @property
    def spec(self) -> EmbedderSpec:
        """What computes the vectors."""
        return self._spec

    def token_count(self, text: str) -> int:
        """Count the words."""
        return len(_WORD.findall(text))

    def tokenize(self, text: str) -> list[int]:
        """Return a 32-bit hash of each word."""
        return [zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())]

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: shape (n, dimension)."""
        vectors = np.zeros((len(texts), self._spec.dimension), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            self._fill(vector, text)
        return vectors

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed one query: shape (dimension,)."""
        vector: NDArray[np.float32] = (await self.embed_documents([text]))[0]
        return vector

    async def aclose(self) -> None:
        """Nothing is held."""

    def _fill(self, vector: NDArray[np.float32], text: str) -> None:
        for token in self.tokenize(text)[:_MAX_TOKENS]:
            vector[(token >> 1) % self._spec.dimension] += 1.0 if token & 1 else -1.0
        norm = np.linalg.norm(vector)
        if norm == 0:
            vector[0] = norm = np.float32(1)
        vector /= norm
