"""Our embedder behind LlamaIndex's embedding interface, so that any LlamaIndex embedding fits.

The pipeline asks a ``BaseEmbedding`` and knows nothing of what computes the vectors. This adapter
adds nothing: no prefix, no cache, no batching of its own.
"""

from __future__ import annotations

import asyncio

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from pydantic import PrivateAttr

from common.embedding import Embedder  # noqa: TC001 — pydantic reads the annotation

# The most that LlamaIndex allows; the embedder cuts its own batches.
BATCH_SIZE = 2048


class EmbedderEmbedding(BaseEmbedding):
    """A LlamaIndex embedding computed by one of our embedders, which stays the caller's to close.

    The synchronous methods are LlamaIndex's; inside a running event loop use the others.
    """

    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(model_name=embedder.spec.model, embed_batch_size=BATCH_SIZE)
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        """Name in LlamaIndex's events."""
        return "EmbedderEmbedding"

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = (await self._embedder.embed_documents(texts)).tolist()
        return vectors

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        vector: Embedding = (await self._embedder.embed_query(query)).tolist()
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return asyncio.run(self._aget_text_embeddings(texts))

    def _get_text_embedding(self, text: str) -> Embedding:
        return asyncio.run(self._aget_text_embedding(text))

    def _get_query_embedding(self, query: str) -> Embedding:
        return asyncio.run(self._aget_query_embedding(query))
