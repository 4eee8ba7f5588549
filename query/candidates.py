"""The seam that candidates come through: nearest chunks of one index version, by vector.

Whoever implements it (a vector store, vectors in memory) answers from exactly the version it is
given and never ranks by anything but the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from query.filter import Expression
    from query.index_version import IndexVersion


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The chunks nearest to a vector, nearest first.

    Attributes:
        ids: n different chunk ids.
        similarities: shape (n,), cosine, -1 to 1, descending.
        store_filter: the filter as the store got it, JSON; empty without one.
    """

    ids: list[str]
    similarities: NDArray[np.float32]
    store_filter: str = ""


class CandidateSource(Protocol):
    """Finds candidates in an index version."""

    async def candidates(
        self,
        version: IndexVersion,
        vector: NDArray[np.float32],
        count: int,
        matching: Expression | None,
    ) -> Candidates:
        """The nearest chunks, at most ``count``, fewer where fewer match.

        Args:
            version: the one to answer from.
            vector: shape (dimension,) of the version's embedder.
            count: at least 1.
            matching: only chunks that match this filter; None for all.

        Raises:
            NotFound: the version is no longer there.
            Unavailable: the store does not answer.
        """
        ...
