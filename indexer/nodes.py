"""The record of one chunk, laid out so that LlamaIndex's own ChromaVectorStore reads it as a node.

The layout is that of ``common.records``. ``_node_content`` is a LlamaIndex TextNode as JSON with
only the fields that differ from its defaults, and without the text, which the store holds already:
LlamaIndex's ``metadata_dict_to_node`` rebuilds the node from it. Nothing here reads or writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from common import identity, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.records import MetadataValue
    from indexer.chunking import Chunk
    from indexer.document import Document

NODE_TYPE = "TextNode"
_SOURCE = "1"  # LlamaIndex's NodeRelationship.SOURCE
_DOCUMENT = "4"  # LlamaIndex's ObjectType.DOCUMENT


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a document's chunks carry beside what their revision fixes; it may move in place."""

    version: int
    source_uri: str
    metadata: Mapping[str, MetadataValue]
    container_uri: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = attributes_digest(self.source_uri, self.container_uri, self.metadata)
        object.__setattr__(self, "digest", digest)


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One chunk as the store keeps it, but for its vector."""

    id: str
    ordinal: int
    text: str
    metadata: dict[str, MetadataValue]


def attributes_digest(
    source_uri: str, container_uri: str, metadata: Mapping[str, MetadataValue]
) -> str:
    """Tells whether source URI, container or metadata differ; 32 hex characters.

    The store keeps no negative zero, so it counts as zero here.
    """
    plain = {k: v + 0.0 if isinstance(v, float) else v for k, v in metadata.items()}
    text = json.dumps([source_uri, container_uri, plain], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def attributes_of(document: Document) -> Attributes:
    """What may move in place."""
    return Attributes(
        document.version, document.source_uri, document.metadata, document.container_uri
    )


def chunk_record(document: Document, revision: str, chunk: Chunk, chunk_count: int) -> ChunkRecord:
    """The record of one chunk of a document."""
    chunk_id = identity.chunk_id(document.document_id, revision, chunk.ordinal)
    described: dict[str, MetadataValue] = {
        records.SOURCE_URI: document.source_uri,
        records.TITLE: document.title,
        records.MEDIA_TYPE: document.media_type,
    }
    if chunk.page is not None:
        described[records.PAGE] = chunk.page
    described.update(document.metadata)
    container = {records.CONTAINER: document.container_uri} if document.container_uri else {}
    return ChunkRecord(
        id=chunk_id,
        ordinal=chunk.ordinal,
        text=chunk.text,
        metadata=described
        | container
        | {
            records.DOCUMENT_ID: document.document_id,
            records.VERSION: document.version,
            records.REVISION: revision,
            records.ORDINAL: chunk.ordinal,
            records.CHUNK_COUNT: chunk_count,
            records.START: chunk.start,
            records.END: chunk.end,
            records.NODE_TYPE: NODE_TYPE,
            records.DOC_ID: document.document_id,
            records.REF_DOC_ID: document.document_id,
            records.NODE_CONTENT: _node_content(
                chunk_id, document.document_id, chunk.start, chunk.end, described
            ),
        },
    )


def moved(
    chunk_id: str, stored: Mapping[str, MetadataValue], attributes: Attributes
) -> dict[str, MetadataValue | None]:
    """What to merge into a stored record's metadata to move it; a None removes its key."""
    fixed = (records.TITLE, records.MEDIA_TYPE, records.PAGE)
    described: dict[str, MetadataValue] = {records.SOURCE_URI: attributes.source_uri}
    described.update({key: stored[key] for key in fixed if key in stored})
    described.update(attributes.metadata)
    gone = records.user_metadata(stored).keys() - attributes.metadata.keys()
    content = _node_content(
        chunk_id,
        identity.parse_chunk_id(chunk_id).document_id,
        stored[records.START],
        stored[records.END],
        described,
    )
    return {
        **dict.fromkeys(gone),
        **described,
        records.CONTAINER: attributes.container_uri or None,
        records.VERSION: attributes.version,
        records.NODE_CONTENT: content,
    }


def _node_content(
    chunk_id: str,
    document_id: str,
    start: MetadataValue,
    end: MetadataValue,
    described: Mapping[str, MetadataValue],
) -> str:
    source = {"node_id": document_id, "node_type": _DOCUMENT, "class_name": "RelatedNodeInfo"}
    node: dict[str, Any] = {
        "id_": chunk_id,
        "metadata": described,
        # The text alone was embedded.
        "excluded_embed_metadata_keys": sorted(described),
        "relationships": {_SOURCE: source},
        "start_char_idx": start,
        "end_char_idx": end,
        "class_name": NODE_TYPE,
    }
    # Sorted: a message's map has no order, and the same document must give the same record.
    return json.dumps(node, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
