"""The ONNX embedder: what it opens, what it refuses, and that load never changes a vector."""

from __future__ import annotations

import asyncio
import shutil
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from common.embedding import EmbeddingSettings, open_embedder
from common.embedding.onnx_embedder import OnnxEmbedder
from common.errors import ConfigurationError
from tests.unit.common.embedding.tiny_bert import MAX_TOKENS, WORDS, forward, sentence, weights

if TYPE_CHECKING:
    from pathlib import Path


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*.*") if path.is_file()}


def opened(settings: EmbeddingSettings) -> OnnxEmbedder:
    embedder = open_embedder(settings)
    assert isinstance(embedder, OnnxEmbedder)
    return embedder


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
async def test_neighbours_and_threads_never_change_a_vector(
    tiny_models: Path, threads: int, batch_tokens: int
) -> None:
    texts = [sentence(seed, 1 + seed % 20) for seed in range(120)]
    settings = EmbeddingSettings(
        model="tiny", models_dir=tiny_models, threads=threads, batch_tokens=batch_tokens
    )
    embedder = opened(settings)
    vectors = await embedder.embed_documents(texts)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(await embedder.embed_query(text), vector)
    await embedder.aclose()


async def test_text_to_vector_is_the_forward_pass_of_the_cut_text(tiny_models: Path) -> None:
    embedder = opened(EmbeddingSettings(model="tiny", models_dir=tiny_models, variant="fp32"))
    text = sentence(1, 50)
    ids = [2, *embedder.tokenize(text)[: MAX_TOKENS - 2], 3]
    (expected,) = forward(weights(), [ids])
    np.testing.assert_allclose(await embedder.embed_query(text), expected, atol=2e-5)
    await embedder.aclose()


def test_batches_hold_every_text_once_within_the_bound(tiny_models: Path) -> None:
    embedder = opened(EmbeddingSettings(model="tiny", models_dir=tiny_models, batch_tokens=20))
    lengths = [3, 16, 9, 9, 2, 11, 16, 2, 2]
    batches = list(embedder._batches([[0] * length for length in lengths]))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in batch) <= 20 for batch in batches)
    in_turn = [lengths[i] for batch in batches for i in batch]
    assert in_turn == sorted(lengths, reverse=True)


async def test_a_query_does_not_wait_for_documents(tiny_models: Path) -> None:
    embedder = opened(EmbeddingSettings(model="tiny", models_dir=tiny_models, threads=1))
    busy = threading.Event()
    stuck = embedder._documents.submit(busy.wait, 30)
    documents = asyncio.create_task(embedder.embed_documents(["river"] * 50))
    query = await asyncio.wait_for(embedder.embed_query("river"), 10)
    assert not stuck.done()
    assert not documents.done()
    busy.set()
    np.testing.assert_array_equal((await documents)[49], query)
    await embedder.aclose()


def test_a_model_that_is_not_here_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"embedding\.model.*sluice models fetch"):
        open_embedder(EmbeddingSettings(models_dir=tmp_path))


@pytest.mark.parametrize("name", ["model.int8.onnx", "tokenizer.json"])
def test_a_damaged_file_is_never_run(tiny_models: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_models / "tiny", tmp_path / "tiny")
    damaged = tmp_path / "tiny" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not the file in its manifest"):
        open_embedder(EmbeddingSettings(model="tiny", models_dir=tmp_path))


def test_a_broken_manifest_names_the_cure(tiny_models: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_models / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny" / "manifest.json").write_text('{"model": "ti')
    with pytest.raises(ConfigurationError, match="sluice models fetch --force"):
        open_embedder(EmbeddingSettings(model="tiny", models_dir=tmp_path))


async def test_a_hugging_face_folder_opens_by_path(tiny_source: Path, tmp_path: Path) -> None:
    settings = EmbeddingSettings(model=str(tiny_source), models_dir=tmp_path, variant="fp32")
    embedder = opened(settings)
    vector = await embedder.embed_query(WORDS[0])
    (expected,) = forward(weights(), [[2, *embedder.tokenize(WORDS[0]), 3]])
    np.testing.assert_allclose(vector, expected, atol=2e-5)
    await embedder.aclose()
    made = inodes(tmp_path)
    assert len(made) == 5
    again = opened(settings)
    assert again.spec == embedder.spec
    await again.aclose()
    assert inodes(tmp_path) == made


async def test_a_converted_folder_opens_by_path(tiny_models: Path, tmp_path: Path) -> None:
    unused = tmp_path / "unused"
    embedder = opened(EmbeddingSettings(model=str(tiny_models / "tiny"), models_dir=unused))
    assert embedder.spec.model == "tiny"
    assert embedder.spec.variant == "int8"
    assert not unused.exists()
    await embedder.aclose()


def test_a_models_directory_that_cannot_be_written_names_the_key(
    tiny_source: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"embedding\.models_dir"):
        open_embedder(EmbeddingSettings(model=str(tiny_source), models_dir=blocked / "models"))


async def test_variants_have_digests_of_their_own(tiny_models: Path) -> None:
    int8 = opened(EmbeddingSettings(model="tiny", models_dir=tiny_models))
    fp32 = opened(EmbeddingSettings(model="tiny", models_dir=tiny_models, variant="fp32"))
    assert int8.spec.digest != fp32.spec.digest
    await int8.aclose()
    await fp32.aclose()
