"""The query server that one writes in an afternoon, as a process for the benchmark to ask.

A plain ``grpc.aio`` server over the same contract: it embeds the question, asks Chroma for the
candidates with their texts and ranks them with rank_bm25 in Python, mixed half and half with the
similarities. No routing, no cache, no bounds. It must never be more than that, nor less: it is the
peer.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

import chromadb
import grpc
import numpy as np
import rank_bm25
from chromadb.config import Settings as ClientOptions

from bench.rerank_words import fused
from common.embedding.hashing_embedder import HashingEmbedder
from sluice.query.v1 import query_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from common.embedding import Embedder

CANDIDATES = 200
HITS = 10
SERVICE = query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name


class PlainSearch:
    """Answers ``Search`` with chunk ids, texts and scores.

    Args:
        collection: a collection of ``chromadb.AsyncHttpClient``, which ships no types of its own.
        embedder: of the collection's vectors.
    """

    def __init__(self, collection: Any, embedder: Embedder) -> None:  # noqa: ANN401 — as said above
        self._collection = collection
        self._embedder = embedder

    async def search(
        self,
        request: query_pb2.SearchRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 — every method gets one
    ) -> query_pb2.SearchResponse:
        """Answer one query."""
        found = await self._collection.query(
            query_embeddings=[await self._embedder.embed_query(request.text)],
            n_results=CANDIDATES,
            include=["documents", "distances"],
        )
        ids, texts, distances = (found[name][0] for name in ("ids", "documents", "distances"))
        scores = _scores(request.text, texts, 1 - np.asarray(distances, np.float32))
        best = np.argsort(-scores, kind="stable")[: request.top_k or HITS]
        return query_pb2.SearchResponse(
            hits=[
                query_pb2.Hit(
                    rank=rank, chunk_id=ids[place], text=texts[place], score=float(scores[place])
                )
                for rank, place in enumerate(best, start=1)
            ]
        )

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is to be given."""
        method = grpc.unary_unary_rpc_method_handler(
            self.search,
            request_deserializer=query_pb2.SearchRequest.FromString,
            response_serializer=query_pb2.SearchResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Search": method})


def _scores(
    question: str, texts: Sequence[str], similarities: NDArray[np.float32]
) -> NDArray[np.float32]:
    index = rank_bm25.BM25Okapi([text.lower().split() for text in texts])
    return fused(similarities, index.get_scores(question.lower().split()).astype(np.float32))


async def serve(chroma_port: int, collection: str, dimension: int) -> None:
    """Serve until the process is ended; tells its address on stdout."""
    client = await chromadb.AsyncHttpClient(
        "127.0.0.1", chroma_port, settings=ClientOptions(anonymized_telemetry=False)
    )
    opened = await client.get_collection(collection, embedding_function=None)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((PlainSearch(opened, HashingEmbedder(dimension)).handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chroma-port", type=int, required=True)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--dimension", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(serve(given.chroma_port, given.collection, given.dimension))
