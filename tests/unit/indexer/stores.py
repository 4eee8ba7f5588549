"""A vector store in memory, and one that counts its calls and fails where it is told to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from common import records
from common.errors import NotFound, Unavailable
from common.identity import parse_chunk_id
from indexer.nodes import Attributes, ChunkRecord, moved
from indexer.store import ChunkWords, heads_last, held_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from indexer.reconcile import HeldChunk
    from indexer.store import VectorStore


T = TypeVar("T")


class MemoryStore:
    """Passes the conformance suite that Chroma's adapter passes."""

    def __init__(self, *, page_ids: int = 20_000) -> None:
        self.kept: dict[str, tuple[ChunkRecord, NDArray[np.float32]]] = {}
        self.page_ids = page_ids

    def snapshot(self) -> dict[str, object]:
        """Everything held, comparable."""
        return {
            id_: (chunk.text, chunk.metadata, vector.tolist())
            for id_, (chunk, vector) in self.kept.items()
        }

    async def held(self, document_ids: Sequence[str]) -> Mapping[str, tuple[HeldChunk, ...]]:
        found: dict[str, tuple[HeldChunk, ...]] = {}
        for id_, (chunk, _) in self.kept.items():
            document_id = str(chunk.metadata[records.DOCUMENT_ID])
            if document_id in document_ids:
                found[document_id] = (
                    *found.get(document_id, ()),
                    held_chunk(id_, chunk.metadata),
                )
        return found

    async def write(self, chunks: Sequence[ChunkRecord], vectors: NDArray[np.float32]) -> None:
        for part in heads_last([chunk.ordinal for chunk in chunks]):
            for index in part:
                self.kept[chunks[index].id] = chunks[index], vectors[index]

    async def move(self, changes: Sequence[tuple[str, Attributes]]) -> None:
        for id_, attributes in changes:
            if id_ in self.kept:
                chunk, vector = self.kept[id_]
                merged = chunk.metadata | moved(id_, chunk.metadata, attributes)
                metadata = {key: value for key, value in merged.items() if value is not None}
                self.kept[id_] = replace(chunk, metadata=metadata), vector

    async def delete(self, chunk_ids: Sequence[str]) -> None:
        for id_ in chunk_ids:
            self.kept.pop(id_, None)

    async def heads(self) -> list[str]:
        parsed = map(parse_chunk_id, self.kept)
        return list(dict.fromkeys(chunk.document_id for chunk in parsed if not chunk.ordinal))

    async def document_ids(self) -> list[str]:
        return list(dict.fromkeys(parse_chunk_id(id_).document_id for id_ in self.kept))

    async def pages(self) -> AsyncGenerator[list[str], None]:
        end = len(self.kept)
        while end:
            start = max(0, end - self.page_ids)
            yield list(self.kept)[start:end]
            end = start

    async def chunks(self, chunk_ids: Sequence[str]) -> list[HeldChunk]:
        assert len(chunk_ids) <= 1000
        return [
            held_chunk(id_, self.kept[id_][0].metadata) for id_ in chunk_ids if id_ in self.kept
        ]

    async def words(self, chunk_ids: Sequence[str]) -> list[ChunkWords]:
        assert len(chunk_ids) <= 1000
        kept = [self.kept[id_][0] for id_ in chunk_ids if id_ in self.kept]
        return [ChunkWords(one.id, str(one.metadata[records.TITLE]), one.text) for one in kept]

    async def ids_of(self, document_ids: Sequence[str]) -> list[str]:
        assert len(document_ids) <= 1000
        return [id_ for id_ in self.kept if parse_chunk_id(id_).document_id in document_ids]

    async def contained(self, container_uri: str, version: int, limit: int) -> list[str]:
        held = [held_chunk(id_, chunk.metadata) for id_, (chunk, _) in self.kept.items()]
        found = [
            chunk.id
            for chunk in held
            if chunk.container_uri == container_uri and (not version or chunk.version <= version)
        ]
        return found[:limit]

    async def count(self) -> int:
        return len(self.kept)


