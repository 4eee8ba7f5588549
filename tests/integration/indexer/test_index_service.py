"""IndexService over the wire: the rules of the stream, outcomes and listings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from common.coordination import ChunkingSpec, VersionState
from common.errors import (
    EmbedderMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Overloaded,
)
from common.identity import ConsistencyToken, content_digest, decode_token, document_id
from common.rpc import translate_rpc_error
from sluice.collections.v1 import collections_pb2 as collections
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2
from tests.integration.indexer.conftest import MAX_BATCH_BYTES, document

if TYPE_CHECKING:
    from tests.integration.indexer.conftest import Running

Request = index_pb2.IndexDocumentsRequest
OPENING = Request(opening=index_pb2.StreamOpening(collection="docs"))
ABSENT = "0" * 32


def batch(*documents: document_pb2.Document) -> Request:
    return Request(batch=index_pb2.DocumentBatch(documents=documents))


def id_of(name: str) -> str:
    return document_id(f"file:///{name}")


async def test_each_document_is_acknowledged_once_with_its_outcome(running: Running) -> None:
    await running.create()
    first = await running.send([document("a"), document("b", 5)], [document("c")])
    assert [ack.document_id for ack in first] == [id_of("a"), id_of("b"), id_of("c")]
    assert {ack.outcome for ack in first} == {index_pb2.OUTCOME_INDEXED}
    assert all(ack.chunk_count > 1 for ack in first)
    again = await running.send(
        [document("a"), document("b", 4), document("c", 2, "other"), document("d", content=" \n")]
    )
    assert [(ack.version, ack.outcome) for ack in again] == [
        (1, index_pb2.OUTCOME_UNCHANGED),
        (4, index_pb2.OUTCOME_SUPERSEDED),
        (2, index_pb2.OUTCOME_INDEXED),
        (1, index_pb2.OUTCOME_REJECTED),
    ]
    assert again[0].chunk_count == first[0].chunk_count
    assert again[2].chunk_count == 1
    assert again[3].rejection.cause == index_pb2.REJECTION_CAUSE_EMPTY_CONTENT
    assert await running.listed() == {"file:///a": 1, "file:///b": 5, "file:///c": 2}


async def test_the_opening_is_answered_with_the_limits(running: Running) -> None:
    await running.create()
    (response,) = await running.stream([OPENING])
    assert response.opened == index_pb2.StreamOpened(
        index_version=1,
        max_batch_documents=64,
        max_batch_bytes=MAX_BATCH_BYTES,
        max_document_bytes=2**15,
    )


async def test_a_token_names_the_generation_that_reads_what_was_written(running: Running) -> None:
    await running.create()
    (ack,) = await running.send([document("a")])
    assert decode_token(ack.consistency_token) == ConsistencyToken("default", "docs", 1, 1)
    begun = await running.collections.BeginVersion(
        collections.BeginVersionRequest(collection="docs")
    )
    (ack,) = await running.send([document("a")], index_version=begun.version.number)
    assert decode_token(ack.consistency_token) == ConsistencyToken("default", "docs", 2, 2)


REJECTIONS = {
    "EMPTY_CONTENT": document("x", content="\n \t"),
    "CONTENT_TOO_LARGE": document("x", content="é" * 2**14 + "e"),
    "UNSUPPORTED_MEDIA_TYPE": document("x", media_type="image/png"),
    "INVALID_METADATA": document("x", metadata={"title": document_pb2.MetadataValue()}),
    "INVALID_DOCUMENT_ID": document("x", document_id="A" * 32),
    "INVALID_SOURCE_URI": document_pb2.Document(version=1, content="text"),
    "INVALID_VERSION": document("x", version=0),
    "DIGEST_MISMATCH": document("x", content_digest=content_digest("other")),
    "INVALID_PAGES": document(
        "x",
        pages=[document_pb2.PageSpan(number=1, span=document_pb2.CharacterSpan(start=0, end=9999))],
    ),
    "INVALID_TITLE": document("x", title="é" * 513),
}


@pytest.mark.parametrize("cause", REJECTIONS)
async def test_a_document_that_breaks_a_rule_is_rejected_and_the_stream_goes_on(
    running: Running, cause: str
) -> None:
    await running.create()
    await running.send([document("x")])
    rejected, indexed, later = await running.send(
        [REJECTIONS[cause], document("y")], [document("z")]
    )
    assert rejected.outcome == index_pb2.OUTCOME_REJECTED
    name = index_pb2.RejectionCause.Name(rejected.rejection.cause)
    assert name == f"REJECTION_CAUSE_{cause}"
    assert rejected.rejection.message
    assert "text of its own" not in rejected.rejection.message
    assert not rejected.consistency_token
    assert {indexed.outcome, later.outcome} == {index_pb2.OUTCOME_INDEXED}
    assert await running.listed() == {f"file:///{name}": 1 for name in "xyz"}


METADATA_FAULTS = {
    "reserved": {"page": document_pb2.MetadataValue(int_value=1)},
    "underscore": {"_version": document_pb2.MetadataValue(int_value=1)},
    "unset": {"lang": document_pb2.MetadataValue()},
    "empty list": {"tags": document_pb2.MetadataValue(string_list_value=document_pb2.StringList())},
    "not finite": {"weight": document_pb2.MetadataValue(double_value=float("nan"))},
    "too many": {f"k{n}": document_pb2.MetadataValue(bool_value=True) for n in range(65)},
    "too large": {"k": document_pb2.MetadataValue(string_value="x" * 2**14)},
}


@pytest.mark.parametrize("fault", METADATA_FAULTS)
async def test_metadata_that_cannot_be_kept_are_rejected(running: Running, fault: str) -> None:
    await running.create()
    (ack,) = await running.send([document("x", metadata=METADATA_FAULTS[fault])])
    assert ack.rejection.cause == index_pb2.REJECTION_CAUSE_INVALID_METADATA
    assert await running.listed() == {}


BROKEN_STREAMS = {
    "no opening": ([batch(document("a"))], "opening", 0),
    "no message": ([], "opening", 0),
    "an empty message": ([Request()], "opening", 0),
    "a second opening": ([OPENING, batch(document("a")), OPENING], "batch", 2),
    "an empty batch": ([OPENING, batch(document("a")), batch()], "batch.documents", 2),
    "too many documents": (
        [OPENING, batch(document("a")), batch(*(document(f"{n}") for n in range(65)))],
        "batch.documents",
        2,
    ),
    "too many bytes": (
        [OPENING, batch(document("a")), batch(document("b", content="x " * MAX_BATCH_BYTES))],
        "batch",
        2,
    ),
    "the same document twice": (
        [OPENING, batch(document("a")), batch(document("b"), document("b", 2))],
        "batch.documents.document_id",
        2,
    ),
    "the same document twice, once by its id": (
        [
            OPENING,
            batch(document("a")),
            batch(document("b"), document("other", document_id=id_of("b"))),
        ],
        "batch.documents.document_id",
        2,
    ),
    "a long job id": (
        [Request(opening=index_pb2.StreamOpening(collection="docs", job_id="j" * 129))],
        "opening.job_id",
        0,
    ),
    "a malformed collection": (
        [Request(opening=index_pb2.StreamOpening(collection="Docs"))],
        "collection",
        0,
    ),
}


@pytest.mark.parametrize("rule", BROKEN_STREAMS)
async def test_a_broken_rule_ends_the_stream_after_the_batches_before_it(
    running: Running, rule: str
) -> None:
    requests, field, answers = BROKEN_STREAMS[rule]
    await running.create()
    responses, error = await running.stream_until_error(requests)
    assert error is not None
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details() or "").startswith(f"{field}: ")
    assert len(responses) == answers
    assert await running.listed() == ({"file:///a": 1} if answers else {})


async def test_text_that_is_not_utf8_ends_the_stream(running: Running) -> None:
    await running.create()
    good = batch(document("a", content="good")).SerializeToString()
    bad = good.replace(b"good", b"\xff\xfe\xff\xfe")
    async with grpc.aio.insecure_channel(running.address) as channel:
        method: Any = channel.stream_stream("/sluice.index.v1.IndexService/IndexDocuments")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            async for _ in method(iter([OPENING.SerializeToString(), bad])):
                pass
    assert isinstance(translate_rpc_error(failure.value), InvalidArgument)
    assert await running.listed() == {}


class TestWhichVersionTakesWrites:
    async def test_none_that_is_not_there(self, running: Running) -> None:
        with pytest.raises(NotFound):
            await running.send([document("a")])
        await running.create()
        with pytest.raises(NotFound):
            await running.send([document("a")], index_version=7)

    @pytest.mark.parametrize("state", [VersionState.READY, VersionState.FAILED])
    async def test_none_that_is_verified_or_failed(
        self, running: Running, state: VersionState
    ) -> None:
        await running.create()
        begun = await running.collections.BeginVersion(
            collections.BeginVersionRequest(collection="docs")
        )
        record = await running.registry.version("default", "docs", begun.version.number)
        await running.registry.set_state(record, state)
        with pytest.raises(FailedPrecondition, match="version 1 is active now"):
            await running.send([document("a")], index_version=record.number)

    async def test_none_of_another_embedder_or_chunking(self, running: Running) -> None:
        await running.create()
        record = await running.registry.version("default", "docs", 0)
        other = await running.registry.begin_version(
            "default", "docs", record.embedder, ChunkingSpec("sentence", 99, 9)
        )
        with pytest.raises(FailedPrecondition, match=r"sentence/99/9.*ingest --rebuild --activate"):
            await running.send([document("a")], index_version=other.number)
        spec = type(record.embedder)("other", "d" * 64, 8, "mean", 256, "int8")
        other = await running.registry.begin_version("default", "docs", spec, record.chunking)
        with pytest.raises(FailedPrecondition, match=r"other \(int8.*ingest --rebuild --activate"):
            await running.send([document("a")], index_version=other.number)
        assert issubclass(EmbedderMismatch, FailedPrecondition)

    async def test_one_that_is_built_beside_the_active_one(self, running: Running) -> None:
        await running.create()
        begun = await running.begin()
        await running.send([document("a")], index_version=begun.version.number)
        assert await running.listed(index_version=begun.version.number) == {"file:///a": 1}
        assert await running.listed() == {}


async def test_streams_beyond_the_bound_are_refused_with_a_delay(running: Running) -> None:
    await running.create()
    calls = [running.index.IndexDocuments() for _ in range(2)]
    for call in calls:
        await call.write(OPENING)
        assert isinstance(await call.read(), index_pb2.IndexDocumentsResponse)
    _, error = await running.stream_until_error([OPENING])
    assert error is not None
    refusal = translate_rpc_error(error)
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after_ms
    for call in calls:
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    assert len(await running.stream([OPENING])) == 1


async def test_a_stream_without_an_opening_does_not_keep_others_out(running: Running) -> None:
    await running.create()
    call = running.index.IndexDocuments()
    with pytest.raises(grpc.aio.AioRpcError, match="opening: none came within 1 s") as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_that_is_cancelled_leaves_nothing_that_a_replay_does_not_heal(
    running: Running,
) -> None:
    await running.create()
    batches = [[document(f"{n}-{m}") for m in range(8)] for n in range(6)]
    call = running.index.IndexDocuments()
    await call.write(OPENING)
    for documents in batches:
        await call.write(batch(*documents))
    await call.read()
    await call.read()
    call.cancel()
    acknowledged = await running.send(*batches)
    assert len(acknowledged) == 48
    assert {ack.outcome for ack in acknowledged} <= {
        index_pb2.OUTCOME_INDEXED,
        index_pb2.OUTCOME_UNCHANGED,
    }
    verified = await running.collections.VerifyVersion(
        collections.VerifyVersionRequest(collection="docs", expected_documents=48)
    )
    assert list(verified.findings) == []


async def test_streams_at_once_end_with_the_newest_state_of_each_document(
    running: Running,
) -> None:
    await running.create()
    await asyncio.gather(
        running.send(*([document(n, v, f"state {v} of {n}. " * v)] for v in (1, 3) for n in "abc")),
        running.send(*([document(n, v, f"state {v} of {n}. " * v)] for v in (4, 2) for n in "cab")),
    )
    assert await running.listed() == {f"file:///{n}": 4 for n in "abc"}
    verified = await running.collections.VerifyVersion(
        collections.VerifyVersionRequest(collection="docs", expected_documents=3)
    )
    assert verified.passed


async def test_an_acknowledged_document_is_found_at_once(running: Running) -> None:
    """I5, read beside the service: by Chroma itself."""
    await running.create()
    collection = await running.chroma.collection("default.docs.v000001")
    call = running.index.IndexDocuments()
    await call.write(OPENING)
    await call.read()
    for version in (1, 2, 3):
        await call.write(batch(document("a", version, f"state {version}. " * 9 * version)))
        response = await call.read()
        assert isinstance(response, index_pb2.IndexDocumentsResponse)
        (ack,) = response.acknowledgements.acknowledgements
        found = await collection.get(where={"document_id": id_of("a")})
        assert len(found.ids) == ack.chunk_count
        assert {metadata["_version"] for metadata in found.metadatas or []} == {version}
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


class TestListing:
    async def test_pages_through_all_and_filters_by_prefix(self, running: Running) -> None:
        await running.create()
        names = [f"{folder}/{n}" for folder in ("one", "two") for n in range(150)]
        sent = [document(name, content="short") for name in names]
        await running.send(*(sent[n : n + 50] for n in range(0, 300, 50)))
        assert len(await running.listed()) == 300
        assert set(await running.listed("file:///two/")) == {f"file:///two/{n}" for n in range(150)}

    async def test_leaves_out_what_is_not_complete(self, running: Running) -> None:
        await running.create()
        await running.send([document("a"), document("b"), document("c")])
        collection = await running.chroma.collection("default.docs.v000001")
        for name, ordinal in (("a", 0), ("b", 1)):
            found = await collection.get(where={"document_id": id_of(name)}, include=())
            await collection.delete([id_ for id_ in found.ids if id_.endswith(f":{ordinal}")])
        assert await running.listed() == {"file:///c": 1}

    async def test_tells_revision_and_chunks(self, running: Running) -> None:
        await running.create()
        (ack,) = await running.send([document("a", 7)])
        request = index_pb2.ListDocumentsRequest(collection="docs")
        (response,) = [response async for response in running.index.ListDocuments(request)]
        (listed,) = response.documents
        assert (listed.document_id, listed.version) == (id_of("a"), 7)
        assert listed.chunk_count == ack.chunk_count
        assert len(listed.revision) == 16


class TestDeleting:
    async def delete(self, running: Running, *documents: tuple[str, int]) -> list[int]:
        request = index_pb2.DeleteDocumentsRequest(
            collection="docs",
            documents=[
                index_pb2.DocumentDeletion(document_id=id_, version=version)
                for id_, version in documents
            ],
        )
        response = await running.index.DeleteDocuments(request)
        assert [result.document_id for result in response.results] == [id_ for id_, _ in documents]
        return [result.outcome for result in response.results]

    async def test_deletes_what_is_not_newer(self, running: Running) -> None:
        await running.create()
        await running.send([document("a", 3), document("b", 3), document("c", 3), document("d", 3)])
        wanted = [(id_of("a"), 0), (id_of("b"), 3), (id_of("c"), 2), (ABSENT, 0)]
        assert await self.delete(running, *wanted) == [
            index_pb2.DELETION_OUTCOME_DELETED,
            index_pb2.DELETION_OUTCOME_DELETED,
            index_pb2.DELETION_OUTCOME_SUPERSEDED,
            index_pb2.DELETION_OUTCOME_ABSENT,
        ]
        assert await running.listed() == {"file:///c": 3, "file:///d": 3}
        collection = await running.chroma.collection("default.docs.v000001")
        assert not (await collection.get(where={"document_id": id_of("a")})).ids

    @pytest.mark.parametrize(
        "documents",
        [
            [],
            [("x", 0)],
            [(ABSENT, 0), (ABSENT, 1)],
            [(ABSENT, -1)],
            [(f"{n:032x}", 0) for n in range(1001)],
        ],
        ids=["none", "malformed", "duplicate", "negative version", "too many"],
    )
    async def test_bad_requests_delete_nothing(
        self, running: Running, documents: list[tuple[str, int]]
    ) -> None:
        await running.create()
        await running.send([document("a")])
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await self.delete(running, *documents)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await running.listed() == {"file:///a": 1}
