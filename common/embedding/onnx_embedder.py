"""Runs a sentence encoder in this process, on ONNX Runtime and the CPU.

One text is one run of a session that computes on the thread that calls it; as many texts run at
once as there are threads. So nothing is padded, and a vector depends on its text alone: dynamic
int8 takes the scale of its activations over a whole batch, which makes vectors of a larger batch
depend on their neighbours. It must never batch texts into one run (docs/adr/0005).
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime

from common.embedding.embedder import EmbedderSpec
from common.embedding.model_folder import ONNX_FILES, TOKENIZER, check_files
from common.embedding.tokenizer import open_tokenizer, token_ids
from common.embedding.workers import work_through
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from common.embedding.model_folder import ModelManifest


def open_session(graph: Path) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Open a model for concurrent runs, each on the thread that calls it.

    Raises:
        ConfigurationError: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            # the fused kernel is slower than its parts: int8 gains a sixth without (docs/adr/0005)
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:
        # onnxruntime's exceptions have no public base class
        raise ConfigurationError(f"ONNX Runtime cannot open {graph}; convert it again") from error


class OnnxEmbedder:
    """The default embedder.

    Queries have threads of their own, so they never wait behind documents.

    Args:
        folder: a model folder.
        manifest: its manifest.
        variant: which of its two graphs to run.
        threads: documents computed at once; 0 is one for each core this process may use.
        batch_tokens: work handed to a thread at once, in tokens.

    Raises:
        ConfigurationError: a file differs from the manifest or cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        *,
        variant: Literal["int8", "fp32"],
        threads: int,
        batch_tokens: int,
    ) -> None:
        graph = ONNX_FILES[variant]
        check_files(folder, manifest, graph, TOKENIZER)
        self._spec = EmbedderSpec(
            model=manifest.model,
            digest=manifest.files[graph],
            dimension=manifest.dimension,
            pooling=manifest.pooling,
            max_tokens=manifest.max_tokens,
            variant=variant,
        )
        self._whole = open_tokenizer(folder / TOKENIZER)
        self._cut = open_tokenizer(folder / TOKENIZER)
        self._cut.enable_truncation(manifest.max_tokens)
        self._session = open_session(folder / graph)
        self._batch_tokens = batch_tokens
        self._threads = threads or len(os.sched_getaffinity(0))
        self._documents = ThreadPoolExecutor(self._threads, "embed-documents")
        self._queries = ThreadPoolExecutor(self._threads, "embed-query")

    @property
    def spec(self) -> EmbedderSpec:
        """What computes the vectors."""
        return self._spec

    def token_count(self, text: str) -> int:
        """Count the tokens with the model's own tokenizer."""
        return len(self.tokenize(text))

    def tokenize(self, text: str) -> list[int]:
        """Return the model's token ids."""
        return token_ids(self._whole, text)

    async def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: shape (n, dimension)."""
        vectors = np.empty((len(texts), self._spec.dimension), np.float32)
        if not texts:
            return vectors
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._documents, self._encode, texts)

        def embed(batch: list[int]) -> None:
            for index in batch:
                vectors[index] = self._run(tokens[index])

        async def hand_over(batch: list[int]) -> None:
            await loop.run_in_executor(self._documents, embed, batch)

        await work_through(self._batches(tokens), hand_over, workers=self._threads)
        return vectors

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed one query: shape (dimension,)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._queries, self._embed_one, text)

    async def aclose(self) -> None:
        """End the threads once their current batches are done."""
        for executor in (self._documents, self._queries):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)

    def _batches(self, tokens: list[list[int]]) -> Iterator[list[int]]:
        """Yield indices in batches, the longest texts first so that threads finish together."""
        batch: list[int] = []
        size = 0
        for index in sorted(range(len(tokens)), key=lambda i: -len(tokens[i])):
            if batch and size + len(tokens[index]) > self._batch_tokens:
                yield batch
                batch, size = [], 0
            batch.append(index)
            size += len(tokens[index])
        yield batch

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._cut.encode_batch_fast(list(texts))]

    def _embed_one(self, text: str) -> NDArray[np.float32]:
        return self._run(self._encode([text])[0])

    def _run(self, tokens: list[int]) -> NDArray[np.float32]:
        ids = np.array([tokens], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        vector: NDArray[np.float32] = self._session.run(None, feed)[0][0]
        return vector
