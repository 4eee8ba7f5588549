"""The corpus of a judged data set in a collection of the server: written once, then used again.

A collection's name holds the digest of its corpus, so another corpus has another one. Nothing is
measured here, and what stands in a collection that is whole is never written again.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote

from client.answers import SearchQuery
from client.indexing import Document
from common.errors import FailedPrecondition, NotFound
from common.identity import document_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from client.answers import Explanation, RerankMode
    from client.client import SluiceClient
    from client.evaluating.judged_set import JudgedDocument, JudgedSet
    from client.versions import IndexVersion

    Progress = Callable[[str, int, int], None]

DOCUMENT_VERSION = 1
# The indexer counts a version's words some seconds after its last write.
STATISTICS_WAIT_S = 60.0
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Written:
    """A corpus in its collection.

    Attributes:
        collection: its name.
        token: of the last write, to read it at once; empty if nothing had to be written.
    """

    collection: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a collection ranks words with.

    Attributes:
        version: the active one.
        explanation: how the server answered a first query by meaning and words.
        whole: whether words were counted over the version as it is; else over the candidates, or
            over a version that has changed since.
    """

    version: IndexVersion
    explanation: Explanation
    whole: bool


def collection_name(judged: JudgedSet) -> str:
    """The collection of a corpus: its name and digest, so that another corpus has another one."""
    name = re.sub(r"[^a-z0-9_-]+", "-", judged.name.lower()).strip("-_") or "corpus"
    return f"{name[:64]}-{judged.digest[:12]}"


def document_names(judged: JudgedSet) -> Mapping[str, str]:
    """The id that each document has in the corpus, by the id it has in the index."""
    return {document_id(_uri(judged, document.id)): document.id for document in judged.documents()}


async def write_corpus(
    client: SluiceClient,
    judged: JudgedSet,
    progress: Progress,
    modes: Mapping[str, RerankMode] | None = None,
) -> Written:
    """Index the corpus, unless a collection holds it completely.

    Args:
        client: open.
        judged: whose corpus.
        progress: told of every document.
        modes: that will be asked for, by name: what the server cannot is known before it indexes.

    Raises:
        FailedPrecondition: the server rejected a document, or lacks a mode.
    """
    collection = collection_name(judged)
    held = await _holds(client, collection, judged.size)
    if not held:
        await client.create(collection, if_absent=True)
    for name, mode in (modes or {}).items():
        await _try(client, judged, collection, name, mode)
    return Written(collection, "" if held else await _write(client, judged, collection, progress))


async def await_statistics(
    client: SluiceClient, judged: JudgedSet, written: Written, *, wait_s: float, progress: Progress
) -> Counted:
    """Wait until the server ranks with words counted over the active version as it is.

    A server that never publishes such counts ranks with those of the candidates: after ``wait_s``
    seconds that is what is told. 0 looks once.

    Raises:
        FailedPrecondition: the collection has no active version.
    """
    question = SearchQuery(
        judged.queries[0].text, written.collection, rerank="fused", at_least=written.token,
        explain=True,
    )  # fmt: skip
    end = monotonic() + wait_s
    while True:
        version = (await client.describe(written.collection)).active_version
        explanation = (await client.search(question)).explanation
        if version is None or explanation is None:
            raise FailedPrecondition(f"{written.collection} has no active version to be measured")
        published = version.word_statistics.chunks if version.word_statistics else 0
        whole = (
            explanation.corpus_statistics
            and published == explanation.statistics_chunks == version.chunks
        )
        if whole or monotonic() >= end:
            return Counted(version, explanation, whole)
        progress("counting words", published, version.chunks or 0)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _holds(client: SluiceClient, collection: str, documents: int) -> bool:
    try:
        found = await client.describe(collection)
    except NotFound:
        return False
    active = found.active_version
    return active is not None and active.documents == documents


async def _try(
    client: SluiceClient, judged: JudgedSet, collection: str, name: str, mode: RerankMode
) -> None:
    question = SearchQuery(judged.queries[0].text, collection, top_k=1, rerank=mode)
    # A query server may hear of a new collection a moment later.
    with suppress(NotFound):
        try:
            await client.search(question)
        except FailedPrecondition as error:
            raise FailedPrecondition(
                f"mode {name}: {error.message}; or leave the mode out of --modes"
            ) from error


async def _write(
    client: SluiceClient, judged: JudgedSet, collection: str, progress: Progress
) -> str:
    async def documents() -> AsyncIterator[Document]:
        for document in judged.documents():
            yield _to_index(judged, document)

    outcomes: Counter[str] = Counter()
    token = ""
    stream = client.index_documents(documents(), collection=collection, job_id="eval")
    async for acknowledgement in stream:
        if acknowledgement.outcome == "rejected":
            raise FailedPrecondition(
                f"document {acknowledgement.document_id} was rejected: {acknowledgement.message}"
            )
        outcomes[acknowledgement.outcome] += 1
        token = acknowledgement.consistency_token
        progress("indexing", outcomes.total(), judged.size)
    return token


def _to_index(judged: JudgedSet, document: JudgedDocument) -> Document:
    # The title leads the text, as BEIR's own baselines feed it to an encoder.
    content = f"{document.title}\n\n{document.text}" if document.title else document.text
    return Document(
        source_uri=_uri(judged, document.id),
        content=content,
        version=DOCUMENT_VERSION,
        title=document.title,
    )


def _uri(judged: JudgedSet, id_: str) -> str:
    return f"beir://{quote(judged.name, safe='')}/{quote(id_, safe='')}"
