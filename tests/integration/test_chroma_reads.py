"""Reads of a Chroma server that fails in ways that a real one cannot be made to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from common.chroma_reads import ChromaReads, Records, Selector
from common.errors import InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ALL = Selector(ids=["a"], where=None, include=("metadatas",), limit=None, offset=None)
FOUND = b'{"ids": ["a"], "metadatas": [{"n": 1}], "documents": null, "embeddings": null}'


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class Server:
    """Answers each request with what the test says; None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                await reader.readexactly(length)
                self.requests.append(head)
                await self.go_on.wait()
                answer = self._answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def reading(
    server: Server, timeout_s: float = 30, **options: int
) -> AsyncIterator[Callable[[], asyncio.Task[Records]]]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    reads = ChromaReads(
        f"http://{host}:{port}/api/v2",
        headers={"Authorization": "Bearer secret"},
        timeout_s=timeout_s,
        max_connections=options.get("max_connections", 8),
    )
    try:
        yield lambda: asyncio.create_task(reads.get("/collections/c", ALL))
    finally:
        await reads.aclose()
        listener.close()
        await listener.wait_closed()


async def test_what_is_read_and_how_it_is_asked_for():
    server = Server(http(200, FOUND))
    async with reading(server) as read:
        found = await read()
    assert (found.ids, found.metadatas, found.documents) == (["a"], [{"n": 1}], None)
    [request] = server.requests
    assert request.startswith(b"POST /api/v2/collections/c/get HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in request


async def test_a_kept_connection_that_the_server_closed_is_no_failure():
    server = Server(http(200, FOUND), None, http(200, FOUND))
    async with reading(server) as read:
        await read()
        assert (await read()).ids == ["a"]
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_server_that_always_closes_is_unavailable_and_not_asked_for_ever():
    server = Server(None, None, None)
    async with reading(server) as read:
        with pytest.raises(Unavailable, match=r"does not answer; check chroma\.host") as caught:
            await read()
    assert caught.value.retry_after_ms
    assert len(server.requests) == 2


async def test_a_server_that_hangs_is_unavailable_after_the_time():
    server = Server()
    server.go_on.clear()
    async with reading(server, timeout_s=0.1) as read:
        with pytest.raises(Unavailable, match="does not answer"):
            await asyncio.wait_for(read(), 10)
        server.go_on.set()


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, b'{"error": "NotFoundError", "message": "x"}', NotFound, "no such collection"),
        (400, b'{"error": "InvalidArgumentError"}', InvalidArgument, "InvalidArgumentError"),
        (413, b"", InvalidArgument, "HTTP status 413"),
        (401, b'{"error": "AuthError"}', Unavailable, r"failed \(AuthError\)"),
        (429, b'["slow down"]', Unavailable, "HTTP status 429"),
        (500, b"<html>secret text", Unavailable, r"failed \(HTTP status 500\)$"),
        (200, b"<html>secret text", Unavailable, "no Chroma server"),
    ],
)
async def test_what_is_refused_says_what_it_was(
    status: int, body: bytes, kind: type[Exception], message: str
):
    async with reading(Server(http(status, body))) as read:
        with pytest.raises(kind, match=message) as caught:
            await read()
    assert "secret" not in str(caught.value)


async def test_no_more_reads_run_at_once_than_connections_may_be():
    server = Server(*[http(200, FOUND)] * 20)
    async with reading(server, max_connections=3) as read:
        found = await asyncio.gather(*(read() for _ in range(20)))
    assert [one.ids for one in found] == [["a"]] * 20
    assert server.connections <= 3
