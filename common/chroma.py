"""An async façade over Chroma, the one place that knows its client.

Chroma's own calls block, so each runs on a bounded pool of threads; its errors become ours. A
server's records are read without it (`common.chroma_reads`). Writes are cut to respect both of its
limits, the number of records and the size of a request. Chroma's telemetry is off and no embedding
function is ever attached, so nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import chromadb
import chromadb.errors
import httpx
import numpy as np
from chromadb.config import Settings as ClientOptions
from pydantic import Field, model_validator

from common.chroma_reads import NO_ANSWER, RETRY_AFTER_MS, ChromaReads, Records, Selector
from common.config import Settings
from common.errors import FailedPrecondition, InvalidArgument, NotFound, SluiceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from common.records import MetadataValue

LATE_FACTOR = 4  # how many times its time a call to a server may take before it is cut
_VECTOR_VALUE_BYTES = 16  # one float as JSON, generously


class ChromaSettings(Settings):
    """Where Chroma is.

    ``embedded`` keeps the store in this process under ``path``: for one process only, several on
    one path destroy it. ``server`` talks to ``chroma run``.
    """

    mode: Literal["embedded", "server"] = "server"
    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65_535)
    ssl: bool = False
    token_file: Path | None = None
    timeout_s: float = Field(default=30.0, gt=0)
    max_concurrency: int = Field(default=8, ge=1, le=256)
    max_request_bytes: int = Field(default=8 * 2**20, ge=2**16)

    @model_validator(mode="after")
    def _embedded_has_a_path(self) -> ChromaSettings:
        if self.mode == "embedded" and self.path is None:
            raise ValueError("mode embedded needs chroma.path, the folder that holds the store")
        return self


class Chroma:
    """A Chroma store, embedded or remote. Make it with ``open_chroma``."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 — see below
        settings: ChromaSettings,
        sessions: Sequence[httpx.Client] = (),
        reads: ChromaReads | None = None,
    ) -> None:
        # Chroma's annotations are narrower than what it takes and gives (numpy arrays, mappings,
        # close()), so its objects are untyped here and this module states the types itself.
        self._client = client
        self._sessions = sessions
        self._reads = reads
        self._settings = settings
        self._executor = ThreadPoolExecutor(settings.max_concurrency, thread_name_prefix="chroma")
        self._batch_size = client.get_max_batch_size()
        self._late: set[asyncio.Future[Any]] = set()

    @property
    def max_request_bytes(self) -> int:
        """Bytes that one request of records may have."""
        return self._settings.max_request_bytes

    async def call(self, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:  # noqa: ANN401 — as in __init__
        """Run one blocking call of the client; its failure becomes one of our errors.

        Raises:
            NotFound: the collection does not exist.
            InvalidArgument: the store refused what it was asked.
            Unavailable: the store does not answer in ``timeout_s``.
        """
        # Given up while it still waits for a thread, a read is never begun.
        return await self._within_time(self._begin(function, *args, **kwargs))

    async def write(self, function: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Run one blocking call that changes records, never before one that was given up.

        A write that timed out may still land. Until it has ended, later writes are refused, so
        that it cannot undo what came after it.

        Raises:
            Unavailable: as ``call``, or an earlier write is still under way past its time.
        """
        if self._late:
            raise Unavailable(
                "the vector store is still at a write that timed out; try again",
                retry_after_ms=RETRY_AFTER_MS,
            )
        future = self._begin(function, *args, **kwargs)
        try:
            await self._within_time(asyncio.shield(future))
        finally:
            if not future.done():
                self._late.add(future)
                future.add_done_callback(self._late.discard)

    async def written(self) -> None:
        """Wait until no write is under way past its time."""
        if self._late:
            await asyncio.wait(self._late)

    def _begin(
        self, function: Callable[..., Any], *args: object, **kwargs: object
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, partial(function, *args, **kwargs))
        future.add_done_callback(_seen)
        return future

    async def _within_time(self, future: asyncio.Future[Any]) -> Any:  # noqa: ANN401 — as call
        try:
            return await asyncio.wait_for(future, self._settings.timeout_s)
        except Exception as error:
            raise _translate(error) from error

    async def create_collection(self, name: str) -> ChromaCollection:
        """Open a collection with cosine distance; make it if it is not there."""
        collection = await self.call(
            self._client.get_or_create_collection,
            name,
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine", "ef_search": 200}},
        )
        return ChromaCollection(self, collection, self._reads)

    async def collection(self, name: str) -> ChromaCollection:
        """Open a collection that exists; NotFound otherwise."""
        collection = await self.call(self._client.get_collection, name, embedding_function=None)
        return ChromaCollection(self, collection, self._reads)

    async def collections(self) -> list[str]:
        """Names of all collections."""
        return [collection.name for collection in await self.call(self._client.list_collections)]

    async def delete_collection(self, name: str) -> None:
        """Delete a collection; one that is not there is fine."""
        try:
            await self.call(self._client.delete_collection, name)
        except NotFound:
            return

    async def heartbeat(self) -> None:
        """Raise Unavailable unless the store answers."""
        await self.call(self._client.heartbeat)

    async def aclose(self) -> None:
        """Wait for running calls, at most ``timeout_s``, and release the store."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.written(), self._settings.timeout_s)
        await asyncio.to_thread(self._executor.shutdown, wait=not self._late, cancel_futures=True)
        if self._reads is not None:
            await self._reads.aclose()
        self._client.close()
        for session in self._sessions:
            session.close()

    def batches(self, sizes: Sequence[int], *, dimension: int = 0) -> Iterator[slice]:
        """Cut records of these sizes in bytes into requests that Chroma takes."""
        start, total = 0, 0
        for index, size in enumerate(sizes):
            cost = size + dimension * _VECTOR_VALUE_BYTES
            full = index - start >= self._batch_size
            if index > start and (full or total + cost > self._settings.max_request_bytes):
                yield slice(start, index)
                start, total = index, 0
            total += cost
        if start < len(sizes):
            yield slice(start, len(sizes))


class ChromaCollection:
    """One collection of the store."""

    def __init__(
        self,
        chroma: Chroma,
        collection: Any,  # noqa: ANN401 — as in Chroma
        reads: ChromaReads | None,
    ) -> None:
        self._chroma = chroma
        self._collection = collection
        self._reads = reads
        self._path = (
            f"/tenants/{collection.tenant}/databases/{collection.database}"
            f"/collections/{collection.id}"
        )
        self.name: str = collection.name

    async def get(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        include: Sequence[str] = ("metadatas",),
        limit: int | None = None,
        offset: int | None = None,
    ) -> Records:
        """Read records by id or by filter; ids that are not there are left out."""
        if ids is not None and not ids:
            return Records([], [], [], np.empty((0, 0), np.float32))
        if self._reads is not None:
            return await self._reads.get(self._path, Selector(ids, where, include, limit, offset))
        found = await self._chroma.call(
            self._collection.get,
            ids=list(ids) if ids is not None else None,
            where=dict(where) if where else None,
            include=list(include),
            limit=limit,
            offset=offset,
        )
        embeddings = found["embeddings"]
        return Records(
            ids=found["ids"],
            documents=found["documents"],
            metadatas=found["metadatas"],
            embeddings=None if embeddings is None else np.asarray(embeddings, np.float32),
        )

    async def query(
        self,
        vector: NDArray[np.float32],
        *,
        n_results: int,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The nearest records of a vector of shape (dimension,): ids and cosine distances."""
        if self._reads is not None:
            return await self._reads.query(self._path, vector, n_results=n_results, where=where)
        found = await self._chroma.call(
            self._collection.query,
            query_embeddings=[vector],
            n_results=n_results,
            where=dict(where) if where else None,
            include=["distances"],
        )
        return found["ids"][0], np.asarray(found["distances"][0], np.float32)

    async def upsert(
        self,
        *,
        ids: Sequence[str],
        embeddings: NDArray[np.float32],
        documents: Sequence[str] | None,
        metadatas: Sequence[Mapping[str, MetadataValue]],
    ) -> None:
        """Write records in their order, in as many requests as Chroma's limits ask for.

        Args:
            ids: n different ids.
            embeddings: shape (n, dimension).
            documents: n texts, which Chroma makes searchable by their words; None for none.
            metadatas: n flat mappings.
        """
        texts = documents if documents is not None else [""] * len(ids)
        sizes = [
            len(text.encode()) + _metadata_bytes(metadata)
            for text, metadata in zip(texts, metadatas, strict=True)
        ]
        for part in self._chroma.batches(sizes, dimension=embeddings.shape[1]):
            await self._chroma.write(
                self._collection.upsert,
                ids=list(ids[part]),
                embeddings=embeddings[part],
                documents=list(documents[part]) if documents is not None else None,
                metadatas=[dict(metadata) for metadata in metadatas[part]],
            )

    async def update_metadata(
        self, ids: Sequence[str], metadatas: Sequence[Mapping[str, MetadataValue | None]]
    ) -> None:
        """Merge metadata into records; a None removes its key."""
        sizes = [_metadata_bytes(metadata) for metadata in metadatas]
        for part in self._chroma.batches(sizes):
            await self._chroma.write(
                self._collection.update,
                ids=list(ids[part]),
                metadatas=[dict(metadata) for metadata in metadatas[part]],
            )

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records; ids that are not there are fine."""
        for part in self._chroma.batches([len(id_) for id_ in ids]):
            await self._chroma.write(self._collection.delete, ids=list(ids[part]))

    async def count(self) -> int:
        """Number of records."""
        return int(await self._chroma.call(self._collection.count))


def open_chroma(settings: ChromaSettings) -> Chroma:
    """Open the store. Blocking: call it from a composition root.

    Raises:
        Unavailable: the server does not answer.
    """
    options = ClientOptions(anonymized_telemetry=False)
    client: Any
    sessions: list[httpx.Client] = []
    reads: ChromaReads | None = None
    try:
        if settings.mode == "embedded":
            client = chromadb.PersistentClient(str(settings.path), settings=options)
        else:
            client = chromadb.HttpClient(
                host=settings.host,
                port=settings.port,
                ssl=settings.ssl,
                headers=(headers := _headers(settings.token_file)),
                settings=options,
            )
            # Chroma's own sessions would wait for ever, and are never closed. They outlast a call
            # that was given up, so that a late write is known to be under way.
            for part in (client, client._admin_client):  # noqa: SLF001 — there is no other way to it
                sessions.append(part._server._session)  # noqa: SLF001 — as above
                sessions[-1].timeout = httpx.Timeout(settings.timeout_s * LATE_FACTOR)
            reads = ChromaReads(
                client._server.get_api_url(),  # noqa: SLF001 — as above
                headers=headers,
                timeout_s=settings.timeout_s,
                max_connections=settings.max_concurrency,
            )
        return Chroma(client, settings, sessions, reads)
    except Exception as error:
        raise _unreachable(settings) from error


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at how a call ended, even if whoever waited for it was told that it timed out."""
    if not future.cancelled():
        future.exception()


def _unreachable(settings: ChromaSettings) -> Unavailable:
    if settings.mode == "embedded":
        return Unavailable(f"the vector store in {settings.path} cannot be opened")
    return Unavailable(
        f"no Chroma server answers at {settings.host}:{settings.port}; start it or set chroma.host "
        "and chroma.port",
        retry_after_ms=RETRY_AFTER_MS,
    )


def _headers(token_file: Path | None) -> dict[str, str]:
    if token_file is None:
        return {}
    return {"Authorization": f"Bearer {token_file.read_text(encoding='utf-8').strip()}"}


def _metadata_bytes(metadata: Mapping[str, MetadataValue | None]) -> int:
    return len(json.dumps(metadata, ensure_ascii=False).encode())


def _translate(error: Exception) -> SluiceError:
    """Chroma's error as ours; the message holds no document text."""
    match error:
        case SluiceError():
            return error
        case chromadb.errors.NotFoundError():
            return NotFound("the vector store has no such collection")
        case chromadb.errors.InvalidDimensionException():
            return FailedPrecondition("the vector has another dimension than the collection")
        case (
            chromadb.errors.InvalidArgumentError()
            | chromadb.errors.DuplicateIDError()
            | ValueError()
            | TypeError()
        ):
            return InvalidArgument(f"the vector store refused the request ({type(error).__name__})")
        case TimeoutError() | httpx.HTTPError() | OSError():
            message = NO_ANSWER
        case _:
            message = f"the vector store failed ({type(error).__name__})"
    return Unavailable(message, retry_after_ms=RETRY_AFTER_MS)
