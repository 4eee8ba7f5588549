"""The default model itself, as `make setup` fetched it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.embedding import Embedder, EmbeddingSettings, default_models_dir, open_embedder
from common.embedding.model_folder import read_manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUERY = "How do I copy a file to a remote computer?"
RELATED = "Use scp or a remote session to transfer documents between machines."
UNRELATED = "The recipe needs two eggs, flour and a pinch of salt."


@pytest.fixture(params=["int8", "fp32"])
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    opened = open_embedder(settings(request.param))
    yield opened
    await opened.aclose()


def settings(variant: str) -> EmbeddingSettings:
    if read_manifest(default_models_dir() / "all-MiniLM-L6-v2") is None:
        pytest.fail(
            f"the default model is not in {default_models_dir()}: "
            "run `make setup` or `sluice models fetch`"
        )
    return EmbeddingSettings.model_validate({"variant": variant})


async def test_meaning_is_nearer_than_noise(embedder: Embedder) -> None:
    query = await embedder.embed_query(QUERY)
    related, unrelated = await embedder.embed_documents([RELATED, UNRELATED]) @ query
    assert related > 0.3
    assert unrelated < 0.15


def test_its_spec_and_tokenizer_are_the_published_ones(embedder: Embedder) -> None:
    spec = embedder.spec
    assert (spec.model, spec.dimension, spec.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert spec.pooling == "mean"
    assert embedder.tokenize("Hello, world!") == [7592, 1010, 2088, 999]
    assert embedder.token_count("word " * 1000) == 1000


async def test_int8_stays_close_to_fp32() -> None:
    texts = [QUERY, RELATED, UNRELATED, "", " ".join([QUERY, RELATED, UNRELATED] * 8)]
    vectors = []
    for variant in ("int8", "fp32"):
        opened = open_embedder(settings(variant))
        vectors.append(await opened.embed_documents(texts))
        await opened.aclose()
    cosines = np.sum(vectors[0] * vectors[1], axis=1)
    assert cosines.min() > 0.98
