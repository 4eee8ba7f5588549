"""One question, checked: what a search may be asked, and what is meant by what is left out.

Nothing beyond this module meets an unchecked value. What depends on the index version (a vector's
dimension) is checked where the version is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from common.errors import InvalidArgument
from common.identity import ConsistencyToken, check_collection, check_tenant, decode_token
from query.filter import parse_filter
from query.ranking import RerankMode
from query.selection import Diversity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from query.filter import Expression
    from rerank_zig import FusionOptions, Normalisation

MAX_TEXT_BYTES: Final = 8_192
MAX_TOP_K: Final = 1_000
MAX_CANDIDATES: Final = 2_000
DEFAULT_TOP_K: Final = 10
DEFAULT_CANDIDATES: Final = 200
MAX_PER_DOCUMENT: Final = 1_000
MAX_CROSS_ENCODED: Final = 1_000
MAX_WEIGHTS: Final = {"alpha": 1.0, "k1": 10.0, "b": 1.0, "title": 100.0, "proximity": 10.0}


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of a fused ranking; None keeps the server's default."""

    alpha: float | None = None
    k1: float | None = None
    b: float | None = None
    title: float | None = None
    proximity: float | None = None
    normalisation: Normalisation | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SearchQuery:
    """A checked question; make one with ``search_query``.

    Attributes:
        tenant: whose collection.
        collection: its name.
        text: the words asked for; empty when ``vector`` is given.
        vector: shape (dimension,), finite, not all zeros; None when ``text`` is given.
        top_k: hits wanted.
        candidate_count: candidates to take from the store, at least ``top_k``.
        matching: the filter; None for all.
        mode: what orders the candidates.
        options: weights of a fused ranking.
        at_least: the write that the answer must include; None for none.
        explain: whether to add parts, terms and plan.
        index_version: the version to ask instead of the active one; 0 for that.
        diversity: how alike the hits may be.
        cross_encoder_candidates: how many a cross-encoder may score; 0 for the server's default.
    """

    tenant: str
    collection: str
    text: str
    vector: NDArray[np.float32] | None
    top_k: int
    candidate_count: int
    matching: Expression | None
    mode: RerankMode
    options: FusionOptions
    at_least: ConsistencyToken | None
    explain: bool
    index_version: int
    diversity: Diversity
    cross_encoder_candidates: int


def search_query(
    *,
    defaults: FusionOptions,
    collection: str,
    tenant: str = "",
    text: str | None = None,
    vector: Sequence[float] | None = None,
    top_k: int = 0,
    candidate_count: int = 0,
    filter_text: str = "",
    mode: RerankMode | None = None,
    weights: Weights | None = None,
    at_least: str = "",
    explain: bool = False,
    index_version: int = 0,
    max_per_document: int = 0,
    keep_duplicates: bool = False,
    merge_neighbours: bool = False,
    cross_encoder_candidates: int = 0,
) -> SearchQuery:
    """Check a question and fill in what was left out; zeros and empty texts mean left out.

    Raises:
        InvalidArgument: names the field as the contract does.
    """
    tenant, collection = check_tenant(tenant), check_collection(collection)
    if text is None and vector is None:
        raise InvalidArgument("give text or a vector to search for", field="text")
    top_k = _within(top_k or DEFAULT_TOP_K, 1, MAX_TOP_K, "top_k", f"0 means {DEFAULT_TOP_K}")
    if at_least and index_version:
        raise InvalidArgument(
            "a consistency token waits for the active version; leave it out, or ask without "
            "index_version",
            field="at_least",
        )
    candidate_count = _within(
        candidate_count or max(DEFAULT_CANDIDATES, top_k),
        top_k,
        MAX_CANDIDATES,
        "candidate_count",
        f"0 means {DEFAULT_CANDIDATES}, or top_k if greater",
    )
    return SearchQuery(
        tenant=tenant,
        collection=collection,
        text="" if text is None else _checked_text(text),
        vector=None if vector is None else _checked_vector(vector),
        top_k=top_k,
        candidate_count=candidate_count,
        matching=parse_filter(filter_text),
        mode=_mode(mode, by_vector=vector is not None),
        options=_options(defaults, weights or Weights()),
        at_least=_token(at_least, tenant, collection) if at_least else None,
        explain=explain,
        index_version=index_version,
        diversity=Diversity(
            max_per_document=_within(
                max_per_document, 0, MAX_PER_DOCUMENT, "max_per_document", "0 means any number"
            ),
            keep_duplicates=keep_duplicates,
            merge_neighbours=merge_neighbours,
        ),
        cross_encoder_candidates=_within(
            cross_encoder_candidates,
            0,
            MAX_CROSS_ENCODED,
            "cross_encoder_candidates",
            "0 means the server's default",
        ),
    )


def _within(value: int, least: int, most: int, field: str, hint: str) -> int:
    if not least <= value <= most:
        raise InvalidArgument(f"must be {least:,} to {most:,}; {hint}", field=field)
    return value


def _checked_text(text: str) -> str:
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise InvalidArgument(f"at most {MAX_TEXT_BYTES:,} bytes, this has {size:,}", field="text")
    if not text.strip():
        raise InvalidArgument("must not be blank; give the words to search for", field="text")
    return text


def _checked_vector(values: Sequence[float]) -> NDArray[np.float32]:
    vector = np.asarray(values, np.float32)
    if not np.isfinite(vector).all():
        raise InvalidArgument("every value must be finite", field="vector")
    if not vector.any():
        raise InvalidArgument("must not be all zeros: it has no direction", field="vector")
    return vector


def _mode(mode: RerankMode | None, *, by_vector: bool) -> RerankMode:
    if mode is None:
        return RerankMode.DENSE if by_vector else RerankMode.FUSED
    if by_vector and mode is not RerankMode.DENSE:
        raise InvalidArgument(
            f"{mode.name} needs words; search by text, or ask for DENSE", field="rerank"
        )
    return mode


def _options(defaults: FusionOptions, weights: Weights) -> FusionOptions:
    given: dict[str, float] = {}
    for name, most in MAX_WEIGHTS.items():
        value = getattr(weights, name)
        if value is None:
            continue
        if not (math.isfinite(value) and 0 <= value <= most):
            raise InvalidArgument(f"must be 0 to {most:g}", field=f"weights.{name}")
        given[name] = value
    normalisation = weights.normalisation or defaults.normalisation
    return replace(defaults, normalisation=normalisation, **given)


def _token(text: str, tenant: str, collection: str) -> ConsistencyToken:
    token = decode_token(text)
    if (token.tenant, token.collection) != (tenant, collection):
        raise InvalidArgument(
            f"this token is of collection {token.collection} of tenant {token.tenant}, not of the "
            "one searched",
            field="at_least",
        )
    return token
