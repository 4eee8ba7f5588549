"""The seam every embedder stands behind: what it computes (EmbedderSpec) and how it is asked.

An implementation must never block the event loop, never reorder its input and never put a text
into an error or a log line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What identifies the vectors of an embedder; an index version records it.

    Attributes:
        model: its name, such as ``all-MiniLM-L6-v2``.
        digest: SHA-256 in hex of what computes the vectors: the ONNX file; of a remote model its
            name and dimension, for its weights cannot be seen.
        dimension: length of a vector.
        pooling: how token vectors become one: ``mean``, ``cls`` or ``unknown``.
        max_tokens: what the model reads of one text, in tokens, special tokens included; the rest
            is cut off.
        variant: ``int8``, ``fp32``, ``remote`` or ``hashing`` (tests only).
    """

    model: str
    digest: str
    dimension: int
    pooling: str
    max_tokens: int
    variant: str


class Embedder(Protocol):
    """Turns texts into vectors of length 1; their dot product is their cosine."""

    @property
    def spec(self) -> EmbedderSpec:
        """What computes the vectors."""
        ...

    def token_count(self, text: str) -> int:
        """Count the tokens of a text, untruncated and without special tokens."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text, untruncated and without special tokens."""
        ...

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: shape (n, dimension), rows normalised, in the order of the input.

        An empty sequence gives shape (0, dimension).
        """
        ...

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed one query: shape (dimension,), normalised. Never waits behind documents."""
        ...

    async def aclose(self) -> None:
        """Release threads and connections. The embedder is of no use afterwards."""
        ...
