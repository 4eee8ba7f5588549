"""What an index version holds, read back from its store: documents to list, faults to report.

Reads only, a bounded number of documents at a time; the list of ids alone follows the size of the
store. What is written meanwhile may be missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer.reconcile import complete_heads, current
from indexer.store import batched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from indexer.reconcile import HeldChunk
    from indexer.store import VectorStore

MAX_FINDINGS = 100
_PAGE_DOCUMENTS = 256


@dataclass(frozen=True, slots=True)
class Verification:
    """What a version holds and what is wrong with it, at most ``MAX_FINDINGS`` lines."""

    documents: int
    chunks: int
    findings: tuple[str, ...]


async def documents(store: VectorStore, source_uri_prefix: str) -> AsyncGenerator[list[HeldChunk]]:
    """The heads of the documents held completely, each document once, in batches."""
    for page in batched(await store.heads(), _PAGE_DOCUMENTS):
        held = await store.held(page)
        heads = [head for chunks in held.values() if (head := current(chunks)) is not None]
        listed = [head for head in heads if head.source_uri.startswith(source_uri_prefix)]
        if listed:
            yield listed


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
