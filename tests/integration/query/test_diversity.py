"""Answers from a real index that say nothing twice, from no document too much, and in one piece."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from common import records
from common.coordination import ChunkingSpec
from indexer.chunking import SentenceChunker
from query.ranking import RerankMode
from query.selection import MIN_WINDOW
from tests.integration.query.asking import QUOTA, MovingIndex, ask, uris
from tests.integration.query.written_index import Document, WrittenIndex

if TYPE_CHECKING:
    from common.records import MetadataValue
    from query.chunks import StoredChunk
    from query.index_version import IndexVersion
    from query.search_result import Hit
    from tests.integration.query.asking import OpenSearcher

RUNBOOK = Document(
    "hdfs://lake/runbook.md",
    ["When the namenode fails, promote the standby and fence the old one."],
    title="Runbook",
    metadata={"lang": "en"},
)
COPY = replace(RUNBOOK, uri="hdfs://lake/old/runbook.md", title="Runbook (copy)")
MAILED = replace(
    RUNBOOK,
    uri="hdfs://mail/4711.eml",
    chunks=["WHEN the namenode fails: promote the standby, and fence the old one!"],
    title="",
    metadata={"lang": "de"},
)
CONTENT = "".join(
    f"Step {n} of the namenode's {['failover', 'journal', 'standby'][n % 3]} takes {n} minutes."
    + (" " if n % 4 else "\n\n")
    for n in range(1, 40)
).strip()


@dataclass(frozen=True)
class Cut(Document):
    """A document cut by the indexer's own chunker, with overlaps."""

    spans: tuple[tuple[int, int], ...] = field(default=())

    @classmethod
    def of(cls, uri: str, content: str, *, overlap: int = 12) -> Cut:
        spec = ChunkingSpec("sentence", 40, overlap)
        chunks = SentenceChunker(spec, lambda text: len(text.split())).chunk(content)
        return cls(
            uri,
            [chunk.text for chunk in chunks],
            spans=tuple((chunk.start, chunk.end) for chunk in chunks),
        )

    def stored(self, ordinal: int) -> dict[str, MetadataValue]:
        start, end = self.spans[ordinal]
        return {**super().stored(ordinal), records.START: start, records.END: end}


def places(hit: Hit) -> list[tuple[str, str]]:
    return [(copy.source_uri, copy.title) for copy in hit.duplicates]


@pytest.mark.parametrize("mode", [RerankMode.DENSE, RerankMode.FUSED, RerankMode.LEXICAL])
async def test_a_text_in_three_files_counts_once_and_lists_its_sources(
    index: WrittenIndex, open_searcher: OpenSearcher, mode: RerankMode
):
    await index.holding(RUNBOOK, COPY, MAILED, QUOTA)
    result = await ask(await open_searcher(), "namenode standby", mode=mode, top_k=2)
    first, second = result.hits
    assert second.source_uri == QUOTA.uri
    told = [(first.source_uri, first.title), *places(first)]
    assert sorted(told) == sorted((one.uri, one.title) for one in (RUNBOOK, COPY, MAILED))
    [copy, _] = first.duplicates
    assert copy.span == (0, len(RUNBOOK.chunks[0]))
    assert copy.chunk_id.startswith(copy.document_id)
    assert second.duplicates == ()


