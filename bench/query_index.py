"""An active index version of many chunks, written straight to the store as an indexer leaves it.

Embedding a hundred thousand chunks with a model would take an hour and change nothing of what a
query costs after it, so vectors come from the hashing embedder: texts that share words are near
each other. It must never stand for a measurement of quality.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from common.chroma import ChromaSettings, open_chroma
from common.coordination import ChunkingSpec, IndexRegistry, VersionState, open_coordinator
from common.identity import content_digest, document_id
from indexer.chunking import Chunk
from indexer.document import Document
from indexer.nodes import chunk_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.passages import Passage
    from common.embedding import Embedder
    from indexer.nodes import ChunkRecord
    from tests.cluster import Cluster

COLLECTION = "bench"
# Chunks of a document.
LENGTH = 4
# Chunks written at once, a multiple of LENGTH.
BATCH = 2_000
CHUNKING = ChunkingSpec("sentence", 256, 32)


async def write_index(
    cluster: Cluster,
    passages: Sequence[Passage],
    embedder: Embedder,
    progress: Callable[[int], None],
) -> str:
    """Write a collection of which each passage is a chunk.

    Args:
        cluster: whose store and coordinator.
        passages: cut into documents of four chunks.
        embedder: that of the cluster's servers.
        progress: told how many chunks are written.

    Returns:
        The name of the version's collection in the store.
    """
    async with AsyncExitStack() as stack:
        chroma = open_chroma(ChromaSettings.model_validate(cluster.settings["chroma"]))
        stack.push_async_callback(chroma.aclose)
        coordinator = open_coordinator(cluster.coordinator)
        stack.push_async_callback(coordinator.aclose)
        registry = IndexRegistry(coordinator)
        begun = await registry.begin_version("", COLLECTION, embedder.spec, CHUNKING)
        store = await chroma.create_collection(begun.store_collection)
        for start in range(0, len(passages), BATCH):
            chunks = list(_chunks(passages[start : start + BATCH], start))
            texts = [chunk.text for chunk in chunks]
            await store.upsert(
                ids=[chunk.id for chunk in chunks],
                embeddings=await embedder.embed_documents(texts),
                documents=texts,
                metadatas=[chunk.metadata for chunk in chunks],
            )
            progress(start + len(chunks))
        documents = -(-len(passages) // LENGTH)
        await registry.set_state(
            begun, VersionState.READY, documents=documents, chunks=len(passages)
        )
        await registry.activate("", COLLECTION, begun.number)
        return begun.store_collection


def _chunks(passages: Sequence[Passage], first: int) -> Iterator[ChunkRecord]:
    for start in range(0, len(passages), LENGTH):
        parts = passages[start : start + LENGTH]
        content = "\n".join(part.text for part in parts)
        uri = f"bench:///{(first + start) // LENGTH}"
        document = Document(
            document_id=document_id(uri),
            source_uri=uri,
            version=1,
            media_type="text/plain",
            title=parts[0].title,
            content=content,
            content_digest=content_digest(content),
            metadata={"lang": "en"},
            pages=(),
        )
        revision, position = document.revision(CHUNKING.fingerprint()), 0
        for ordinal, part in enumerate(parts):
            chunk = Chunk(ordinal, part.text, position, position + len(part.text), None)
            position = chunk.end + 1
            yield chunk_record(document, revision, chunk, len(parts))
