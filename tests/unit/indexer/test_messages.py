from __future__ import annotations

from dataclasses import fields, replace

from common import records
from indexer import messages
from indexer.chunking import Chunk
from indexer.containers import ContainerDeleted
from indexer.nodes import attributes_of, chunk_record, moved
from indexer.store import held_chunk
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2
from tests.unit.indexer.corpus import document, id_of

CONTAINER = "hdfs://lake/table.parquet"


def test_every_field_of_a_document_is_taken_over() -> None:
    sent = document_pb2.Document(
        document_id="0" * 32,
        source_uri=f"{CONTAINER}#row=1",
        version=7,
        media_type="text/plain",
        title="title",
        content="content",
        content_digest="d",
        metadata={"lang": document_pb2.MetadataValue(string_value="en")},
        pages=[document_pb2.PageSpan(number=1, span=document_pb2.CharacterSpan(start=0, end=3))],
        container_uri=CONTAINER,
    )
    taken = messages.document_from(sent)
    assert {field.name for field in fields(taken)} == {
        *sent.DESCRIPTOR.fields_by_name,
        "unreadable",
    }
    plain = set(sent.DESCRIPTOR.fields_by_name) - {"metadata", "pages"}
    assert {n: getattr(taken, n) for n in plain} == {n: getattr(sent, n) for n in plain}
    assert taken.metadata == {"lang": "en"}


def test_a_container_is_kept_beside_the_metadata_and_read_back() -> None:
    chunk = Chunk(0, "text", 0, 4, None)
    one = replace(
        document("a", 3, "text", metadata={"lang": "en"}, container=CONTAINER),
        document_id=id_of("a"),
    )
    record = chunk_record(one, "a" * 16, chunk, 1)
    assert record.metadata[records.CONTAINER] == CONTAINER
    assert records.user_metadata(record.metadata) == {"lang": "en"}
    assert not records.is_user_key(records.CONTAINER)
    head = held_chunk(record.id, record.metadata)
    assert messages.indexed_document(head) == index_pb2.IndexedDocument(
        document_id=id_of("a"),
        source_uri="file:///a",
        version=3,
        revision="a" * 16,
        chunk_count=1,
        container_uri=CONTAINER,
    )


def test_a_document_without_a_container_has_no_key_for_it() -> None:
    chunk = Chunk(0, "text", 0, 4, None)
    alone = replace(document("a", 3, "text"), document_id=id_of("a"))
    inside = replace(alone, container_uri=CONTAINER)
    assert records.CONTAINER not in chunk_record(alone, "a" * 16, chunk, 1).metadata
    assert attributes_of(inside).digest != attributes_of(alone).digest
    assert inside.revision("x") == alone.revision("x")
    stored = chunk_record(inside, "a" * 16, chunk, 1)
    assert moved(stored.id, stored.metadata, attributes_of(alone))[records.CONTAINER] is None


def test_a_deleted_container_tells_how_far_it_came() -> None:
    assert messages.container_deletion_result(
        CONTAINER, ContainerDeleted(5, complete=False)
    ) == index_pb2.ContainerDeletionResult(container_uri=CONTAINER, deleted=5)
    assert messages.container_deletion_result(
        CONTAINER, ContainerDeleted(0, complete=True)
    ) == index_pb2.ContainerDeletionResult(container_uri=CONTAINER, complete=True)
