"""The network embedder against a real server: what it repeats, what it bounds, what it tells."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from common.embedding import Embedder, EmbeddingSettings, open_embedder
from common.errors import (
    ConfigurationError,
    InvalidArgument,
    Overloaded,
    SluiceError,
    Unavailable,
)
from tests.unit.common.embedding.embedding_server import DIMENSION, Fault, vector_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.unit.common.embedding.embedding_server import EmbeddingServer

SECRET = "sk-3f9a-secret"  # noqa: S105 - known to this test only
TEXT = "a confidential sentence"


@pytest.fixture
async def connect(
    server: EmbeddingServer, tmp_path: Path
) -> AsyncIterator[Callable[..., Embedder]]:
    key_file = tmp_path / "key"
    key_file.write_text(f"{SECRET}\n")
    embedders: list[Embedder] = []

    def connected(**changes: Any) -> Embedder:
        settings: dict[str, Any] = {
            "kind": "openai",
            "model": "served",
            "url": server.url,
            "dimension": DIMENSION,
            "api_key_file": key_file,
            "retries": 2,
            "retry_backoff_s": 0.001,
            **changes,
        }
        embedders.append(open_embedder(EmbeddingSettings(**settings)))
        return embedders[-1]

    yield connected
    for embedder in embedders:
        await embedder.aclose()


def expected(text: str) -> np.ndarray[Any, Any]:
    vector = np.array(vector_of(text))
    return np.asarray(vector / np.linalg.norm(vector))


async def test_it_speaks_the_protocol(
    connect: Callable[..., Embedder], server: EmbeddingServer
) -> None:
    vectors = await connect().embed_documents(["one", "three", "two"])
    for vector, text in zip(vectors, ["one", "three", "two"], strict=True):
        np.testing.assert_allclose(vector, expected(text), atol=1e-6)
    (request,) = server.requests
    assert request["model"] == "served"
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"


async def test_without_a_key_none_is_sent(
    connect: Callable[..., Embedder], server: EmbeddingServer
) -> None:
    await connect(api_key_file=None).embed_query(TEXT)
    assert "authorization" not in server.headers[0]


async def test_requests_are_bounded_in_size_and_number(
    connect: Callable[..., Embedder], server: EmbeddingServer
) -> None:
    server.gate.clear()
    embedder = connect(batch_texts=4, max_concurrent_batches=3)
    texts = [f"{number:0{number}}" for number in [*range(1, 41, 2), *range(2, 41, 2)]]
    both = asyncio.gather(embedder.embed_documents(texts), embedder.embed_documents(texts))
    assert await asyncio.to_thread(server.wait_in_flight, 3)
    # a query is not queued behind documents
    query = asyncio.create_task(embedder.embed_query(TEXT))
    assert await asyncio.to_thread(server.wait_in_flight, 4)
    server.gate.set()
    for vectors in await both:
        np.testing.assert_allclose(vectors, [expected(text) for text in texts], atol=1e-6)
    np.testing.assert_allclose(await query, expected(TEXT), atol=1e-6)
    assert server.most_in_flight == 4
    documents = [request["input"] for request in server.requests if request["input"] != [TEXT]]
    assert {len(inputs) for inputs in documents} == {4}
    spread = [max(map(len, inputs)) - min(map(len, inputs)) for inputs in documents]
    assert max(spread) == 3  # texts of like length share a request


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_passing_faults_are_repeated(
    connect: Callable[..., Embedder], server: EmbeddingServer, status: int
) -> None:
    server.faults.extend([Fault(status), Fault(status)])
    np.testing.assert_allclose(await connect().embed_query(TEXT), expected(TEXT), atol=1e-6)
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "error"), [(429, Overloaded), (503, Unavailable)])
async def test_repeats_end(
    connect: Callable[..., Embedder],
    server: EmbeddingServer,
    status: int,
    error: type[SluiceError],
) -> None:
    server.faults.extend([Fault(status)] * 5)
    with pytest.raises(error, match=str(status)) as caught:
        await connect().embed_documents([TEXT])
    assert len(server.requests) == 3
    assert caught.value.retry_after_ms is not None


@pytest.mark.parametrize(
    ("status", "error", "names"),
    [
        (400, InvalidArgument, "embedding.max_tokens"),
        (413, InvalidArgument, "embedding.batch_texts"),
        (422, InvalidArgument, "embedding.model"),
        (401, ConfigurationError, "embedding.api_key_file"),
        (403, ConfigurationError, "embedding.api_key_file"),
        (404, ConfigurationError, "embedding.url"),
        (301, ConfigurationError, "embedding.url"),
    ],
)
async def test_lasting_faults_are_not_repeated_and_tell_no_secret(
    connect: Callable[..., Embedder],
    server: EmbeddingServer,
    caplog: pytest.LogCaptureFixture,
    status: int,
    error: type[SluiceError],
    names: str,
) -> None:
    caplog.set_level("DEBUG")
    server.faults.append(Fault(status, body=f"{TEXT} {SECRET}".encode()))
    embedder = connect()
    with pytest.raises(error) as caught:
        await embedder.embed_documents([TEXT])
    assert len(server.requests) == 1
    assert names in caught.value.message
    told = f"{caught.value!r} {embedder!r} {caplog.text}"
    assert SECRET not in told
    assert TEXT not in told


async def test_the_server_says_when_to_come_back(
    connect: Callable[..., Embedder], server: EmbeddingServer
) -> None:
    server.faults.append(Fault(429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    await connect().embed_query(TEXT)
    assert 1 <= time.monotonic() - start < 10
    assert len(server.requests) == 2


async def test_it_does_not_wait_for_an_hour(
    connect: Callable[..., Embedder], server: EmbeddingServer
) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for header in ("3600", in_an_hour):
        server.requests.clear()
        server.faults.append(Fault(503, headers={"Retry-After": header}))
        with pytest.raises(Unavailable) as caught:
            await connect().embed_query(TEXT)
        assert len(server.requests) == 1
        assert caught.value.retry_after_ms == pytest.approx(3_600_000, abs=60_000)


async def test_a_retry_after_of_nonsense_is_ignored(
    connect: Callable[..., Embedder], server: EmbeddingServer
) -> None:
    server.faults.append(Fault(503, headers={"Retry-After": "soon"}))
    await connect().embed_query(TEXT)
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [Fault(stall=True), Fault(drip=True)])
async def test_a_slow_answer_is_given_up_and_asked_again(
    connect: Callable[..., Embedder], server: EmbeddingServer, fault: Fault
) -> None:
    server.faults.append(fault)
    vector = await connect(timeout_s=0.3).embed_query(TEXT)
    np.testing.assert_allclose(vector, expected(TEXT), atol=1e-6)
    assert len(server.requests) == 2


async def test_an_absent_server_is_unavailable(connect: Callable[..., Embedder]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match=r"ConnectError.*embedding\.url"):
            await connect(url=url).embed_query(TEXT)


def answer(*rows: dict[str, object]) -> bytes:
    return json.dumps({"data": rows}).encode()


@pytest.mark.parametrize(
    ("body", "error", "names"),
    [
        (b"<html>hello</html>", ConfigurationError, "OpenAI-compatible"),
        (b"{}", ConfigurationError, "OpenAI-compatible"),
        (b"[1]", ConfigurationError, "OpenAI-compatible"),
        (answer(), ConfigurationError, "one vector for each text"),
        (answer({"index": 1, "embedding": [1.0] * DIMENSION}), ConfigurationError, "each text"),
        (answer({"index": 0, "embedding": 1.0}), ConfigurationError, "each text"),
        (answer({"index": 0, "embedding": [1.0] * 7}), ConfigurationError, "embedding.dimension"),
        (answer({"index": 0, "embedding": [0.0] * DIMENSION}), Unavailable, "zero"),
    ],
)
async def test_a_strange_answer_becomes_no_vector(
    connect: Callable[..., Embedder],
    server: EmbeddingServer,
    body: bytes,
    error: type[SluiceError],
    names: str,
) -> None:
    server.faults.extend([Fault(body=body)] * 3)
    with pytest.raises(error) as caught:
        await connect().embed_query(TEXT)
    assert names in caught.value.message


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"dimension": 0}, "embedding.dimension"),
        ({"url": ""}, "embedding.url"),
        ({"url": "ftp://host/v1"}, "embedding.url"),
        ({"url": f"http://user:{SECRET}@host/v1"}, "embedding.url"),
        ({"api_key_file": "/nowhere/key"}, "embedding.api_key_file"),
        ({"ca_file": "/nowhere/ca.pem"}, "embedding.ca_file"),
        ({"tokenizer_file": "/nowhere/tokenizer.json"}, "tokenizer.json"),
    ],
)
def test_wrong_settings_name_their_key(
    connect: Callable[..., Embedder], changes: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(**changes)
    assert key in caught.value.message
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"two\nlines", "schlüssel-geheim".encode()])
def test_a_key_file_of_another_form_is_refused_without_quoting_it(
    connect: Callable[..., Embedder], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"embedding\.api_key_file") as caught:
        connect(api_key_file=path)
    assert caught.value.__context__ is None
    assert "geheim" not in str(caught.value)


async def test_the_digest_follows_model_and_dimension(connect: Callable[..., Embedder]) -> None:
    one = connect().spec
    assert one.digest == connect().spec.digest
    assert one.digest != connect(model="other").spec.digest
    assert one.digest != connect(dimension=25).spec.digest


async def test_estimated_tokens_grow_with_words_and_their_letters(
    connect: Callable[..., Embedder],
) -> None:
    embedder = connect()
    assert embedder.token_count("one two") == 2
    assert embedder.token_count("internationalisation!") == 6
