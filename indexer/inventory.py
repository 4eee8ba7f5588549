"""What an index version holds, read back from its store: documents to list, faults to report.

Reads only, a bounded number of documents at a time. A listing holds one page of ids, about 2 MB,
however many documents there are; a verification also holds every document's id, about 150 bytes
each. What is written meanwhile may be missed.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.identity import parse_chunk_id
from indexer.reconcile import complete_heads, is_complete
from indexer.store import batched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from indexer.reconcile import HeldChunk
    from indexer.store import VectorStore

MAX_FINDINGS = 100
_PAGE_DOCUMENTS = 256
_PAGE_HEADS = 1000
# Chunks asked for at once to see that they are there.
_PAGE_CHUNKS = 20_000


@dataclass(frozen=True, slots=True)
class Verification:
    """What a version holds and what is wrong with it, at most ``MAX_FINDINGS`` lines."""

    documents: int
    chunks: int
    findings: tuple[str, ...]


async def documents(store: VectorStore, source_uri_prefix: str) -> AsyncGenerator[list[HeldChunk]]:
    """The heads of the documents held completely, at most 1,000 at a time, or none for now.

    A document that is there all the time is listed, and once: only where the head of its newest
    revision stands. (Twice, if 20,000 chunks are deleted while a page is listed.)
    """
    listed: set[str] = set()
    async with aclosing(store.pages()) as pages:
        async for ids in pages:
            fresh = [id_ for id_ in ids if not parse_chunk_id(id_).ordinal and id_ not in listed]
            listed.clear()  # deletions bring back only the last page's
            for some in batched(fresh, _PAGE_HEADS):
                heads = await _newest(store, await store.chunks(some))
                listed.update(head.id for head in heads)
                yield [head for head in heads if head.source_uri.startswith(source_uri_prefix)]


async def _newest(store: VectorStore, heads: Sequence[HeldChunk]) -> list[HeldChunk]:
    """Those of the heads whose revision is complete and the newest such of their documents."""
    found: list[HeldChunk] = []
    for some in _by_chunks(heads):
        ids = set(await store.ids_of(list({head.document_id for head in some})))
        known = {head.id for head in some}
        # A document has a second head only while it is replaced, or after a crash.
        rivals = [id_ for id_ in ids - known if not parse_chunk_id(id_).ordinal]
        newest: dict[str, HeldChunk] = {}
        for head in [*some, *(await store.chunks(rivals))]:
            other = newest.get(head.document_id, head)
            if is_complete(head, ids) and (head.version, head.id) >= (other.version, other.id):
                newest[head.document_id] = head
        found += [head for head in newest.values() if head.id in known]
    return found


def _by_chunks(heads: Sequence[HeldChunk]) -> Iterator[list[HeldChunk]]:
    """The heads in lots of no more chunks than can be asked for at once, or of one document."""
    lot: list[HeldChunk] = []
    chunks = 0
    for head in heads:
        if lot and chunks + head.chunk_count > _PAGE_CHUNKS:
            yield lot
            lot, chunks = [], 0
        lot.append(head)
        chunks += head.chunk_count
    if lot:
        yield lot


async def verify(store: VectorStore, *, expected_documents: int | None) -> Verification:
    """Check every document and count; documents count when one revision of them is complete."""
    findings: list[str] = []
    complete = chunks = 0
    for page in batched(await store.document_ids(), _PAGE_DOCUMENTS):
        for document_id, held in (await store.held(page)).items():
            chunks += len(held)
            complete += bool(complete_heads(held))
            if fault := _fault(held):
                findings.append(f"document {document_id}: {fault}")
    if expected_documents is not None and complete != expected_documents:
        findings.insert(0, f"holds {complete} complete documents, expected {expected_documents}")
    if len(findings) > MAX_FINDINGS:
        more = len(findings) - MAX_FINDINGS + 1
        findings[MAX_FINDINGS - 1 :] = [f"and {more} more findings"]
    return Verification(complete, chunks, tuple(findings))


def _fault(held: Sequence[HeldChunk]) -> str:
    heads = complete_heads(held)
    if not heads:
        return "chunks are missing; send it again"
    if len(heads) > 1 or len(held) != heads[0].chunk_count:
        return "chunks of another state are left; send it again"
    if len({(chunk.version, chunk.attributes) for chunk in held}) > 1:
        return "its chunks differ in version or metadata; send it again"
    return ""
