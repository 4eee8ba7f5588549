"""Documents and a pipeline for tests: the hashing embedder and chunks of a few words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from common.coordination import ChunkingSpec
from common.embedding import EmbeddingSettings, open_embedder
from common.identity import document_id
from indexer.chunking import SentenceChunker
from indexer.document import Document
from indexer.embedding import EmbedderEmbedding
from indexer.pipeline import IndexPipeline, Result
from indexer.settings import IndexerSettings
from indexer.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from common.records import MetadataValue
    from indexer.chunking import Chunker
    from indexer.store import VectorStore

EMBEDDER = open_embedder(EmbeddingSettings(kind="hashing", dimension=16))
CHUNKER = SentenceChunker(ChunkingSpec("sentence", 8, 2), EMBEDDER.token_count)


def document(
    name: str,
    version: int,
    text: str,
    *,
    title: str = "",
    metadata: Mapping[str, MetadataValue] | None = None,
    container: str = "",
) -> Document:
    return Document(
        document_id="",
        source_uri=f"file:///{name}",
        version=version,
        media_type="text/plain",
        title=title,
        content=text,
        content_digest="",
        metadata=metadata or {},
        pages=(),
        container_uri=container,
    )


def id_of(name: str) -> str:
    return document_id(f"file:///{name}")


def sentences(count: int, word: str) -> str:
    """A text of that many chunks of the corpus' chunker: sentences of seven words."""
    return " ".join(f"{word} {n} is one of seven words." for n in range(count))


def pipeline(
    *,
    embedding: BaseEmbedding | None = None,
    chunker: Chunker = CHUNKER,
    slice_chunks: int = 4,
    in_flight: int = 8,
) -> IndexPipeline:
    return IndexPipeline(
        IndexerSettings(slice_chunks=slice_chunks, max_batches_in_flight=in_flight),
        chunker=chunker,
        embedding=embedding or EmbedderEmbedding(EMBEDDER),
        tokenizer="words",
    )


async def index(
    pipeline: IndexPipeline, store: VectorStore, documents: Sequence[Document]
) -> list[Result]:
    return await pipeline.submit(Target("store", store), documents, asyncio.Event())


def outcomes(results: Sequence[Result]) -> list[str]:
    return [type(result.outcome).__name__ for result in results]