async def test_kept_duplicates_stand_side_by_side(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(RUNBOOK, COPY, MAILED)
    result = await ask(await open_searcher(), "namenode", keep_duplicates=True)
    assert sorted(uris(result)) == sorted([RUNBOOK.uri, COPY.uri, MAILED.uri])
    assert not any(hit.duplicates for hit in result.hits)


async def test_what_the_filter_leaves_out_is_listed_nowhere(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(RUNBOOK, COPY, MAILED)
    result = await ask(await open_searcher(), "namenode", filter_text='lang = "en"')
    [hit] = result.hits
    assert {hit.source_uri, *(copy.source_uri for copy in hit.duplicates)} == {
        RUNBOOK.uri,
        COPY.uri,
    }


async def test_a_document_on_its_way_is_listed_nowhere(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    unfinished = replace(COPY, chunks=["A head.", *COPY.chunks])
    await index.holding(RUNBOOK)
    await index.write(unfinished, ordinals=[1])
    [hit] = (await ask(await open_searcher(), "namenode")).hits
    assert (hit.source_uri, hit.duplicates) == (RUNBOOK.uri, ())
    await index.write(unfinished)
    hits = (await ask(await open_searcher(), "promote the standby namenode")).hits
    assert {copy.document_id for copy in hits[0].duplicates} <= {RUNBOOK.id, COPY.id}
    assert len(hits[0].duplicates) == 1


async def test_log_lines_about_other_machines_all_stand(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    line = "the namenode {} failed over, its journal was replayed, and no block was lost of it"
    lines = [line.format(f"NN-HA-{number}") for number in (42, 43, 44, 42)]
    long = [" ".join([one, *["while the observer served reads as ever"] * 12]) for one in lines]
    await index.holding(*(Document(f"file:///{n}.log", [one]) for n, one in enumerate(long)))
    result = await ask(await open_searcher(), "namenode failed over")
    assert sorted(hit.text for hit in result.hits) == sorted(set(long))
    assert sum(len(hit.duplicates) for hit in result.hits) == 1


async def test_no_document_has_more_hits_than_asked(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    much = Document("file:///much", [f"The namenode's chapter {word}." for word in "abcdefgh"])
    await index.holding(much, RUNBOOK, QUOTA)
    result = await ask(await open_searcher(), "namenode chapter", max_per_document=2, top_k=4)
    assert uris(result)[:2] == [much.uri] * 2
    assert sorted(uris(result)[2:]) == sorted([RUNBOOK.uri, QUOTA.uri])


@pytest.mark.parametrize("overlap", [12, 0])
async def test_neighbours_are_one_passage_of_the_document(
    index: WrittenIndex, open_searcher: OpenSearcher, overlap: int
):
    document = Cut.of("file:///steps", CONTENT, overlap=overlap)
    assert len(document.chunks) > 5
    await index.holding(document, QUOTA)
    result = await ask(await open_searcher(), "namenode step minutes", merge_neighbours=True)
    [hit] = [hit for hit in result.hits if hit.source_uri == document.uri]
    assert hit.merged_chunk_ids == tuple(document.ids)
    assert hit.chunk_id in document.ids
    assert hit.span == (0, len(CONTENT))
    assert len(hit.text) == len(CONTENT)
    assert hit.text.split() == CONTENT.split()
    if overlap:
        assert hit.text == CONTENT
    assert [hit.text[start:end].lower() for start, end in hit.highlights[:3]] == [
        "step",
        "namenode",
        "minutes",
    ]
    assert [hit.score for hit in result.hits] == sorted(
        (hit.score for hit in result.hits), reverse=True
    )


async def test_a_passage_of_some_chunks_is_what_stands_there(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    document = Cut.of("file:///steps", CONTENT)
    await index.holding(document)
    searcher = await open_searcher()
    for count in (2, 3):
        result = await ask(
            searcher, "standby", top_k=count, candidate_count=4, merge_neighbours=True
        )
        for hit in result.hits:
            start, end = hit.span
            assert hit.text == CONTENT[start:end]
        alone = await ask(searcher, "standby", top_k=4, candidate_count=4)
        merged = [name for hit in result.hits for name in hit.merged_chunk_ids or [hit.chunk_id]]
        assert set(merged) <= {hit.chunk_id for hit in alone.hits}


async def test_copies_of_a_file_merge_into_one_passage(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    copies = [Cut.of(f"file:///{n}/steps", CONTENT) for n in range(3)]
    await index.holding(*copies)
    result = await ask(await open_searcher(), "namenode step", merge_neighbours=True)
    [hit] = result.hits
    assert hit.text == CONTENT
    shown = next(copy for copy in copies if copy.uri == hit.source_uri)
    listed = {name.chunk_id for name in hit.duplicates}
    assert listed == {name for copy in copies if copy is not shown for name in copy.ids}


async def test_texts_are_read_of_few_candidates(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(*(Document(f"file:///{n}", [f"namenode {n}"]) for n in range(60)))
    read: list[str] = []

    class Watched(MovingIndex):
        async def stored(
            self, version: IndexVersion, ids: Any, *, texts: bool
        ) -> dict[str, StoredChunk]:
            read.extend(ids if texts else ())
            return await super().stored(version, ids, texts=texts)

    searcher = await open_searcher(source=Watched(index))
    result = await ask(searcher, "namenode", mode=RerankMode.DENSE, top_k=5)
    assert len(result.hits) == 5
    assert len(read) == len(set(read)) == MIN_WINDOW
