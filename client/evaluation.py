"""Measures how well Sluice ranks: a judged collection is indexed and asked over the real services.

What is measured is what a user gets: chunks, candidates and fusion of the server as it is. The
best-ranked chunk of a document stands for it. A corpus is written once; a collection that holds it
completely is used again.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import quote

from client import metrics
from client.answers import SearchQuery
from client.indexing import Document
from common.errors import FailedPrecondition, NotFound
from common.identity import document_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from client.answers import RerankMode
    from client.client import SluiceClient
    from client.judged import JudgedDocument, JudgedQuery, JudgedSet

    Progress = Callable[[str, int, int], None]

# Chunks asked for: enough that 100 documents are among them where documents are a few chunks long,
# and no more than the candidates a server takes by default, so that ranking is what users get.
DEFAULT_DEPTH = 200
DOCUMENT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """What one mode reached: means over the queries, and milliseconds of a whole call."""

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    p50_ms: float
    p99_ms: float

    def to_json(self) -> dict[str, float]:
        """The figures under the names that reports use."""
        return {
            "ndcg@10": self.ndcg_at_10,
            "recall@100": self.recall_at_100,
            "mrr@10": self.mrr_at_10,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
        }


def collection_name(judged: JudgedSet) -> str:
    """The collection of a corpus: its name and digest, so that another corpus has another one."""
    name = re.sub(r"[^a-z0-9_-]+", "-", judged.name.lower()).strip("-_") or "corpus"
    return f"{name[:64]}-{judged.digest[:12]}"


async def write_corpus(client: SluiceClient, judged: JudgedSet, progress: Progress) -> str:
    """Index the corpus, unless a collection holds it completely.

    Returns:
        The collection's name.

    Raises:
        FailedPrecondition: the server rejected a document.
    """
    collection = collection_name(judged)
    total = sum(1 for _ in judged.documents())
    if await _holds(client, collection, total):
        return collection
    await client.create(collection, if_absent=True)

    async def documents() -> AsyncIterator[Document]:
        for document in judged.documents():
            yield _to_index(judged, document)

    outcomes: Counter[str] = Counter()
    stream = client.index_documents(documents(), collection=collection, job_id="eval")
    async for acknowledgement in stream:
        if acknowledgement.outcome == "rejected":
            raise FailedPrecondition(
                f"document {acknowledgement.document_id} was rejected: {acknowledgement.message}"
            )
        outcomes[acknowledgement.outcome] += 1
        progress("indexing", outcomes.total(), total)
    return collection


async def measure(
    client: SluiceClient,
    judged: JudgedSet,
    collection: str,
    mode: RerankMode,
    *,
    depth: int = DEFAULT_DEPTH,
    progress: Progress,
) -> Figures:
    """Ask every query once, one after the other, and measure what came back."""
    names = {document_id(_uri(judged, document.id)): document.id for document in judged.documents()}
    latencies: list[float] = []
    ndcg, recall, reciprocal = [], [], []
    # The first call connects and fills caches that every later one finds.
    await client.search(_question(judged.queries[0], collection, mode, depth))
    for query in judged.queries:
        started = perf_counter()
        response = await client.search(_question(query, collection, mode, depth))
        latencies.append((perf_counter() - started) * 1000)
        ranking = _documents([names[hit.document_id] for hit in response.hits])
        ndcg.append(metrics.ndcg(ranking, query.grades, 10))
        recall.append(metrics.recall(ranking, query.grades, 100))
        reciprocal.append(metrics.reciprocal_rank(ranking, query.grades, 10))
        progress(mode, len(latencies), len(judged.queries))
    return Figures(
        ndcg_at_10=_mean(ndcg),
        recall_at_100=_mean(recall),
        mrr_at_10=_mean(reciprocal),
        p50_ms=metrics.percentile(latencies, 0.50),
        p99_ms=metrics.percentile(latencies, 0.99),
    )


async def _holds(client: SluiceClient, collection: str, documents: int) -> bool:
    try:
        found = await client.describe(collection)
    except NotFound:
        return False
    active = found.active_version
    return active is not None and active.documents == documents


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


def _question(query: JudgedQuery, collection: str, mode: RerankMode, depth: int) -> SearchQuery:
    return SearchQuery(
        text=query.text, collection=collection, top_k=depth, candidates=depth, rerank=mode
    )


def _documents(hits: Sequence[str]) -> list[str]:
    """Each document once, where its best chunk stands."""
    return list(dict.fromkeys(hits))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
