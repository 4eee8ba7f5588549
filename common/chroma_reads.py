"""Reads of a Chroma server over its REST API, version 2, on the event loop.

Chroma's own client takes 0.8 to 1.2 ms of processor time for a read of two hundred ids; its
blocking form does so on threads that keep the interpreter from the event loop for milliseconds.
This takes a quarter of it and no thread. It must never write: a write that was given up may still
land, and `common.chroma` knows which those are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import numpy as np
import orjson

from common.errors import InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from common.records import MetadataValue

RETRY_AFTER_MS: Final = 1_000
NO_ANSWER: Final = "the vector store does not answer; check chroma.host and chroma.port"
_BAD_REQUEST, _NOT_FOUND, _TOO_LARGE, _UNPROCESSABLE = 400, 404, 413, 422
# Of an answer that are taken before a pause.
_READ_BYTES: Final = 2**18


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Records as read: parallel sequences; what was not asked for is None."""

    ids: list[str]
    documents: list[str] | None
    metadatas: list[dict[str, MetadataValue]] | None
    embeddings: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Selector:
    """Which records to read and what of them; None leaves a part of it open.

    Attributes:
        ids: by id.
        where: by metadata.
        include: of documents, metadatas and embeddings.
        limit: how many at most.
        offset: how many to pass over.
    """

    ids: Sequence[str] | None
    where: Mapping[str, Any] | None
    include: Sequence[str]
    limit: int | None
    offset: int | None


class ChromaReads:
    """Reads by many at once over a bounded number of connections.

    Args:
        url: of the API, as ``http://localhost:8000/api/v2``.
        headers: of every request.
        timeout_s: for a read, its wait for a connection included.
        max_connections: how many reads the server sees at once.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], timeout_s: float, max_connections: int
    ) -> None:
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json"}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._max_connections = max_connections
        self._proxy = _proxy(url)
        self._opened: aiohttp.ClientSession | None = None

    async def get(self, collection: str, selector: Selector) -> Records:
        """Records of a collection, given by its path; ids that are not there are left out.

        Raises:
            NotFound: the collection does not exist.
            InvalidArgument: the store refused what it was asked.
            Unavailable: the store does not answer in time.
        """
        found = await self._post(
            f"{collection}/get",
            {
                "ids": selector.ids,
                "where": selector.where,
                "include": selector.include,
                "limit": selector.limit,
                "offset": selector.offset,
            },
        )
        embeddings = found.get("embeddings")
        return Records(
            ids=found["ids"],
            documents=found.get("documents"),
            metadatas=found.get("metadatas"),
            embeddings=None if embeddings is None else np.asarray(embeddings, np.float32),
        )

    async def query(
        self,
        collection: str,
        vector: NDArray[np.float32],
        *,
        n_results: int,
        where: Mapping[str, Any] | None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The nearest records of a vector of shape (dimension,): ids and distances.

        Raises:
            NotFound, InvalidArgument, Unavailable: as ``get``.
        """
        found = await self._post(
            f"{collection}/query",
            {
                "query_embeddings": [np.ascontiguousarray(vector, np.float32)],
                "n_results": n_results,
                "where": where,
                "include": ["distances"],
            },
        )
        return found["ids"][0], np.asarray(found["distances"][0], np.float32)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _post(self, path: str, message: Mapping[str, object]) -> Any:  # noqa: ANN401 — JSON
        body = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            try:
                status, answer = await self._send(path, body)
            except aiohttp.ServerDisconnectedError:
                # It closed a kept connection just as this took it. Reading twice changes nothing.
                status, answer = await self._send(path, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(NO_ANSWER) from error
        if status >= _BAD_REQUEST:
            raise _refusal(status, answer)
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise _unavailable("what answers for the vector store is no Chroma server") from error

    async def _send(self, path: str, body: bytes) -> tuple[int, bytes]:
        request = self._session().post(
            f"{self._url}{path}", data=body, headers=self._headers, proxy=self._proxy
        )
        async with request as response:
            return response.status, await response.read()

    def _session(self) -> aiohttp.ClientSession:
        """Made by the first read, for a session belongs to the loop that it is made in."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BYTES,
            )
        return self._opened


def _refusal(status: int, answer: bytes) -> Exception:
    """What a status means; neither answer nor message holds document text."""
    try:
        name = str(orjson.loads(answer)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        name = f"HTTP status {status}"
    if status == _NOT_FOUND:
        return NotFound("the vector store has no such collection")
    if status in {_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE}:
        return InvalidArgument(f"the vector store refused the request ({name})")
    return _unavailable(f"the vector store failed ({name})")


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, retry_after_ms=RETRY_AFTER_MS)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this URL."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)
