"""What an index version holds, read back from its store: documents to list, states to check.

Reads only, a bounded number of documents at a time, and holds one page of ids, about 4 MB, however
many documents there are. What is written meanwhile may be missed, or met half written.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.identity import parse_chunk_id
from indexer.reconcile import complete_heads, is_complete
from indexer.store import batched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

    from indexer.reconcile import HeldChunk
    from indexer.store import VectorStore

_PAGE_DOCUMENTS = 256
_PAGE_HEADS = 1000
# Chunks asked for at once to see that they are there.
_PAGE_CHUNKS = 20_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A document: the head of its newest complete revision, or of a fragment the newest chunk."""

    chunk: HeldChunk
    fragment: bool = False


async def documents(
    store: VectorStore, source_uri_prefix: str, *, fragments: bool = False
) -> AsyncGenerator[list[Listed]]:
    """The documents held completely, at most 1,000 at a time, or none for now.

    A document that is there all the time is listed, and once: only where the head of its newest
    revision stands. (Twice, if 20,000 chunks are deleted while a page is listed.)

    Args:
        store: is read.
        source_uri_prefix: of the documents.
        fragments: also documents of which no revision is complete.
    """
    listed: set[str] = set()
    async with aclosing(store.pages()) as pages:
        async for ids in pages:
            fresh = [id_ for id_ in ids if not parse_chunk_id(id_).ordinal and id_ not in listed]
            listed.clear()  # deletions bring back only the last page's
            for some in batched(fresh, _PAGE_HEADS):
                heads = await _newest(store, await store.chunks(some))
                listed.update(head.id for head in heads)
                yield _under(source_uri_prefix, map(Listed, heads))
            if fragments:
                whole = {parse_chunk_id(id_).document_id for id_ in listed}
                others = {parse_chunk_id(id_).document_id for id_ in ids} - whole
                for lot in batched(sorted(others), _PAGE_DOCUMENTS):
                    yield _under(source_uri_prefix, await _fragments(store, lot, set(ids)))


def _under(source_uri_prefix: str, found: Iterable[Listed]) -> list[Listed]:
    return [one for one in found if one.chunk.source_uri.startswith(source_uri_prefix)]


async def _fragments(store: VectorStore, lot: Sequence[str], page: set[str]) -> list[Listed]:
    """Those of the documents that no head makes whole, each on the page with its least chunk id."""
    held = await store.held(lot)
    return [
        Listed(max(chunks, key=lambda chunk: (chunk.version, chunk.id)), fragment=True)
        for chunks in held.values()
        if not complete_heads(chunks) and min(chunk.id for chunk in chunks) in page
    ]


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


async def states(store: VectorStore) -> AsyncGenerator[dict[str, tuple[HeldChunk, ...]]]:
    """All documents with everything held of each, 1 to 256 at a time.

    A document that is there all the time and does not change is met, and once: with the page that
    the least of its chunk ids stands on. (Twice, if 20,000 chunks are deleted meanwhile.)
    """
    met: set[str] = set()
    async with aclosing(store.pages()) as pages:
        async for ids in pages:
            here = set(ids)
            documents = dict.fromkeys(parse_chunk_id(id_).document_id for id_ in ids)
            fresh = [document_id for document_id in documents if document_id not in met]
            met.clear()  # deletions bring back only the last page's
            for some in batched(fresh, _PAGE_DOCUMENTS):
                held = await store.held(some)
                found = {
                    document_id: chunks
                    for document_id, chunks in held.items()
                    if min(chunk.id for chunk in chunks) in here
                }
                met.update(found)
                if found:
                    yield found
