"""Bad input to every method: the documented status, a message that says what to do, no change.

Messages go over a real channel as bytes, so that what no client library would send is sent too.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from common.chroma import ChromaSettings, open_chroma
from common.coordination import CoordinatorSettings, open_coordinator
from common.embedding import EmbeddingSettings, open_embedder
from common.rpc import GrpcServer, ServerSettings, open_channel
from indexer.chunking import ChunkingSettings
from indexer.serve import open_indexer
from indexer.settings import IndexerSettings, WordCountSettings
from query.serve import open_query
from query.settings import QuerySettings
from sluice.collections.v1 import collections_pb2 as collections
from sluice.document.v1 import document_pb2
from sluice.index.v1 import index_pb2 as index
from sluice.query.v1 import query_pb2 as query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.message import Message

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
EXISTS = grpc.StatusCode.ALREADY_EXISTS
TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
NOT_UTF8 = b"\x12\x02\xff\xfe"  # field 2, a string everywhere, of two bytes that are no UTF-8
NOT_A_MESSAGE = b"\xff\xff\xff"
TRUNCATED = b"\x12\x10abc"  # field 2 says that it has 16 bytes
MAX_MESSAGE_BYTES = 2**20
MAX_BATCH_BYTES = 2**16

INDEX = "/sluice.index.v1.IndexService/"
QUERY = "/sluice.query.v1.QueryService/"
COLLECTIONS = "/sluice.collections.v1.CollectionsService/"


def document(name: str = "a", **fields: Any) -> document_pb2.Document:
    given: dict[str, Any] = {
        "source_uri": f"file:///{name}",
        "version": 1,
        "content": "Blocks have replicas.",
    }
    return document_pb2.Document(**(given | fields))


def opening(**fields: Any) -> bytes:
    chosen = index.StreamOpening(**({"collection": "docs"} | fields))
    return index.IndexDocumentsRequest(opening=chosen).SerializeToString()


def batch(*documents: document_pb2.Document) -> bytes:
    carried = index.DocumentBatch(documents=documents)
    return index.IndexDocumentsRequest(batch=carried).SerializeToString()


def search(**fields: Any) -> bytes:
    given: dict[str, Any] = {"collection": "docs", "text": "replicas"}
    if "vector" in fields:
        del given["text"]
    return query.SearchRequest(**(given | fields)).SerializeToString()


def deletion(*ids: str, **fields: Any) -> bytes:
    documents = [index.DocumentDeletion(document_id=id_) for id_ in ids]
    chosen = {"collection": "docs"} | fields
    return index.DeleteDocumentsRequest(documents=documents, **chosen).SerializeToString()


def emptying(*uris: str, version: int = 0, ids: Sequence[str] = (), **fields: Any) -> bytes:
    containers = [index.ContainerDeletion(container_uri=uri, version=version) for uri in uris]
    return deletion(*ids, containers=containers, **fields)


def at_version(message: Any, collection: str, version: int, **fields: str) -> Any:
    made = message(collection=collection, **fields)
    if "index_version" in made.DESCRIPTOR.fields_by_name:
        made.index_version = version
    return made


def bad_names(message: Any) -> list[Any]:
    """What every request that names a collection refuses."""
    return [
        (b"\x12" + b"x" * MAX_MESSAGE_BYTES, TOO_LARGE, "larger"),
        (TRUNCATED, INVALID, "not a valid"),
        *(
            (at_version(message, name, 1), INVALID, "collection: ")
            for name in ("", "a.b", "-a", "a b", "A", "ü", "a\n", "x" * 129)
        ),
        *(
            (at_version(message, "docs", 1, tenant=name), INVALID, "tenant: ")
            for name in ("A B", "-a", "a_b", "x" * 64)
        ),
    ]


def bad_searches() -> list[Any]:
    return [
        (NOT_UTF8, INVALID, "not a valid"),
        (NOT_A_MESSAGE, INVALID, "not a valid"),
        (b"", INVALID, "collection: "),
        (search(collection="Docs!"), INVALID, "collection: "),
        (search(collection="absent"), NOT_FOUND, "absent"),
        (search(tenant="A"), INVALID, "tenant: "),
        (search(text="  "), INVALID, "text: "),
        (search(text="x" * 8_193), INVALID, "text: "),
        (search(top_k=-1), INVALID, "top_k: .*1 to 1,?000"),
        (search(top_k=1_001), INVALID, "top_k: .*1 to 1,?000"),
        (search(candidate_count=2_001), INVALID, "candidate_count: "),
        (search(top_k=20, candidate_count=5), INVALID, "candidate_count: "),
        (search(filter="lang = "), INVALID, r"filter: .*character 7"),
        (search(filter='_version = "x"'), INVALID, "filter: .*_version"),
        (search(filter='_container = "x"'), INVALID, "filter: .*_container"),
        (search(vector=query.Vector(values=[1.0])), INVALID, "vector: must have 128"),
        (search(vector=query.Vector(values=[float("nan")] * 128)), INVALID, "vector: "),
        (search(weights=query.RerankWeights(alpha=1.5)), INVALID, "weights.alpha: "),
        (search(at_least="gibberish"), INVALID, "at_least: "),
        (search(rerank=99), INVALID, "rerank: "),
        (search(index_version=9), NOT_FOUND, "9"),
        (search(index_version=1, at_least="gibberish"), INVALID, "(index_version|at_least): "),
    ]


def build(message: Any, **fields: Any) -> Any:
    """A call of a builder, right unless told otherwise."""
    return message(**({"collection": "docs", "index_version": 1, "fence": 7} | fields))


def verification(**fields: Any) -> Any:
    return collections.VerifyVersionRequest(collection="docs", **fields)


def golden(query_text: str = "replicas", *expected: str) -> Any:
    return collections.GoldenQuery(query=query_text, expected=expected)


METHODS: dict[str, Any] = {
    "CreateCollection": collections.CreateCollectionRequest,
    "DescribeCollection": collections.DescribeCollectionRequest,
    "DeleteCollection": collections.DeleteCollectionRequest,
    "BeginVersion": collections.BeginVersionRequest,
    "VerifyVersion": collections.VerifyVersionRequest,
    "RepairVersion": collections.RepairVersionRequest,
    "ActivateVersion": collections.ActivateVersionRequest,
    "RollBackCollection": collections.RollBackCollectionRequest,
    "DeleteVersion": collections.DeleteVersionRequest,
}

UNARY: dict[str, list[Any]] = {
    QUERY + "Search": [*bad_searches(), (b"\x22" + b"x" * MAX_MESSAGE_BYTES, TOO_LARGE, "larger")],
    INDEX + "DeleteDocuments": [
        (NOT_UTF8, INVALID, "not a valid"),
        (NOT_A_MESSAGE, INVALID, "not a valid"),
        (b"", INVALID, "documents: "),
        (deletion(), INVALID, "documents: .*1 to 1,?000"),
        (deletion(*(f"{n:032x}" for n in range(1_001))), INVALID, "documents: .*1 to 1,?000"),
        (deletion("a" * 31), INVALID, "documents.document_id: "),
        (deletion("A" * 32), INVALID, "documents.document_id: "),
        (deletion("a" * 32, "a" * 32), INVALID, "documents.document_id: .*twice"),
        (deletion("a" * 32, collection=""), INVALID, "collection: "),
        (deletion("a" * 32, collection="absent"), NOT_FOUND, "absent"),
        (deletion("a" * 32, index_version=9), NOT_FOUND, "9"),
        (deletion("a" * 32, tenant="../x"), INVALID, "tenant: "),
        (deletion(), INVALID, "documents: .*1 to 100 containers"),
        (emptying(*(f"file:///{n}" for n in range(101))), INVALID, "containers: .*1 to 100"),
        (emptying(""), INVALID, "containers.container_uri: "),
        (emptying(" "), INVALID, "containers.container_uri: "),
        (emptying("file:///a\n"), INVALID, "containers.container_uri: .*control"),
        (emptying("file:///" + "x" * 4_089), INVALID, "containers.container_uri: .*4096"),
        (emptying("file:///c", "file:///c"), INVALID, "containers.container_uri: .*twice"),
        (emptying("file:///c", version=-1), INVALID, "containers.version: "),
        (emptying("file:///c", ids=("x",)), INVALID, "documents.document_id: "),
        (emptying("file:///c", collection="absent"), NOT_FOUND, "absent"),
        (emptying("file:///c", index_version=9), NOT_FOUND, "9"),
        (b"\x12\x04docs\x2a\x04\x0a\x02\xff\xfe", INVALID, "not a valid"),
    ],
    INDEX + "ListDocuments": [
        (NOT_UTF8, INVALID, "not a valid"),
        (NOT_A_MESSAGE, INVALID, "not a valid"),
        (b"", INVALID, "collection: "),
        *bad_names(index.ListDocumentsRequest),
        (index.ListDocumentsRequest(collection="absent"), NOT_FOUND, "absent"),
        (index.ListDocumentsRequest(collection="docs", index_version=9), NOT_FOUND, "9"),
        (
            index.ListDocumentsRequest(collection="docs", source_uri_prefix="x" * 5_000),
            INVALID,
            "source_uri_prefix: ",
        ),
    ],
    **{
        COLLECTIONS + method: [
            (NOT_UTF8, INVALID, "not a valid"),
            (NOT_A_MESSAGE, INVALID, "not a valid"),
            (b"", INVALID, "(collection|index_version): "),
            *bad_names(message),
            *(
                [(at_version(message, "absent", 1), NOT_FOUND, "absent")]
                if method != "CreateCollection"
                else [(message(collection="docs"), EXISTS, "docs")]
            ),
            *(
                [(at_version(message, "docs", 9), NOT_FOUND, "9")]
                if "index_version" in message.DESCRIPTOR.fields_by_name
                else []
            ),
        ]
        for method, message in METHODS.items()
    },
    COLLECTIONS + "ListCollections": [
        (b"\x0a\x02\xff\xfe", INVALID, "not a valid"),
        (NOT_A_MESSAGE, INVALID, "not a valid"),
        (b"\x0a" + b"x" * MAX_MESSAGE_BYTES, TOO_LARGE, "larger"),
        (b"\x0a\x10abc", INVALID, "not a valid"),
        *(
            (collections.ListCollectionsRequest(tenant=name), INVALID, "tenant: ")
            for name in ("A", "-a", "a_b", "a b", "é", "a\n", "x" * 64)
        ),
    ],
    COLLECTIONS + "RenewBuild": [
        (NOT_UTF8, INVALID, "not a valid"),
        (NOT_A_MESSAGE, INVALID, "not a valid"),
        (b"", INVALID, "collection: "),
        *bad_names(collections.RenewBuildRequest),
        (build(collections.RenewBuildRequest, index_version=0), INVALID, "index_version: "),
        (build(collections.RenewBuildRequest, fence=0), INVALID, "fence: "),
        (build(collections.RenewBuildRequest, fence=-1), INVALID, "fence: "),
        (
            build(collections.RenewBuildRequest, documents_per_s=float("nan")),
            INVALID,
            "documents_per_s: ",
        ),
        (build(collections.RenewBuildRequest), PRECONDITION, "is over"),
        (build(collections.RenewBuildRequest, collection="absent"), PRECONDITION, "is over"),
    ],
    COLLECTIONS + "EndBuild": [
        (NOT_UTF8, INVALID, "not a valid"),
        (NOT_A_MESSAGE, INVALID, "not a valid"),
        (b"", INVALID, "collection: "),
        *bad_names(collections.EndBuildRequest),
        (build(collections.EndBuildRequest, index_version=0), INVALID, "index_version: "),
        (build(collections.EndBuildRequest, fence=0), INVALID, "fence: "),
    ],
    COLLECTIONS + "BeginVersion ": [
        (
            collections.BeginVersionRequest(collection="docs", builder="x" * 257),
            INVALID,
            "builder: .*256",
        ),
        (collections.BeginVersionRequest(collection="docs", builder="a\n"), INVALID, "builder: "),
        (collections.BeginVersionRequest(collection="docs", ttl_s=1), INVALID, "ttl_s: .*2 to 600"),
        (collections.BeginVersionRequest(collection="docs", ttl_s=601), INVALID, "ttl_s: "),
    ],
    COLLECTIONS + "VerifyVersion ": [
        (verification(fence=-1), INVALID, "fence: "),
        (verification(fence=7), PRECONDITION, "."),
        (verification(golden_queries=[golden(" ", "a")]), INVALID, "golden_queries"),
        (verification(golden_queries=[golden("x" * 8_193, "a")]), INVALID, "golden_queries"),
        (verification(golden_queries=[golden()]), INVALID, "golden_queries"),
        (verification(golden_queries=[golden("a", "")]), INVALID, "golden_queries"),
        (
            verification(golden_queries=[golden("a", *map(str, range(1_001)))]),
            INVALID,
            "golden_queries",
        ),
        (verification(golden_queries=[golden("a", "b")] * 2_001), INVALID, "golden_queries"),
        (
            verification(golden_queries=[golden("a", "b")], golden_threshold=1.5),
            INVALID,
            "golden_threshold: ",
        ),
        (
            verification(golden_queries=[golden("a", "b")], golden_max_drop=-0.5),
            INVALID,
            "golden_max_drop: ",
        ),
        (
            verification(golden_queries=[golden("a", "b")], golden_depth=101),
            INVALID,
            "golden_depth: ",
        ),
    ],
    COLLECTIONS + "ActivateVersion ": [
        (build(collections.ActivateVersionRequest, fence=-1), INVALID, "fence: "),
        (build(collections.ActivateVersionRequest, fence=0, force=True), INVALID, "requested_by: "),
        (
            build(collections.ActivateVersionRequest, fence=0, requested_by="x" * 257),
            INVALID,
            "requested_by: .*256",
        ),
    ],
    COLLECTIONS + "RollBackCollection ": [
        (collections.RollBackCollectionRequest(collection="docs"), PRECONDITION, "no earlier"),
        (
            collections.RollBackCollectionRequest(collection="docs", to_version=9),
            NOT_FOUND,
            "9",
        ),
    ],
    COLLECTIONS + "DeleteVersion ": [
        (
            collections.DeleteVersionRequest(collection="docs", index_version=1),
            PRECONDITION,
            "active",
        ),
    ],
}

STREAMS: list[Any] = [
    ([], INVALID, "opening: "),
    ([b""], INVALID, "opening: "),
    ([NOT_A_MESSAGE], INVALID, "not a valid"),
    ([batch(document())], INVALID, "opening: "),
    ([opening(collection="")], INVALID, "collection: "),
    ([opening(collection="absent")], NOT_FOUND, "absent"),
    ([opening(index_version=9)], NOT_FOUND, "9"),
    ([opening(job_id="x" * 129)], INVALID, "opening.job_id: "),
    ([opening(), opening()], INVALID, "batch: "),
    ([opening(), batch()], INVALID, "batch.documents: .*1 to 8"),
    ([opening(), batch(*(document(str(n)) for n in range(9)))], INVALID, "batch.documents: "),
    ([opening(), batch(document(), document())], INVALID, "batch.documents.document_id: .*twice"),
    ([opening(), batch(document(content="x" * 2**17))], INVALID, "batch: .*65536"),
    ([opening(), batch(document("b")) + NOT_A_MESSAGE], INVALID, "not a valid"),
    ([opening(), b"\x12\x08\x0a\x06\x32\x04ab\xff\xfe"], INVALID, "not a valid"),
    ([opening(), b"\x12" + b"\x00" * MAX_MESSAGE_BYTES], TOO_LARGE, "larger"),
]

REJECTIONS: list[Any] = [
    (document(content=" \n "), "EMPTY_CONTENT"),
    (document(content="x" * 2**15), "CONTENT_TOO_LARGE"),
    (document(media_type="image/png"), "UNSUPPORTED_MEDIA_TYPE"),
    (document(media_type="nonsense"), "UNSUPPORTED_MEDIA_TYPE"),
    (document(source_uri=""), "INVALID_SOURCE_URI"),
    (document(source_uri="file:///" + "x" * 5_000), "INVALID_SOURCE_URI"),
    (document(container_uri=" "), "INVALID_SOURCE_URI"),
    (document(container_uri="file:///\x7f"), "INVALID_SOURCE_URI"),
    (document(container_uri="file:///" + "x" * 4_089), "INVALID_SOURCE_URI"),
    (document(version=0), "INVALID_VERSION"),
    (document(version=-5), "INVALID_VERSION"),
    (document(document_id="xyz"), "INVALID_DOCUMENT_ID"),
    (document(content_digest="00"), "DIGEST_MISMATCH"),
    (document(title="x" * 1_025), "INVALID_TITLE"),
    (document(metadata={"_x": document_pb2.MetadataValue(int_value=1)}), "INVALID_METADATA"),
    (
        document(metadata={"_container": document_pb2.MetadataValue(string_value="file:///c")}),
        "INVALID_METADATA",
    ),
    (document(metadata={"x": document_pb2.MetadataValue()}), "INVALID_METADATA"),
    (
        document(
            pages=[
                document_pb2.PageSpan(number=1, span=document_pb2.CharacterSpan(start=5, end=900))
            ]
        ),
        "INVALID_PAGES",
    ),
]


class Services:
    """All services in this process, with one document indexed."""

    def __init__(self, channel: grpc.aio.Channel, store: Any) -> None:
        self.channel: Any = channel  # bytes go as they are, which its types do not know
        self._store = store

    async def unary(self, method: str, payload: bytes) -> bytes:
        if method.endswith("ListDocuments"):
            return b"".join([part async for part in self.channel.unary_stream(method)(payload)])
        answer: bytes = await self.channel.unary_unary(method)(payload, timeout=10)
        return answer

    async def stream(self, method: str, payloads: Sequence[bytes]) -> list[bytes]:
        call = self.channel.stream_stream(method)(iter(payloads), timeout=10)
        return [part async for part in call]

    async def state(self) -> Any:
        """All that a bad request could have changed."""
        described = await self.unary(COLLECTIONS + "ListCollections", b"")
        collection = await self._store.collection("default.docs.v000001")
        found = await collection.get(include=["documents", "metadatas"])
        return (
            described,
            found.ids,
            found.documents,
            found.metadatas,
            await self._store.collections(),
        )


@pytest.fixture
async def services(tmp_path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        coordinator = open_coordinator(CoordinatorSettings(kind="embedded", path=tmp_path / "db"))
        stack.push_async_callback(coordinator.aclose)
        chroma = open_chroma(ChromaSettings(mode="embedded", path=tmp_path / "chroma"))
        stack.push_async_callback(chroma.aclose)
        embedder = open_embedder(EmbeddingSettings(kind="hashing"))
        bounds = {"max_batch_documents": 8, "max_batch_bytes": MAX_BATCH_BYTES}
        bindings = [
            *await open_indexer(
                stack,
                indexer=IndexerSettings(
                    **bounds,
                    max_document_bytes=2**14,
                    # What is counted beside the requests must not look like a change by them.
                    word_counts=WordCountSettings(interval_s=3_600),
                ),
                chunking=ChunkingSettings(),
                chroma=chroma,
                coordinator=coordinator,
                embedder=embedder,
                holder="this test",
            ),
            *await open_query(
                stack,
                query=QuerySettings(),
                chroma=chroma,
                coordinator=coordinator,
                embedder=embedder,
            ),
        ]
        settings = ServerSettings(listen="127.0.0.1:0", max_message_bytes=MAX_MESSAGE_BYTES)
        server = await stack.enter_async_context(GrpcServer.open(settings, bindings))
        channel = await stack.enter_async_context(open_channel(server.address))
        running = Services(channel, chroma)
        created = collections.CreateCollectionRequest(collection="docs").SerializeToString()
        await running.unary(COLLECTIONS + "CreateCollection", created)
        await running.stream(INDEX + "IndexDocuments", [opening(), batch(document())])
        yield running


def raw(payload: bytes | Message) -> bytes:
    return payload if isinstance(payload, bytes) else payload.SerializeToString()


async def faults(calls: Sequence[tuple[Any, Any, grpc.StatusCode, str]]) -> list[str]:
    """What does not answer as documented; empty when all do."""
    found = []
    for number, (call, payload, code, message) in enumerate(calls):
        try:
            await call(payload)
        except grpc.aio.AioRpcError as error:
            if error.code() is not code or not re.search(message, error.details() or ""):
                found.append(
                    f"{number}: {error.code()} {error.details()!r}, not {code} {message!r}"
                )
        else:
            found.append(f"{number}: no error, not {code} {message!r}")
    return found


@pytest.mark.parametrize("method", sorted(UNARY))
async def test_each_method_refuses_bad_input_and_changes_nothing(services, method):
    before = await services.state()

    async def call(payload: bytes) -> None:
        await services.unary(method.strip(), payload)

    cases = [(call, raw(payload), code, message) for payload, code, message in UNARY[method]]
    assert await faults(cases) == []
    assert await services.state() == before


async def test_a_stream_that_breaks_a_rule_ends_and_changes_nothing(services):
    before = await services.state()

    async def call(payloads: Sequence[bytes]) -> None:
        await services.stream(INDEX + "IndexDocuments", payloads)

    assert await faults([(call, *case) for case in STREAMS]) == []
    assert await services.state() == before


async def test_a_document_that_cannot_be_indexed_is_rejected_and_the_stream_goes_on(services):
    before = await services.state()
    batches = [batch(bad) for bad, _ in REJECTIONS]
    parts = await services.stream(
        INDEX + "IndexDocuments", [opening(), *batches, batch(document())]
    )
    answers = [index.IndexDocumentsResponse.FromString(part) for part in parts]
    acknowledged = [a for answer in answers for a in answer.acknowledgements.acknowledgements]
    assert len(acknowledged) == len(REJECTIONS) + 1
    causes = [index.RejectionCause.Name(a.rejection.cause) for a in acknowledged[:-1]]
    assert causes == [f"REJECTION_CAUSE_{cause}" for _, cause in REJECTIONS]
    assert all(a.rejection.message for a in acknowledged[:-1])
    for (bad, _), answer in zip(REJECTIONS, acknowledged[:-1], strict=True):
        if bad.container_uri:
            assert answer.rejection.message.startswith("container_uri: ")
    assert acknowledged[-1].outcome == index.OUTCOME_UNCHANGED
    assert await services.state() == before


async def test_a_bad_query_in_a_stream_is_answered_and_the_stream_goes_on(services):
    before = await services.state()
    bad = [case for case in bad_searches() if case[0] not in {NOT_UTF8, NOT_A_MESSAGE}]
    asked = [*(payload for payload, _, _ in bad), search()]
    payloads = [
        query.SearchStreamRequest(
            sequence=number, search=query.SearchRequest.FromString(payload)
        ).SerializeToString()
        for number, payload in enumerate(asked)
    ]
    parts = await services.stream(QUERY + "SearchStream", payloads)
    answers = {
        answer.sequence: answer for answer in map(query.SearchStreamResponse.FromString, parts)
    }
    assert len(answers) == len(asked)
    for number, (_, code, message) in enumerate(bad):
        assert answers[number].error.code == code.value[0]
        assert re.search(message, answers[number].error.message)
    assert [hit.rank for hit in answers[len(bad)].response.hits] == [1]
    assert await services.state() == before


@pytest.mark.parametrize("payload", [NOT_A_MESSAGE, b"\x12\x04" + NOT_UTF8])
async def test_a_stream_of_queries_refuses_what_is_no_message(services, payload):
    async def call(payloads: Sequence[bytes]) -> None:
        await services.stream(QUERY + "SearchStream", payloads)

    assert await faults([(call, [payload], INVALID, "not a valid")]) == []


def test_every_method_is_covered():
    services = {
        **index.DESCRIPTOR.services_by_name,
        **query.DESCRIPTOR.services_by_name,
        **collections.DESCRIPTOR.services_by_name,
    }
    methods = {f"/{s.full_name}/{m.name}" for s in services.values() for m in s.methods}
    streams = {INDEX + "IndexDocuments", QUERY + "SearchStream"}
    assert {method.strip() for method in UNARY} | streams == methods
