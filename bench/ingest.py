"""Indexing set beside its bound: Sluice, LlamaIndex and the bare embedder on the same chunks.

Embedding is the bound on indexing, so the figure that tells is efficiency: the chunks per second of
a whole job over those of the embedder alone, in the same run. The embedder is measured before and
after, since a machine's speed drifts. Nothing is downloaded; everything lives in a temporary
folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.vector_stores.chroma import ChromaVectorStore

from client.local_server import local_server
from common.chroma import ChromaSettings, open_chroma
from common.embedding import EmbeddingSettings, open_embedder
from indexer.embedding import EmbedderEmbedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.embedding import Embedder

ROOT = Path(__file__).resolve().parent.parent
# The first that is there: a large one kept beside the project for measuring, else the samples.
CORPORA = (ROOT.parent / "shared/data/corpora/powershell-docs", ROOT / "samples")
SUFFIXES = {".md", ".txt", ".html", ".csv", ".jsonl", ".log"}
FILES = 300
QUICK_FILES = 40
COLLECTION = "bench"


def run(*, corpus: Path | None, files: int | None, quick: bool) -> dict[str, Any]:
    """Measure and compare.

    Args:
        corpus: folder of text files.
        files: how many of them, in order of their paths.
        quick: fewer files where ``files`` does not say.

    Raises:
        ValueError: the folder holds no text files.
    """
    corpus = corpus or next(folder for folder in CORPORA if folder.is_dir())
    limit = files or (QUICK_FILES if quick else FILES)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        home = Path(folder)
        lake = home / "lake"
        chosen = _copy(corpus, lake, limit)
        if not chosen:
            raise ValueError(f"{corpus} holds none of {', '.join(sorted(SUFFIXES))}")
        _say(f"ingest: {len(chosen)} files of {corpus.name}")
        summary = asyncio.run(_ingest(home, lake))
        chunks = asyncio.run(_chunks(home))
        embedder = open_embedder(EmbeddingSettings())
        raw = [_raw(embedder, chunks)]
        llama_index = _llama_index(embedder, chosen, home / "llama-index")
        raw.append(_raw(embedder, chunks))
        asyncio.run(embedder.aclose())
    raw_rate = len(chunks) / (sum(raw) / len(raw))
    ours = summary["chunks"] / summary["duration_s"]
    return {
        "corpus": {
            "name": corpus.name,
            "files": len(chosen),
            "documents": summary["indexed"],
            "chunks": len(chunks),
            "mb": round(summary["bytes"] / 1e6, 2),
        },
        "embedder": f"{embedder.spec.model} {embedder.spec.variant}",
        "raw_embedding": {
            "chunks_per_s": round(raw_rate, 1),
            "runs_s": [round(seconds, 2) for seconds in raw],
        },
        "ours": {
            "chunks_per_s": round(ours, 1),
            "documents_per_s": summary["documents_per_s"],
            "mb_per_s": summary["mb_per_s"],
            "duration_s": summary["duration_s"],
        },
        "llama_index": llama_index
        | {"efficiency": round(llama_index["chunks_per_s"] / raw_rate, 3)},
        "efficiency": round(ours / raw_rate, 3),
    }


def _copy(corpus: Path, lake: Path, limit: int) -> list[Path]:
    found = sorted(path for path in corpus.rglob("*") if path.suffix.lower() in SUFFIXES)
    copies = []
    for path in islice(found, limit):
        copy = lake / path.relative_to(corpus)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copyfile(path, copy)))
    return copies


async def _ingest(home: Path, lake: Path) -> dict[str, Any]:
    """A whole job as its user runs it: a server and a job, each a process."""
    _say("ours: sluice up and sluice ingest")
    environ = {**os.environ, "SLUICE_INGEST__STATE_URI": (home / "state").as_uri()}
    async with local_server(home, environ=environ) as address:
        command = [sys.executable, "-m", "client", "ingest", str(lake)]
        command += ["--collection", COLLECTION, "--target", address, "--json"]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environ, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"the job ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


async def _chunks(home: Path) -> list[str]:
    """The texts that the job wrote."""
    chroma = open_chroma(ChromaSettings(mode="embedded", path=home / "data" / "chroma"))
    collection = await chroma.collection(f"default.{COLLECTION}.v000001")
    texts = (await collection.get(include=["documents"])).documents or []
    await chroma.aclose()
    return texts


def _raw(embedder: Embedder, chunks: Sequence[str]) -> float:
    """Seconds the embedder alone takes."""
    _say(f"raw: {len(chunks)} chunks through the embedder alone")
    started = time.perf_counter()
    asyncio.run(_embed(embedder, chunks))
    return time.perf_counter() - started


async def _embed(embedder: Embedder, chunks: Sequence[str]) -> None:
    await embedder.embed_documents(chunks)


def _llama_index(embedder: Embedder, files: Sequence[Path], home: Path) -> dict[str, Any]:
    """LlamaIndex's own way with the same model and splitter into an embedded Chroma."""
    _say("llama-index: VectorStoreIndex.from_documents")
    documents = [
        Document(text=path.read_text(encoding="utf-8", errors="replace"), doc_id=path.as_uri())
        for path in files
    ]
    client = chromadb.PersistentClient(str(home))
    collection = client.get_or_create_collection(COLLECTION, embedding_function=None)
    splitter = SentenceSplitter(
        chunk_size=embedder.spec.max_tokens - 2, chunk_overlap=32, tokenizer=embedder.tokenize
    )
    started = time.perf_counter()
    VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(
            vector_store=ChromaVectorStore(chroma_collection=collection)
        ),
        embed_model=EmbedderEmbedding(embedder),
        transformations=[splitter],
    )
    seconds = time.perf_counter() - started
    chunks = collection.count()
    return {"chunks": chunks, "chunks_per_s": round(chunks / seconds, 1)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