class MemoryCatalog:
    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {}

    async def create(self, name: str) -> VectorStore:
        return self.stores.setdefault(name, MemoryStore())

    async def open(self, name: str) -> VectorStore:
        if name not in self.stores:
            raise NotFound("the vector store has no such collection")
        return self.stores[name]

    async def delete(self, name: str) -> None:
        self.stores.pop(name, None)


class FaultyStore:
    """Counts the calls of another store and fails one of them: before, half way or after it.

    ``before`` raises without a call, ``after`` raises though the call was done, ``half`` does the
    first half of a write, move or deletion in the order in which the store promises it.
    """

    def __init__(self, inner: VectorStore, *, fail_at: int = 0, moment: str = "before") -> None:
        self.inner = inner
        self.fail_at = fail_at
        self.moment = moment
        self.calls: list[str] = []

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if call in {"write", "move", "delete"}]

    @property
    def failed(self) -> bool:
        return 0 < self.fail_at <= len(self.calls)

    async def held(self, document_ids: Sequence[str]) -> Mapping[str, tuple[HeldChunk, ...]]:
        return await self._read("held", self.inner.held(document_ids))

    async def chunks(self, chunk_ids: Sequence[str]) -> list[HeldChunk]:
        return await self._read("chunks", self.inner.chunks(chunk_ids))

    async def words(self, chunk_ids: Sequence[str]) -> list[ChunkWords]:
        return await self._read("words", self.inner.words(chunk_ids))

    async def ids_of(self, document_ids: Sequence[str]) -> list[str]:
        return await self._read("ids_of", self.inner.ids_of(document_ids))

    async def contained(self, container_uri: str, version: int, limit: int) -> list[str]:
        return await self._read("contained", self.inner.contained(container_uri, version, limit))

    def pages(self) -> AsyncGenerator[list[str], None]:
        return self.inner.pages()

    async def write(self, chunks: Sequence[ChunkRecord], vectors: NDArray[np.float32]) -> None:
        others, heads = heads_last([chunk.ordinal for chunk in chunks])
        order = [*others, *heads]
        first = order[: len(order) // 2]
        await self._call(
            "write",
            lambda: self.inner.write(chunks, vectors),
            lambda: self.inner.write([chunks[index] for index in first], vectors[first]),
        )

    async def move(self, changes: Sequence[tuple[str, Attributes]]) -> None:
        others, heads = heads_last([parse_chunk_id(id_).ordinal for id_, _ in changes])
        order = [changes[index] for index in (*others, *heads)]
        await self._call(
            "move",
            lambda: self.inner.move(changes),
            lambda: self.inner.move(order[: len(order) // 2]),
        )

    async def delete(self, chunk_ids: Sequence[str]) -> None:
        others, heads = heads_last([parse_chunk_id(id_).ordinal for id_ in chunk_ids])
        order = [chunk_ids[index] for index in (*heads, *others)]
        await self._call(
            "delete",
            lambda: self.inner.delete(chunk_ids),
            lambda: self.inner.delete(order[: len(order) // 2]),
        )

    async def heads(self) -> list[str]:
        return await self.inner.heads()

    async def document_ids(self) -> list[str]:
        return await self.inner.document_ids()

    async def count(self) -> int:
        return await self.inner.count()

    async def _read(self, name: str, reading: Coroutine[Any, Any, T]) -> T:
        found: list[T] = []

        async def read() -> None:
            found.append(await reading)

        try:
            await self._call(name, read, read)
        finally:
            reading.close()  # not begun where it failed before
        return found[0]

    async def _call(
        self,
        name: str,
        whole: Callable[[], Awaitable[None]],
        half: Callable[[], Awaitable[None]],
    ) -> None:
        self.calls.append(name)
        if len(self.calls) != self.fail_at:
            await whole()
            return
        if self.moment == "after":
            await whole()
        elif self.moment == "half":
            await half()
        raise Unavailable("the store failed here")
