"""LlamaIndex's own store adapter opens a collection that Sluice wrote and retrieves from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chromadb
import pytest
from chromadb.config import Settings as ClientOptions
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import MetadataMode, NodeRelationship, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.vector_stores.chroma import ChromaVectorStore

from common.embedding import EmbeddingSettings, open_embedder
from common.identity import document_id
from indexer.embedding import EmbedderEmbedding
from sluice.document.v1 import document_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.indexer.conftest import Running

EMBEDDING = EmbedderEmbedding(open_embedder(EmbeddingSettings(kind="hashing", dimension=32)))
TEXT = "  The lake freezes in winter. " * 9 + "A heron stands by the frozen water. " * 9


def message(version: int, lang: str) -> document_pb2.Document:
    return document_pb2.Document(
        source_uri="hdfs://lake/heron.pdf",
        version=version,
        media_type="application/pdf",
        title="Of herons",
        content=TEXT,
        metadata={
            "lang": document_pb2.MetadataValue(string_value=lang),
            "tags": document_pb2.MetadataValue(
                string_list_value=document_pb2.StringList(values=["bird", "ice"])
            ),
        },
        pages=[
            document_pb2.PageSpan(
                number=n + 1,
                span=document_pb2.CharacterSpan(start=n * 300, end=min(n * 300 + 300, len(TEXT))),
            )
            for n in range(-(-len(TEXT) // 300))
        ],
    )


def opened(tmp_path: Path) -> VectorStoreIndex:
    client = chromadb.PersistentClient(
        str(tmp_path / "chroma"), settings=ClientOptions(anonymized_telemetry=False)
    )
    collection = client.get_collection("default.docs.v000001", embedding_function=None)
    store = ChromaVectorStore(chroma_collection=collection)
    return VectorStoreIndex.from_vector_store(store, embed_model=EMBEDDING)


@pytest.mark.parametrize("moved", [False, True], ids=["written", "moved in place"])
async def test_nodes_come_back_as_they_were_cut(
    tmp_path: Path,
    running: Running,
    moved: bool,  # noqa: FBT001 — a parameter of the test
) -> None:
    await running.create()
    await running.send([message(1, "de" if moved else "en")])
    await running.send([message(2, "en")])
    await running.send([document_pb2.Document(source_uri="x", version=1, content="a tax form")])
    retriever = opened(tmp_path).as_retriever(similarity_top_k=3)
    found = await retriever.aretrieve("a heron by the water")
    assert len(found) == 3
    assert "heron" in found[0].get_content()
    for scored in found:
        node = scored.node
        assert isinstance(node, TextNode)
        assert node.start_char_idx is not None
        assert node.end_char_idx is not None
        assert TEXT[node.start_char_idx : node.end_char_idx] == node.text
        source = node.relationships[NodeRelationship.SOURCE]
        assert getattr(source, "node_id", None) == document_id("hdfs://lake/heron.pdf")
        assert node.ref_doc_id == document_id("hdfs://lake/heron.pdf")
        assert node.node_id.startswith(f"{node.ref_doc_id}:")
        assert node.metadata == {
            "source_uri": "hdfs://lake/heron.pdf",
            "title": "Of herons",
            "media_type": "application/pdf",
            "page": (node.start_char_idx + node.end_char_idx) // 2 // 300 + 1,
            "lang": "en",
            "tags": ["bird", "ice"],
        }
        assert node.get_content(MetadataMode.EMBED) == node.text
        assert "Of herons" in node.get_content(MetadataMode.LLM)


async def test_filters_on_user_metadata_work(tmp_path: Path, running: Running) -> None:
    await running.create()
    await running.send([message(2, "en")])
    index = opened(tmp_path)
    for lang, some in (("en", True), ("de", False)):
        filters = MetadataFilters(filters=[MetadataFilter(key="lang", value=lang)])
        found = await index.as_retriever(filters=filters).aretrieve("ice")
        assert bool(found) is some


def test_the_synchronous_interface_gives_the_same_vectors() -> None:
    texts = ["a heron", "a lake"]
    vectors = EMBEDDING.get_text_embedding_batch(texts)
    assert [EMBEDDING.get_text_embedding(text) for text in texts] == vectors
    assert EMBEDDING.get_query_embedding("a heron") == vectors[0]
