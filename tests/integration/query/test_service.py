"""QueryService over a real server: what it answers, and how it refuses."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from common.coordination import VersionState
from common.embedding.hashing_embedder import HashingEmbedder
from common.identity import ConsistencyToken, encode_token
from common.rpc import GrpcServer, open_channel
from common.word_parts import WordParts
from query.cross_encoder import CrossEncoderSettings
from query.serve import open_query
from query.settings import QueryServerSettings, QuerySettings, RerankSettings
from rerank_zig import FusionOptions
from sluice.document.v1 import document_pb2
from sluice.query.v1 import query_pb2, query_pb2_grpc
from tests.integration.query.test_word_statistics import publish
from tests.integration.query.written_index import Document, WrittenIndex
from tests.unit.query.cross_encoder_folders import write_tiny

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from common.coordination import Coordinator

FAILOVER = Document(
    "hdfs://lake/failover.md",
    ["When the namenode fails, promote the standby.", "Fence the old namenode before."],
    version=7,
    title="Failover",
    pages=[1, 2],
    metadata={"lang": "en", "year": 2024, "weight": 0.5, "tags": ["hdfs"], "draft": False},
)
QUOTA = Document("hdfs://lake/quota.txt", ["A directory over its quota refuses writes."])
MANY_WORDS = " ".join(f"{n:04x}" for n in range(1_100))
SETTINGS = QuerySettings(server=QueryServerSettings(listen="127.0.0.1:0"), max_stream_searches=2)


class FaultyEmbedder(HashingEmbedder):
    """Fails in a way nobody foresaw."""

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        if text == "boom":
            raise ZeroDivisionError(text)
        return await super().embed_query(text)


@asynccontextmanager
async def serving(
    index: WrittenIndex, coordinator: Coordinator, settings: QuerySettings
) -> AsyncIterator[grpc.aio.Channel]:
    async with AsyncExitStack() as stack:
        bindings = await open_query(
            stack,
            query=settings,
            chroma=index.chroma,
            coordinator=coordinator,
            embedder=FaultyEmbedder(),
        )
        server = await stack.enter_async_context(GrpcServer.open(settings.server, bindings))
        yield await stack.enter_async_context(open_channel(server.address))


@pytest.fixture
async def channel(index: WrittenIndex, coordinator: Coordinator) -> AsyncIterator[grpc.aio.Channel]:
    await index.holding(FAILOVER, QUOTA)
    await index.begin("building")
    async with serving(index, coordinator, SETTINGS) as channel:
        yield channel


@pytest.fixture
def query(channel: grpc.aio.Channel) -> query_pb2_grpc.QueryServiceAsyncStub:
    return query_pb2_grpc.QueryServiceStub(channel)


def asking(**fields: Any) -> query_pb2.SearchRequest:
    chosen = {} if "vector" in fields else {"text": "fence the namenode"}
    return query_pb2.SearchRequest(**({"collection": "docs"} | chosen | fields))


def vector(values: list[float]) -> query_pb2.Vector:
    return query_pb2.Vector(values=values)


async def test_an_answer_holds_what_the_contract_promises(
    query: query_pb2_grpc.QueryServiceAsyncStub,
):
    answer = await query.Search(
        asking(top_k=1, explain=True, filter="year = 2024", weights={"alpha": 0.5, "k1": 2.0}),
        timeout=10,
    )
    [hit] = answer.hits
    assert hit.rank == 1
    assert hit.chunk_id == FAILOVER.ids[1]
    assert hit.document_id == FAILOVER.id
    assert hit.document_version == 7
    assert hit.source_uri == "hdfs://lake/failover.md"
    assert (hit.title, hit.media_type, hit.page) == ("Failover", "text/plain", 2)
    assert (hit.span.start, hit.span.end) == (45, 75)
    assert hit.text == "Fence the old namenode before."
    assert dict(hit.metadata) == {
        "lang": document_pb2.MetadataValue(string_value="en"),
        "year": document_pb2.MetadataValue(int_value=2024),
        "weight": document_pb2.MetadataValue(double_value=0.5),
        "draft": document_pb2.MetadataValue(bool_value=False),
        "tags": document_pb2.MetadataValue(
            string_list_value=document_pb2.StringList(values=["hdfs"])
        ),
    }
    assert [(span.start, span.end) for span in hit.highlights] == [(0, 5), (14, 22)]
    assert hit.parts.dense_rank == 1
    assert hit.parts.similarity > 0
    assert hit.parts.bm25 > 0
    assert hit.parts.fused == pytest.approx(hit.score)
    assert not hit.parts.HasField("cross_encoder")
    assert hit.score == pytest.approx(0.5 * hit.parts.dense + 0.5 * hit.parts.lexical, abs=1e-5)
    assert (answer.index_version, answer.generation) == (1, 1)
    assert not answer.degraded
    stages = [timing.stage for timing in answer.timings]
    assert stages == ["route", "embed", "retrieve", "fetch", "rerank", "assemble"]
    assert answer.explanation == query_pb2.Explanation(
        terms=["fenc", "namenod"],
        rerank=query_pb2.RERANK_MODE_FUSED,
        alpha=0.5,
        k1=2.0,
        b=0.75,
        normalisation=query_pb2.NORMALISATION_MIN_MAX,
        candidates=2,
        store_filter='{"year": {"$eq": 2024}}',
        title=FusionOptions().title,
        proximity=FusionOptions().proximity,
        statistics_chunks=2,
        corpus_statistics=False,
    )


async def test_without_explain_the_answer_is_plain(query: query_pb2_grpc.QueryServiceAsyncStub):
    answer = await query.Search(asking(), timeout=10)
    assert len(answer.hits) == 3
    assert not answer.HasField("explanation")
    assert not any(hit.HasField("parts") for hit in answer.hits)


async def test_a_cross_encoder_scores_the_first_and_says_how_many(
    index: WrittenIndex, coordinator: Coordinator, tmp_path: Path
):
    await index.holding(FAILOVER, QUOTA)
    encoder = CrossEncoderSettings(folder=write_tiny(tmp_path), candidates=2, threads=1)
    settings = SETTINGS.model_copy(update={"cross_encoder": encoder})
    async with serving(index, coordinator, settings) as channel:
        query = query_pb2_grpc.QueryServiceStub(channel)
        answer = await query.Search(
            asking(explain=True, rerank="RERANK_MODE_CROSS_ENCODER"), timeout=10
        )
        wanted = await query.Search(
            asking(rerank="RERANK_MODE_CROSS_ENCODER", cross_encoder_candidates=3), timeout=10
        )
    assert not answer.degraded
    assert (answer.cross_encoded, wanted.cross_encoded) == (2, 3)
    scored = [hit.parts.HasField("cross_encoder") for hit in answer.hits]
    assert scored == [True, True, False]
    assert answer.hits[0].parts.cross_encoder >= answer.hits[1].parts.cross_encoder
    assert answer.explanation.rerank == query_pb2.RERANK_MODE_CROSS_ENCODER
    assert "cross_encode" in [timing.stage for timing in answer.timings]


async def test_published_statistics_of_words_are_used(
    index: WrittenIndex, coordinator: Coordinator
):
    await index.holding(FAILOVER, QUOTA)
    await publish(coordinator, WordParts(index.chroma), "first", {7: 40, 9: 2})
    async with serving(index, coordinator, SETTINGS) as channel:
        query = query_pb2_grpc.QueryServiceStub(channel)
        async with asyncio.timeout(20):
            while True:
                explanation = (await query.Search(asking(explain=True), timeout=10)).explanation
                if explanation.corpus_statistics:
                    break
    assert explanation.statistics_chunks == 40


async def test_the_servers_own_weights_are_its_defaults(
    index: WrittenIndex, coordinator: Coordinator
):
    await index.holding(FAILOVER, QUOTA)
    weights = RerankSettings(
        alpha=0.25, k1=2, b=0.5, title=4, proximity=0.75, normalisation="theoretical"
    )
    settings = SETTINGS.model_copy(update={"rerank": weights})
    async with serving(index, coordinator, settings) as channel:
        query = query_pb2_grpc.QueryServiceStub(channel)
        told = (await query.Search(asking(explain=True), timeout=10)).explanation
        given = query_pb2.RerankWeights(alpha=1.0, title=0.0)
        asked = (await query.Search(asking(explain=True, weights=given), timeout=10)).explanation
    assert (told.alpha, told.k1, told.b, told.title, told.proximity) == (0.25, 2, 0.5, 4, 0.75)
    assert told.normalisation == query_pb2.NORMALISATION_THEORETICAL
    assert (asked.alpha, asked.title, asked.k1) == (1, 0, 2)


INVALID = grpc.StatusCode.INVALID_ARGUMENT
REFUSED: list[tuple[query_pb2.SearchRequest, grpc.StatusCode, str]] = [
    (query_pb2.SearchRequest(), INVALID, "collection: use 1 to 128"),
    (asking(collection="No Such!"), INVALID, "collection: use 1 to 128"),
    (asking(tenant="-"), INVALID, "tenant: use 1 to 63"),
    (query_pb2.SearchRequest(collection="docs"), INVALID, "text: give text or a vector"),
    (asking(text=" \n"), INVALID, "text: must not be blank"),
    (asking(text="é" * 4_097), INVALID, "text: at most 8,192 bytes, this has 8,194"),
    (asking(text=MANY_WORDS), INVALID, "text: a query of more than"),
    (asking(text=MANY_WORDS, rerank="RERANK_MODE_DENSE"), INVALID, "text: a query of more than"),
    (asking(top_k=-1), INVALID, "top_k: must be 1 to 1,000; 0 means 10"),
    (asking(top_k=1_001), INVALID, "top_k: must be 1 to 1,000; 0 means 10"),
    (asking(top_k=20, candidate_count=19), INVALID, "candidate_count: must be 20 to 2,000"),
    (asking(candidate_count=2_001), INVALID, "candidate_count: must be 10 to 2,000"),
    (asking(candidate_count=-5), INVALID, "candidate_count: must be 10 to 2,000"),
    (asking(filter="lang = "), INVALID, "filter: expected a value"),
    (asking(filter="x" * 4_097), INVALID, "filter: at most 4,096 bytes, this has 4,097"),
    (asking(vector=vector([])), INVALID, "vector: must not be all zeros"),
    (asking(vector=vector([0.0] * 128)), INVALID, "vector: must not be all zeros"),
    (asking(vector=vector([1.0] * 127)), INVALID, "vector: must have 128 values, this has 127"),
    (asking(vector=vector([float("nan")] * 128)), INVALID, "vector: every value must be finite"),
    (asking(vector=vector([float("inf")] * 128)), INVALID, "vector: every value must be finite"),
    (
        asking(vector=vector([1.0] * 128), rerank="RERANK_MODE_FUSED"),
        INVALID,
        "rerank: FUSED needs",
    ),
    (asking(vector=vector([1.0]), rerank="RERANK_MODE_LEXICAL"), INVALID, "rerank: LEXICAL needs"),
    (
        asking(vector=vector([1.0]), rerank="RERANK_MODE_CROSS_ENCODER"),
        INVALID,
        "CROSS_ENCODER nee",
    ),
    (asking(rerank=99), INVALID, "rerank: 99 is no value of this field"),
    (asking(weights={"alpha": 1.1}), INVALID, "weights.alpha: must be 0 to 1"),
    (asking(weights={"alpha": float("nan")}), INVALID, "weights.alpha: must be 0 to 1"),
    (asking(weights={"k1": -0.1}), INVALID, "weights.k1: must be 0 to 10"),
    (asking(weights={"k1": 11}), INVALID, "weights.k1: must be 0 to 10"),
    (asking(weights={"b": 2}), INVALID, "weights.b: must be 0 to 1"),
    (asking(weights={"normalisation": 9}), INVALID, "weights.normalisation: 9 is no value"),
    (asking(weights={"title": 101}), INVALID, "weights.title: must be 0 to 100"),
    (asking(weights={"proximity": 11}), INVALID, "weights.proximity: must be 0 to 10"),
    (asking(max_per_document=-1), INVALID, "max_per_document: must be 0 to 1,000"),
    (
        asking(cross_encoder_candidates=1_001),
        INVALID,
        "cross_encoder_candidates: must be 0 to 1,000",
    ),
    (
        asking(rerank="RERANK_MODE_CROSS_ENCODER"),
        grpc.StatusCode.FAILED_PRECONDITION,
        "set query.cross_encoder.folder",
    ),
    (asking(at_least="abc"), INVALID, "at_least: not a token from an acknowledgement"),
    (
        asking(at_least=encode_token(ConsistencyToken("default", "other", 1, 1))),
        INVALID,
        "at_least: this token is of collection other of tenant default",
    ),
    (
        asking(at_least=encode_token(ConsistencyToken("default", "docs", 1, 1)), index_version=1),
        INVALID,
        "at_least: a consistency token waits for the active version",
    ),
    (asking(index_version=2**64 - 1), grpc.StatusCode.NOT_FOUND, "docs of tenant default has no"),
    (asking(collection="absent"), grpc.StatusCode.NOT_FOUND, "tenant default has no collection"),
    (asking(tenant="other"), grpc.StatusCode.NOT_FOUND, "tenant other has no collection docs"),
    (
        asking(collection="building"),
        grpc.StatusCode.FAILED_PRECONDITION,
        "collection building has no active version",
    ),
]


async def test_each_wrong_request_is_refused_with_its_field(
    query: query_pb2_grpc.QueryServiceAsyncStub,
):
    for request, code, message in REFUSED:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await query.Search(request, timeout=10)
        assert caught.value.code() == code, message
        assert message in (caught.value.details() or "")


async def test_a_wrong_filter_is_shown_with_its_place_on_the_wire(
    query: query_pb2_grpc.QueryServiceAsyncStub,
):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await query.Search(asking(filter='lang = "en" AND year >= AND'), timeout=10)
    assert caught.value.details() == (
        "filter: expected a number at character 25\n"
        '  lang = "en" AND year >= AND\n'
        "                          ^"
    )


async def test_a_request_that_is_no_utf8_is_refused(channel: grpc.aio.Channel):
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/sluice.query.v1.QueryService/Search"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\x12\x02\xff\xfe", timeout=10)
    assert caught.value.code() == INVALID


async def test_a_token_is_waited_for_until_its_version_is_active(
    query: query_pb2_grpc.QueryServiceAsyncStub, index: WrittenIndex
):
    second = await index.begin()
    await index.write(QUOTA, version=2)
    token = encode_token(ConsistencyToken("default", "docs", 2, 2))
    waiting = asyncio.ensure_future(query.Search(asking(at_least=token), timeout=20))
    await query.Search(asking(), timeout=10)  # a round trip in which it could have been answered
    assert not waiting.done()
    await index.activate(second)
    answer = await waiting
    assert (answer.index_version, answer.generation) == (2, 2)
    assert {hit.source_uri for hit in answer.hits} == {QUOTA.uri}
    again = await query.Search(asking(at_least=token), timeout=10)
    assert again.index_version == 2


@pytest.mark.parametrize("collection", ["docs", "building", "absent"])
async def test_why_a_token_was_waited_for_in_vain_reaches_the_client(
    query: query_pb2_grpc.QueryServiceAsyncStub, collection: str
):
    token = encode_token(ConsistencyToken("default", collection, 9, 9))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await query.Search(asking(collection=collection, at_least=token), timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    known = "is at generation 1" if collection == "docs" else "has no active version"
    assert f"collection {collection} {known} and did not reach generation 9 within" in (
        caught.value.details() or ""
    )


async def test_a_version_is_asked_by_its_number(
    query: query_pb2_grpc.QueryServiceAsyncStub, index: WrittenIndex
):
    candidate = await index.begin()
    await index.write(QUOTA, version=2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await query.Search(asking(index_version=2), timeout=10)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "version 2 of collection docs is building" in (caught.value.details() or "")
    await index.registry.set_state(candidate, VersionState.READY)
    by_number = await query.Search(asking(index_version=2), timeout=10)
    assert by_number.index_version == 2
    assert {hit.source_uri for hit in by_number.hits} == {QUOTA.uri}
    assert (await query.Search(asking(), timeout=10)).index_version == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await query.Search(asking(index_version=3), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_stream_answers_every_query_and_goes_on_after_one_that_fails(
    query: query_pb2_grpc.QueryServiceAsyncStub,
):
    requests = [
        query_pb2.SearchStreamRequest(
            sequence=sequence,
            search=asking(top_k=-1) if sequence == 105 else asking(text=f"quota {sequence}"),
        )
        for sequence in range(100, 120)
    ]
    requests.append(query_pb2.SearchStreamRequest(sequence=2**64 - 1))
    answers = {answer.sequence: answer async for answer in query.SearchStream(iter(requests))}
    assert len(answers) == 21
    failed = answers.pop(105).error
    assert (failed.code, failed.message) == (3, "top_k: must be 1 to 1,000; 0 means 10")
    assert answers.pop(2**64 - 1).error.message.startswith("collection: ")
    assert all(answer.response.hits[0].source_uri == QUOTA.uri for answer in answers.values())


async def test_a_quick_query_is_answered_before_a_slow_one_that_came_first(
    query: query_pb2_grpc.QueryServiceAsyncStub, index: WrittenIndex
):
    second = await index.begin()
    await index.write(QUOTA, version=2)
    token = encode_token(ConsistencyToken("default", "docs", 2, 2))
    stream = query.SearchStream(timeout=20)
    await stream.write(query_pb2.SearchStreamRequest(sequence=1, search=asking(at_least=token)))
    await stream.write(query_pb2.SearchStreamRequest(sequence=2, search=asking()))
    first = await anext(aiter(stream))
    assert (first.sequence, first.response.index_version) == (2, 1)
    await index.activate(second)
    await stream.done_writing()
    last = [answer async for answer in stream]
    assert [(answer.sequence, answer.response.index_version) for answer in last] == [(1, 2)]


async def test_an_empty_stream_ends(query: query_pb2_grpc.QueryServiceAsyncStub):
    assert [answer async for answer in query.SearchStream(iter(()), timeout=10)] == []


async def test_a_stream_works_on_no_more_queries_at_once_than_allowed(
    query: query_pb2_grpc.QueryServiceAsyncStub, index: WrittenIndex
):
    second = await index.begin()
    token = encode_token(ConsistencyToken("default", "docs", 2, 2))
    stream = query.SearchStream(timeout=20)
    for sequence in range(5):
        request = query_pb2.SearchStreamRequest(sequence=sequence, search=asking(at_least=token))
        await stream.write(request)
    await stream.done_writing()
    for _ in range(3):  # round trips in which a third query could have begun
        await query.Search(asking(), timeout=10)
    assert len(answering()) == SETTINGS.max_stream_searches
    await index.activate(second)
    assert {answer.sequence async for answer in stream} == set(range(5))


async def test_a_stream_that_the_client_leaves_takes_its_queries_with_it(
    query: query_pb2_grpc.QueryServiceAsyncStub,
):
    token = encode_token(ConsistencyToken("default", "docs", 9, 9))
    stream = query.SearchStream(timeout=20)
    await stream.write(query_pb2.SearchStreamRequest(sequence=1, search=asking(at_least=token)))
    await stream.write(query_pb2.SearchStreamRequest(sequence=2, search=asking()))
    assert (await anext(aiter(stream))).sequence == 2
    left = answering()
    assert len(left) == 1
    stream.cancel()
    _, still_there = await asyncio.wait(left, timeout=5)
    assert not still_there


async def test_an_unforeseen_fault_is_one_querys_and_tells_nothing(
    query: query_pb2_grpc.QueryServiceAsyncStub,
):
    requests = [
        query_pb2.SearchStreamRequest(sequence=1, search=asking(text="boom")),
        query_pb2.SearchStreamRequest(sequence=2, search=asking()),
    ]
    answers = {
        answer.sequence: answer async for answer in query.SearchStream(iter(requests), timeout=10)
    }
    assert answers[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert re.fullmatch(r"internal error; trace [0-9a-f]{32}", answers[1].error.message)
    assert answers[2].response.hits


def answering() -> set[asyncio.Task[Any]]:
    """The server's tasks, one for each query of a stream in progress."""
    return {
        task for task in asyncio.all_tasks() if "QueryService._respond" in repr(task.get_coro())
    }
