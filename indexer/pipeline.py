"""The way of a batch: check, reconcile, chunk, embed, write, delete what was replaced.

This is the commit rule. A batch holds its documents from before the store is asked what it holds of
them until the last chunk of their earlier states is gone, and a result is returned only after that
is durable. Whatever fails in between leaves a state that sending the batch again heals. A batch
under way is never cancelled: a store call that was left to itself could finish after a later batch
had taken over its documents. It is told to stop, and does between two calls.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from common.errors import InvalidArgument, Unavailable
from common.identity import chunk_id
from common.telemetry import Metric, Stage, count, describe_exception, span
from indexer.document import Document, Rejected, RejectionCause, check
from indexer.document_locks import DocumentLocks
from indexer.nodes import attributes_of, chunk_record
from indexer.reconcile import Superseded, Unchanged, Write, current, decide, remove
from indexer.store import batched
from indexer.target import changing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from indexer.chunking import Chunk, Chunker
    from indexer.containers import ContainerDeletion
    from indexer.nodes import Attributes
    from indexer.reconcile import HeldChunk
    from indexer.settings import IndexerSettings
    from indexer.store import VectorStore
    from indexer.target import Target

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Indexed:
    """Written; the chunks of earlier states are gone."""

    chunk_count: int


Outcome: TypeAlias = Indexed | Unchanged | Superseded | Rejected


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one document."""

    document_id: str
    version: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Deletion:
    """Delete a document if the store holds this version of it or an older one; 0 is any."""

    document_id: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class Deleted:
    """The document is gone; ``found`` tells whether it was there."""

    found: bool


@dataclass(slots=True)
class _Plan:
    """A document to be written: its chunks, and the ids of those held before."""

    document: Document
    revision: str
    chunks: list[Chunk]
    held: tuple[str, ...]
    refusal: Rejected | None = None

    def written(self) -> set[str]:
        document_id = self.document.document_id
        return {chunk_id(document_id, self.revision, chunk.ordinal) for chunk in self.chunks}


