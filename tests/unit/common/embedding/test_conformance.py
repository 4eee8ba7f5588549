"""What every embedder promises, shown on each of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.embedding import Embedder, EmbeddingSettings, open_embedder
from tests.unit.common.embedding.embedding_server import DIMENSION
from tests.unit.common.embedding.tiny_bert import sentence, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.unit.common.embedding.embedding_server import EmbeddingServer

TEXTS = [sentence(seed, words) for seed, words in enumerate([3, 11, 1, 25, 7, 7, 2, 60, 5, 13])]


@pytest.fixture(params=["int8", "fp32", "hashing", "openai", "openai with tokenizer"])
async def embedder(
    request: pytest.FixtureRequest, tiny_models: Path, server: EmbeddingServer, tmp_path: Path
) -> AsyncIterator[Embedder]:
    tokenizer = None
    if request.param == "openai with tokenizer":
        tokenizer = tmp_path / "tokenizer.json"
        write_tokenizer(tokenizer)
    remote = EmbeddingSettings(
        kind="openai",
        model="served",
        url=server.url,
        dimension=DIMENSION,
        batch_texts=3,
        tokenizer_file=tokenizer,
    )
    settings = {
        "int8": EmbeddingSettings(
            model="tiny", models_dir=tiny_models, variant="int8", threads=2, batch_tokens=20
        ),
        "fp32": EmbeddingSettings(model="tiny", models_dir=tiny_models, variant="fp32"),
        "hashing": EmbeddingSettings(kind="hashing", dimension=64),
        "openai": remote,
        "openai with tokenizer": remote,
    }
    opened = open_embedder(settings[request.param])
    yield opened
    await opened.aclose()


async def test_documents_come_back_normalised_and_in_order(embedder: Embedder) -> None:
    vectors = await embedder.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.spec.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_array_equal((await embedder.embed_documents([text]))[0], vector)
    assert len(np.unique(vectors, axis=0)) == len(TEXTS)


async def test_a_query_is_embedded_as_the_same_document(embedder: Embedder) -> None:
    query = await embedder.embed_query(TEXTS[1])
    assert query.shape == (embedder.spec.dimension,)
    assert query.dtype == np.float32
    np.testing.assert_array_equal(query, (await embedder.embed_documents(TEXTS))[1])


async def test_nothing_gives_an_empty_matrix(embedder: Embedder) -> None:
    assert (await embedder.embed_documents([])).shape == (0, embedder.spec.dimension)


@pytest.mark.parametrize("text", ["", "   \n", "\u0000", "日本語 🦉 ǅ", "x" * 5000])
async def test_odd_texts_have_vectors(embedder: Embedder, text: str) -> None:
    vector = await embedder.embed_query(text)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)


async def test_calls_at_once_do_not_disturb_each_other(embedder: Embedder) -> None:
    alone = await embedder.embed_documents(TEXTS)
    together = await asyncio.gather(
        *(embedder.embed_documents(TEXTS[i:] + TEXTS[:i]) for i in range(len(TEXTS)))
    )
    for turn, vectors in enumerate(together):
        np.testing.assert_array_equal(np.roll(vectors, turn, axis=0), alone)


def test_tokens_are_counted_without_limit_and_without_special_ones(embedder: Embedder) -> None:
    assert embedder.token_count("") == 0
    one = embedder.token_count("river")
    assert one >= 1
    assert embedder.token_count("river " * 500) == 500 * one
    assert len(embedder.tokenize("river water")) == embedder.token_count("river water")
    assert embedder.tokenize("river water") != embedder.tokenize("water river")


def test_the_spec_identifies_the_vectors(embedder: Embedder) -> None:
    spec = embedder.spec
    assert len(bytes.fromhex(spec.digest)) == 32
    assert spec.dimension > 0
    assert spec.max_tokens > 0
    assert spec.pooling in {"mean", "cls", "unknown"}
    assert spec.variant in {"int8", "fp32", "remote", "hashing"}
    assert spec.model
