"""The client against servers that misbehave as real ones seldom do, over real gRPC."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager

import grpc
import pytest
from typer.testing import CliRunner

from client.answers import Duplicate, ScoreParts, SearchQuery, Span, to_response
from client.cli import app
from client.client import SluiceClient
from client.indexing import BATCH_DOCUMENTS, Document
from common.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from common.rpc import ChannelSettings, GrpcServer, ServerSettings, ServiceBinding
from sluice.index.v1 import index_pb2, index_pb2_grpc
from sluice.query.v1 import query_pb2, query_pb2_grpc


class Indexer(index_pb2_grpc.IndexServiceServicer):
    """Acknowledges every document and remembers the batches; fails where a test says so."""

    def __init__(self, *, documents=512, size=2**20, fails_at=None):
        self.limits = index_pb2.StreamOpened(
            index_version=1, max_batch_documents=documents, max_batch_bytes=size
        )
        self.fails_at = fails_at
        self.batches = []
        self.ended = asyncio.Event()

    async def IndexDocuments(self, requests, _):  # noqa: N802  # named by the contract
        try:
            opening = (await anext(requests)).opening
            if opening.collection == "nowhere":
                raise NotFound("no such collection; create it")
            yield index_pb2.IndexDocumentsResponse(opened=self.limits)
            async for request in requests:
                if len(self.batches) == self.fails_at:
                    raise FailedPrecondition("the version takes no writes")
                self.batches.append(request.batch)
                acknowledgements = [
                    index_pb2.Acknowledgement(
                        document_id=document.source_uri, outcome=index_pb2.OUTCOME_INDEXED
                    )
                    for document in request.batch.documents
                ]
                yield index_pb2.IndexDocumentsResponse(
                    acknowledgements=index_pb2.AcknowledgementBatch(
                        acknowledgements=acknowledgements
                    )
                )
        finally:
            self.ended.set()


class Searcher(query_pb2_grpc.QueryServiceServicer):
    """Remembers what it is asked; never answers "wait", and ends "stop" as a stop does."""

    def __init__(self):
        self.asked = []
        self.waits = asyncio.Event()

    async def Search(self, request, context):  # noqa: N802  # named by the contract
        self.asked.append(request)
        if request.text == "stop":
            # What gRPC answers to calls that no servicer took before the server's stop.
            await context.abort(grpc.StatusCode.CANCELLED)
        if request.text == "wait":
            self.waits.set()
            await asyncio.Event().wait()
        return query_pb2.SearchResponse(
            index_version=1, degraded=[query_pb2.DEGRADATION_STALE_ROUTE]
        )

    async def SearchStream(self, requests, _):  # noqa: N802  # named by the contract
        async for request in requests:
            response = query_pb2.SearchResponse(index_version=1)
            yield query_pb2.SearchStreamResponse(sequence=request.sequence, response=response)


def an_indexer(**options):
    return Indexer(**options)  # type: ignore[abstract]  # the other methods are not called


def a_searcher():
    return Searcher()


@asynccontextmanager
async def connected(*, indexer=None, searcher=None, **options):
    bindings = []
    if indexer is not None:
        bindings.append(
            ServiceBinding(
                "sluice.index.v1.IndexService",
                lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(indexer, server),
            )
        )
    if searcher is not None:
        bindings.append(
            ServiceBinding(
                "sluice.query.v1.QueryService",
                lambda server: query_pb2_grpc.add_QueryServiceServicer_to_server(searcher, server),
            )
        )
    settings = ServerSettings(listen="127.0.0.1:0", drain_s=0)
    async with (
        GrpcServer.open(settings, bindings) as server,
        SluiceClient(server.address, **options) as client,
    ):
        yield client


async def many(count, *, size=10, same=False):
    for number in range(count):
        yield Document("doc://0" if same else f"doc://{number}", "x" * size, number + 1)


async def sizes_of_batches(indexer, documents):
    """Documents in each batch that the server got; all of them were acknowledged in order."""
    async with connected(indexer=indexer) as client:
        stream = client.index_documents(documents, collection="docs")
        acknowledged = [acknowledgement.document_id async for acknowledgement in stream]
    sent = [document.source_uri for batch in indexer.batches for document in batch.documents]
    assert acknowledged == sent
    return [len(batch.documents) for batch in indexer.batches]


async def test_documents_travel_in_batches_of_a_bounded_number():
    assert await sizes_of_batches(an_indexer(), many(BATCH_DOCUMENTS + 2)) == [BATCH_DOCUMENTS, 2]
    assert await sizes_of_batches(an_indexer(documents=2), many(5)) == [2, 2, 1]


async def test_no_batch_is_larger_than_the_server_takes():
    indexer = an_indexer(size=1000)
    assert sum(await sizes_of_batches(indexer, many(9, size=300))) == 9
    assert max(batch.ByteSize() for batch in indexer.batches) <= 1000
    assert len(indexer.batches) > 1


async def test_two_states_of_one_document_never_share_a_batch():
    assert await sizes_of_batches(an_indexer(), many(3, same=True)) == [1, 1, 1]


async def test_nothing_to_index_is_fine():
    assert await sizes_of_batches(an_indexer(), many(0)) == []


async def test_a_document_larger_than_a_batch_is_refused_and_ends_the_stream():
    indexer = an_indexer(size=1000)
    with pytest.raises(InvalidArgument, match="doc://0 has"):
        await sizes_of_batches(indexer, many(1, size=2000))
    await asyncio.wait_for(indexer.ended.wait(), 5)


async def test_an_error_of_the_source_of_documents_reaches_the_caller():
    async def broken():
        yield Document("doc://1", "x", 1)
        raise LookupError("the disk is gone")

    with pytest.raises(LookupError, match="the disk is gone"):
        await sizes_of_batches(an_indexer(), broken())


async def test_an_error_of_the_server_ends_the_stream_with_its_class():
    with pytest.raises(FailedPrecondition, match="takes no writes"):
        await sizes_of_batches(an_indexer(documents=1, fails_at=2), many(50))


async def test_the_servers_status_is_never_lost_to_a_write():
    for _ in range(50):
        with pytest.raises(FailedPrecondition):
            await sizes_of_batches(an_indexer(documents=1, fails_at=0), many(50))


async def test_a_refused_opening_is_the_servers_error():
    async with connected(indexer=an_indexer()) as client:
        with pytest.raises(NotFound, match="create it"):
            [_ async for _ in client.index_documents(many(1), collection="nowhere")]


async def test_a_caller_that_stops_listening_ends_the_stream():
    indexer = an_indexer(documents=1)
    async with connected(indexer=indexer) as client:
        stream = client.index_documents(many(10_000), collection="docs")
        assert (await anext(stream)).outcome == "indexed"
        await stream.aclose()
        await asyncio.wait_for(indexer.ended.wait(), 5)


async def test_a_question_travels_whole():
    searcher = a_searcher()
    query = SearchQuery(
        "why",
        "docs",
        top_k=3,
        candidates=50,
        filter="year > 1",
        rerank="lexical",
        alpha=0.25,
        at_least="token",
        explain=True,
        k1=0.0,
        b=0.5,
        title_weight=3.0,
        proximity_weight=0.25,
        max_per_document=2,
        keep_duplicates=True,
        merge_neighbours=True,
        cross_encoder_candidates=40,
    )
    async with connected(searcher=searcher, tenant="acme") as client:
        answer = await client.search(query)
        await client.search(SearchQuery("", "docs", vector=[0.5, 0.25], index_version=8))
    asked, by_vector = searcher.asked
    assert asked == query_pb2.SearchRequest(
        tenant="acme",
        collection="docs",
        text="why",
        top_k=3,
        candidate_count=50,
        filter="year > 1",
        rerank=query_pb2.RERANK_MODE_LEXICAL,
        weights=query_pb2.RerankWeights(alpha=0.25, k1=0.0, b=0.5, title=3.0, proximity=0.25),
        at_least="token",
        explain=True,
        max_per_document=2,
        keep_duplicates=True,
        merge_neighbours=True,
        cross_encoder_candidates=40,
    )
    assert list(by_vector.vector.values) == [0.5, 0.25]
    assert by_vector.index_version == 8
    assert not by_vector.HasField("text")
    assert not by_vector.HasField("weights")
    assert answer.degraded == ("stale_route",)


async def test_the_command_asks_one_version_or_after_one_write():
    searcher = a_searcher()
    async with connected(searcher=searcher) as client:
        ask = ["search", "why", "--collection", "docs", "--target", client._target]
        for options in (["--index-version", "8"], ["--at-least", "token"]):
            result = await asyncio.to_thread(CliRunner().invoke, app, [*ask, *options])
            assert result.exit_code == 0
    assert [(request.index_version, request.at_least) for request in searcher.asked] == [
        (8, ""),
        (0, "token"),
    ]


async def test_an_answer_arrives_whole():
    place = query_pb2.Duplicate(chunk_id="e:1:0", document_id="e", source_uri="doc://e", title="E")
    place.span.end = 9
    scored = query_pb2.ScoreParts(bm25=5.0, title=2.0, proximity=1.0, fused=0.5, cross_encoder=0.0)
    plain = query_pb2.ScoreParts(bm25=4.0)
    told = query_pb2.Explanation(
        rerank=query_pb2.RERANK_MODE_CROSS_ENCODER,
        normalisation=query_pb2.NORMALISATION_MIN_MAX,
        title=2.5,
        proximity=0.75,
        statistics_chunks=9,
        corpus_statistics=True,
    )
    message = query_pb2.SearchResponse(
        hits=[
            query_pb2.Hit(
                rank=1, duplicates=[place], merged_chunk_ids=["c:0", "c:1"], parts=scored
            ),
            query_pb2.Hit(rank=2, parts=plain),
        ],
        degraded=[query_pb2.DEGRADATION_CROSS_ENCODER_CUT],
        explanation=told,
        cross_encoded=1,
    )
    answer = to_response(message)
    first, second = answer.hits
    assert first.duplicates == (Duplicate("e:1:0", "e", "doc://e", "E", Span(0, 9)),)
    assert first.merged_chunk_ids == ("c:0", "c:1")
    assert first.parts == ScoreParts(0, 0, 5.0, 0, 0, 2.0, 1.0, 0.5, 0.0)
    assert second.parts is not None
    assert second.parts.cross_encoder is None
    assert (second.duplicates, second.merged_chunk_ids) == ((), ())
    assert (answer.cross_encoded, answer.degraded) == (1, ("cross_encoder_cut",))
    assert answer.explanation is not None
    assert answer.explanation.rerank == "cross_encoder"
    assert (answer.explanation.title, answer.explanation.proximity) == (2.5, 0.75)
    assert (answer.explanation.statistics_chunks, answer.explanation.corpus_statistics) == (9, True)
    json.dumps(answer.to_json())


async def test_every_option_of_the_command_reaches_the_server():
    searcher = a_searcher()
    async with connected(searcher=searcher) as client:
        ask = ["search", "why", "--collection", "docs", "--target", client._target]
        ask += ["--rerank", "cross-encoder", "--cross-encoder-top", "7", "--merge"]
        ask += ["--max-per-document", "2", "--keep-duplicates", "--alpha", "0.5", "--k1", "2"]
        ask += ["--b", "0.25", "--title-weight", "3", "--proximity-weight", "1", "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, ask)
    assert result.exit_code == 0
    assert searcher.asked == [
        query_pb2.SearchRequest(
            collection="docs",
            text="why",
            top_k=5,
            rerank=query_pb2.RERANK_MODE_CROSS_ENCODER,
            weights=query_pb2.RerankWeights(alpha=0.5, k1=2, b=0.25, title=3, proximity=1),
            max_per_document=2,
            keep_duplicates=True,
            merge_neighbours=True,
            cross_encoder_candidates=7,
        )
    ]


async def test_every_call_has_a_deadline():
    async with connected(searcher=a_searcher(), timeout_s=0.2) as client:
        with pytest.raises(DeadlineExceeded):
            await client.search(SearchQuery("wait", "docs"))


async def test_an_interrupted_command_ends_quietly():
    searcher = a_searcher()
    async with connected(searcher=searcher) as client:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "client", "search", "wait", "--collection", "docs"),
            *("--target", client._target),
            stdout=PIPE,
            stderr=PIPE,
        )
        await asyncio.wait_for(searcher.waits.wait(), 30)
        process.send_signal(signal.SIGINT)
        printed = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, printed) == (130, (b"", b""))


async def test_a_server_that_is_not_there_is_named_with_what_to_do():
    settings = ChannelSettings(max_attempts=1)
    async with SluiceClient("127.0.0.1:1", settings) as client:
        with pytest.raises(Unavailable, match=r"no server answers at 127\.0\.0\.1:1; start one"):
            await client.collections()


async def test_a_name_that_does_not_resolve_is_a_server_that_is_not_there():
    settings = ChannelSettings(max_attempts=1)
    async with SluiceClient("no-such-host.invalid:1", settings) as client:
        with pytest.raises(Unavailable, match=r"at no-such-host\.invalid:1; start one"):
            await client.collections()


@pytest.mark.parametrize("targets", [{"target": "etcd:///x"}, {"query_target": "etcd:///x"}])
def test_what_is_no_target_is_said_before_anything_is_opened(targets):
    with pytest.raises(ConfigurationError, match="etcd:///x: names no installation"):
        SluiceClient(**targets)


async def test_an_error_of_the_source_of_queries_reaches_the_caller():
    async def queries():
        yield SearchQuery("one", "docs")
        raise LookupError("the source broke")

    async with connected(searcher=a_searcher()) as client:
        with pytest.raises(LookupError, match="the source broke"):
            async for _ in client.search_stream(queries()):
                pass


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (SearchQuery("x", "docs", top_k=2**31), "a number is beyond the range of its field"),
        (SearchQuery("caf\udce9", "docs"), "text must be valid Unicode"),
    ],
)
async def test_what_does_not_fit_a_message_is_wrong_input(asked, message):
    async def queries():
        yield asked

    async with connected(searcher=a_searcher()) as client:
        with pytest.raises(InvalidArgument, match=message):
            await client.search(asked)
        with pytest.raises(InvalidArgument, match=message):
            async for _ in client.search_stream(queries()):
                pass


async def test_a_version_beyond_its_field_is_wrong_input():
    async with connected() as client:
        with pytest.raises(InvalidArgument, match="beyond the range"):
            await client.activate("docs", 2**64)


async def test_a_call_that_a_stopping_server_did_not_take_is_unavailable():
    async with connected(searcher=a_searcher()) as client:
        with pytest.raises(Unavailable, match="the server stopped before it answered"):
            await client.search(SearchQuery("stop", "docs"))