class IndexPipeline:
    """Takes batches of any stream through the commit rule, a bounded number at a time."""

    def __init__(
        self,
        settings: IndexerSettings,
        *,
        chunker: Chunker,
        embedding: BaseEmbedding,
        tokenizer: str,
    ) -> None:
        """Construct a pipeline.

        Args:
            settings: the bounds.
            chunker: cuts texts, in a thread.
            embedding: any LlamaIndex embedding.
            tokenizer: names what counts the chunker's tokens. It shapes chunks as the chunking
                does, so it is part of a revision: the same chunk id means the same text even in
                two index versions with different models.
        """
        self._settings = settings
        self._chunker = chunker
        self._embedding = embedding
        self._shape = f"{chunker.spec.fingerprint()}/{tokenizer}"
        self._locks = DocumentLocks()
        self._slots = asyncio.Semaphore(settings.max_batches_in_flight)
        self._threads = ThreadPoolExecutor(settings.chunking_threads, "chunking")
        self._running: set[asyncio.Task[Any]] = set()

    def submit(
        self, target: Target, documents: Sequence[Document], stop: asyncio.Event
    ) -> asyncio.Task[list[Result]]:
        """Begin to index a batch, after those submitted before that share a document with it.

        Await the task shielded, or leave it; it must not be cancelled. It ends soon after ``stop``
        is set.

        Args:
            target: where to write.
            documents: of different ids; not yet checked.
            stop: set when nobody waits for the results any more.
        """
        return self._begin(self._index(target, documents, stop))

    async def delete(
        self, target: Target, deletions: Sequence[Deletion]
    ) -> list[Deleted | Superseded]:
        """Delete documents of different ids."""
        return await asyncio.shield(self._begin(self._delete(target, deletions)))

    async def delete_contained(
        self, target: Target, deletion: ContainerDeletion, document_ids: Sequence[str]
    ) -> int:
        """Delete those of these documents that the deletion of a container is about; their number.

        Of those that stay it deletes what is left of earlier states.
        """
        return await asyncio.shield(
            self._begin(self._delete_contained(target, deletion, document_ids))
        )

    async def mend(
        self,
        target: Target,
        document_ids: Sequence[str],
        doomed: Callable[[Mapping[str, Sequence[HeldChunk]]], Sequence[str]],
    ) -> int:
        """Delete the chunks that ``doomed`` names of what is held of these documents; how many."""
        return await asyncio.shield(self._begin(self._mend(target, document_ids, doomed)))

    async def aclose(self) -> None:
        """Wait for the batches under way and release the threads."""
        if self._running:
            await asyncio.wait(self._running)
        await asyncio.to_thread(self._threads.shutdown)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin what must not be cut in the middle, even if whoever waits for it is cancelled."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if the stream that waited is gone

    async def _delete(
        self, target: Target, deletions: Sequence[Deletion]
    ) -> list[Deleted | Superseded]:
        ids = [deletion.document_id for deletion in deletions]
        async with self._locks.holding(target.name, ids), changing(target):
            held = await target.store.held(ids)
            doomed: list[str] = []
            outcomes: list[Deleted | Superseded] = []
            for deletion in deletions:
                chunks = held.get(deletion.document_id, ())
                head = current(chunks)
                if head is not None and 0 < deletion.version < head.version:
                    outcomes.append(Superseded(head.version))
                    continue
                doomed.extend(chunk.id for chunk in chunks)
                outcomes.append(Deleted(found=head is not None))
            with span(Stage.INDEX_DELETE, chunks=len(doomed)):
                await target.store.delete(doomed)
            return outcomes

    async def _delete_contained(
        self, target: Target, deletion: ContainerDeletion, document_ids: Sequence[str]
    ) -> int:
        async with self._locks.holding(target.name, document_ids), changing(target):
            held = await target.store.held(document_ids)
            removals = [
                remove(chunks, deletion.container_uri, deletion.version) for chunks in held.values()
            ]
            doomed = [id_ for removal in removals for id_ in removal.chunks]
            with span(Stage.INDEX_DELETE, chunks=len(doomed)):
                await target.store.delete(doomed)
            return sum(removal.document for removal in removals)

    async def _mend(
        self,
        target: Target,
        document_ids: Sequence[str],
        doomed: Callable[[Mapping[str, Sequence[HeldChunk]]], Sequence[str]],
    ) -> int:
        async with self._locks.holding(target.name, document_ids), changing(target):
            ids = doomed(await target.store.held(document_ids))
            with span(Stage.INDEX_DELETE, chunks=len(ids)):
                await target.store.delete(ids)
            return len(ids)

    async def _index(
        self, target: Target, documents: Sequence[Document], stop: asyncio.Event
    ) -> list[Result]:
        keys = [document.key for document in documents]
        async with self._locks.holding(target.name, keys), self._slots, changing(target):
            _go_on(stop)
            checked = await self._in_thread(self._check, documents)
            valid = [document for document in checked if isinstance(document, Document)]
            outcomes, plans = await self._reconcile(target.store, valid, stop)
            await self._delete_unfinished(target.store, plans)
            await self._write(target.store, plans, stop)
            await self._delete_replaced(target.store, plans)
        for plan in plans:
            outcomes[plan.document.document_id] = plan.refusal or Indexed(len(plan.chunks))
        results = [
            Result(
                document.key,
                document.version,
                found if isinstance(found, Rejected) else outcomes[document.key],
            )
            for document, found in zip(documents, checked, strict=True)
        ]
        for result in results:
            count(Metric.DOCUMENTS, 1, outcome=type(result.outcome).__name__.lower())
        return results

    async def _reconcile(
        self, store: VectorStore, documents: Sequence[Document], stop: asyncio.Event
    ) -> tuple[dict[str, Outcome], list[_Plan]]:
        """Decide, bring what is unchanged up to date, and chunk what is to be written."""
        outcomes: dict[str, Outcome] = {}
        writes: list[tuple[Document, str, Write]] = []
        moves: list[tuple[str, Attributes]] = []
        surplus: list[str] = []
        with span(Stage.INDEX_RECONCILE, documents=len(documents)) as active:
            held = await store.held([document.document_id for document in documents])
            for document in documents:
                attributes = attributes_of(document)
                revision = document.revision(self._shape)
                match decide(held.get(document.document_id, ()), revision, attributes):
                    case Write() as write:
                        writes.append((document, revision, write))
                    case Unchanged() as unchanged:
                        outcomes[document.document_id] = unchanged
                        moves.extend((id_, attributes) for id_ in unchanged.stale)
                        surplus.extend(unchanged.surplus)
                    case superseded:
                        outcomes[document.document_id] = superseded
            del held
            active.set("writes", len(writes))
            _go_on(stop)
            if moves:
                await store.move(moves)
        if surplus:
            with span(Stage.INDEX_DELETE, chunks=len(surplus)):
                await store.delete(surplus)
        if not writes:
            return outcomes, []
        with span(Stage.INDEX_CHUNK, documents=len(writes)) as active:
            plans = []
            for document, revision, decision in writes:
                _go_on(stop)
                planned = await self._in_thread(self._plan, document, revision, decision.held)
                if isinstance(planned, Rejected):
                    outcomes[document.document_id] = planned
                else:
                    plans.append(planned)
            active.set("chunks", sum(len(plan.chunks) for plan in plans))
        return outcomes, plans

    async def _write(self, store: VectorStore, plans: Sequence[_Plan], stop: asyncio.Event) -> None:
        """Embed and write a slice at a time; heads come after all other chunks of the batch."""
        tails = ((plan, chunk) for plan in plans for chunk in plan.chunks[1:])
        heads = ((plan, plan.chunks[0]) for plan in plans if plan.refusal is None)
        for some in batched(chain(tails, heads), self._settings.slice_chunks):
            _go_on(stop)
            with span(Stage.INDEX_EMBED, chunks=len(some)):
                kept, vectors = await self._embed(some)
            _go_on(stop)
            if not kept:
                continue
            with span(Stage.INDEX_WRITE, chunks=len(kept)):
                rows = [
                    chunk_record(plan.document, plan.revision, chunk, len(plan.chunks))
                    for plan, chunk in kept
                ]
                await store.write(rows, vectors)
            count(Metric.CHUNKS, len(kept))

    async def _embed(
        self, some: Sequence[tuple[_Plan, Chunk]]
    ) -> tuple[Sequence[tuple[_Plan, Chunk]], NDArray[np.float32]]:
        """Vectors of a slice, without the documents that the embedder refuses."""
        some = [(plan, chunk) for plan, chunk in some if plan.refusal is None]
        try:
            return some, await self._vectors([chunk.text for _, chunk in some])
        except InvalidArgument:
            pass  # one of them is refused: ask one by one which
        rows = []
        for plan, chunk in some:
            if plan.refusal is None:
                try:
                    rows.append((plan, chunk, await self._vectors([chunk.text])))
                except InvalidArgument as error:
                    plan.refusal = Rejected(RejectionCause.NOT_EMBEDDABLE, error.message)
        rows = [row for row in rows if row[0].refusal is None]
        vectors = [vector for _, _, vector in rows]
        empty = np.empty((0, 0), np.float32)
        return [(plan, chunk) for plan, chunk, _ in rows], np.concatenate(vectors or [empty])

    async def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, 0), np.float32)
        return np.asarray(await self._embedding.aget_text_embedding_batch(texts), np.float32)

    async def _delete_unfinished(self, store: VectorStore, plans: Iterable[_Plan]) -> None:
        """Delete what is left of the same revision: written over, it might keep old metadata."""
        doomed = [id_ for plan in plans for id_ in sorted(plan.written().intersection(plan.held))]
        if doomed:
            with span(Stage.INDEX_DELETE, chunks=len(doomed)):
                await store.delete(doomed)

    async def _delete_replaced(self, store: VectorStore, plans: Iterable[_Plan]) -> None:
        doomed: list[str] = []
        for plan in plans:
            written = plan.written()
            # A refused document stays as it was: what was written of it goes instead.
            doomed += written if plan.refusal else set(plan.held) - written
        if doomed:
            with span(Stage.INDEX_DELETE, chunks=len(doomed)):
                await store.delete(doomed)

    def _check(self, documents: Sequence[Document]) -> list[Document | Rejected]:
        limit = self._settings.max_document_bytes
        return [check(document, max_document_bytes=limit) for document in documents]

    def _plan(self, document: Document, revision: str, held: tuple[str, ...]) -> _Plan | Rejected:
        try:
            chunks = self._chunker.chunk(document.content, document.pages)
        except Exception as error:  # noqa: BLE001 — what no splitter foresaw stops one text, not all
            named = {"document_id": document.document_id, **describe_exception(error)}
            logger.error("a text cannot be cut into chunks", extra=named)  # noqa: TRY400 — no text in logs
            message = f"the text cannot be cut into chunks ({type(error).__name__})"
            return Rejected(RejectionCause.NOT_CHUNKABLE, message)
        return _Plan(document, revision, chunks, held)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *arguments))


def _go_on(stop: asyncio.Event) -> None:
    if stop.is_set():
        raise Unavailable("the stream ended before the batch was written; send it again")
