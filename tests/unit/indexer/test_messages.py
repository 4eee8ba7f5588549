from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime

from common import records
from common.coordination import Verdict, VersionRecord, VersionState
from indexer import messages
from indexer.chunking import Chunk
from indexer.containers import ContainerDeleted
from indexer.faults import Fault, FaultKind
from indexer.golden import Exam, GoldenQuery, Miss
from indexer.inventory import Listed
from indexer.nodes import attributes_of, chunk_record, moved
from indexer.repair import Repaired
from indexer.store import held_chunk
from indexer.verification import Examined
from sluice.collections.v1 import collections_pb2
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2
from tests.unit.indexer.corpus import CHUNKER, EMBEDDER, document, id_of

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
    told = index_pb2.IndexedDocument(
        document_id=id_of("a"),
        source_uri="file:///a",
        version=3,
        revision="a" * 16,
        chunk_count=1,
        container_uri=CONTAINER,
    )
    assert messages.indexed_document(Listed(head)) == told
    told.fragment, told.chunk_count = True, 0
    assert messages.indexed_document(Listed(head, fragment=True)) == told


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


def test_golden_queries_are_taken_over_with_the_bounds_of_the_contract() -> None:
    request = collections_pb2.VerifyVersionRequest(
        golden_queries=[collections_pb2.GoldenQuery(query="q", expected=["a", "b"])]
    )
    queries = (GoldenQuery("q", ("a", "b")),)
    assert messages.exam(request) == Exam(queries, threshold=0.9, max_drop=0.02, depth=10)
    request.golden_threshold, request.golden_max_drop, request.golden_depth = 0.0, 0.0, 3
    assert messages.exam(request) == Exam(queries, threshold=0.0, max_drop=0.0, depth=3)
    assert messages.exam(collections_pb2.VerifyVersionRequest()) is None


def test_every_kind_of_fault_has_a_name_on_the_wire() -> None:
    faults = [Fault("d", "file:///a", CONTAINER, kind, 3) for kind in FaultKind]
    told = messages.repaired(Repaired(7, tuple(faults), 9))
    assert (told.deleted_chunks, told.incomplete_documents) == (7, 9)
    names = [collections_pb2.FaultKind.Name(fault.kind) for fault in told.incomplete]
    assert names == [f"FAULT_KIND_{kind.name}" for kind in FaultKind]
    first = told.incomplete[0]
    assert (first.document_id, first.source_uri) == ("d", "file:///a")
    assert (first.container_uri, first.surplus_chunks) == (CONTAINER, 3)


def test_what_a_verification_found_fits_into_a_message() -> None:
    uri = "file:///" + "u" * 4_000
    faults = [Fault("0" * 32, uri, uri, FaultKind.INCOMPLETE, 0)] * 1_000
    misses = [Miss("q" * 8_192, (uri,) * 1_000, (uri,) * 10, active_finds=False)] * 100
    verdict = Verdict(passed=False, verified_at=datetime.now(UTC), findings=("short",))
    found = Examined(1, 2, verdict, tuple(faults), tuple(misses))
    record = VersionRecord(
        tenant="default",
        collection="docs",
        number=3,
        state=VersionState.READY,
        embedder=EMBEDDER.spec,
        chunking=CHUNKER.spec,
        documents=None,
        chunks=None,
        created_at=datetime.now(UTC),
        activated_at=None,
    )
    response = messages.verified(record, found)
    assert 2**20 < response.ByteSize() < 4 * 2**20
    assert 100 < len(response.faults) < 1_000
    assert (response.passed, list(response.findings)) == (False, ["short"])
    assert (response.version.counts.documents, response.version.counts.chunks) == (1, 2)
    few = messages.verified(record, Examined(1, 2, verdict, tuple(faults[:5]), ()))
    assert len(few.faults) == 5
