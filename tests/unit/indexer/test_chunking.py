from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.node_parser import SentenceSplitter

from common.coordination import ChunkingSpec
from common.embedding import EmbeddingSettings, open_embedder
from common.errors import ConfigurationError
from indexer.chunking import (
    MAX_TOKEN_CHARACTERS,
    WINDOW_CHARACTERS,
    Chunk,
    ChunkingSettings,
    SentenceChunker,
    chunking_spec,
    halves,
)
from indexer.document import Page

EMBEDDER = open_embedder(EmbeddingSettings(kind="hashing"))
LIMIT, OVERLAP = 12, 3


def tokens(text: str) -> list[str]:
    """Words, punctuation and single other characters, as a WordPiece tokenizer would see them."""
    return re.findall(r"[a-zA-Z0-9]+|[^\sa-zA-Z0-9]", text)


CHUNKER = SentenceChunker(ChunkingSpec("sentence", LIMIT, OVERLAP), lambda t: len(tokens(t)))
SPLITTER = SentenceSplitter(chunk_size=LIMIT, chunk_overlap=OVERLAP, tokenizer=CHUNKER._tokens)
SPLITTER._sub_sentence_split_fns[-1] = halves  # the one rule of splitting that is ours

PROSE = st.lists(
    st.sampled_from(
        ["one", "two.", "three,", "Dr.", "four;", "e.g.", "\n\n\n", "\n", "  ", "五。", "!?", "é"]
    ),
    max_size=120,
).map(" ".join)


def check_spans(content: str, chunks: list[Chunk]) -> None:
    covered = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert content[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert not content[covered : chunk.start].strip(), "text between two chunks is lost"
        assert chunk.end >= covered  # equal where blanks alone follow the overlap
        covered = chunk.end
    assert not content[covered:].strip(), "the end of the text is lost"


@given(st.text(max_size=600) | PROSE)
@example("\n\n\n \n\n\n")
@example("again and again. " * 40)
@example("x" * 5000)
@example("\x00 \x1c\x1d 🙂" * 50)
@settings(max_examples=200, deadline=None)
def test_spans_are_exact_and_cover_all_text(content: str) -> None:
    chunks = CHUNKER.chunk(content)
    check_spans(content, chunks)
    assert bool(chunks) == bool(content.strip())
    for chunk in chunks:
        assert len(tokens(chunk.text)) <= LIMIT
        assert len(chunk.text) <= LIMIT * MAX_TOKEN_CHARACTERS


@given(st.text(max_size=600) | PROSE)
@settings(max_examples=200, deadline=None)
def test_chunks_are_those_of_sentence_splitter(content: str) -> None:
    expected = SPLITTER.split_text(content) if content else []
    assert [chunk.text for chunk in CHUNKER.chunk(content)] == expected


def test_repeated_passages_have_spans_of_their_own() -> None:
    content = "The same sentence stands here again and again, word for word. " * 50
    starts = [chunk.start for chunk in CHUNKER.chunk(content)]
    assert len(starts) > 50
    assert starts == sorted(set(starts))


def test_chunks_overlap_by_whole_sentences() -> None:
    chunks = CHUNKER.chunk("Eins zwei. Drei vier fünf sechs sieben. Acht neun. Zehn elf zwölf ja.")
    assert [chunk.text for chunk in chunks] == [
        "Eins zwei. Drei vier fünf sechs sieben.",
        "Acht neun. Zehn elf zwölf ja.",
    ]
    chunks = CHUNKER.chunk("A b c d e f g h. I j. K l m n o p q.")
    assert [chunk.text for chunk in chunks] == ["A b c d e f g h. I j.", "I j. K l m n o p q."]


def test_a_long_text_is_split_in_windows_and_loses_nothing() -> None:
    paragraph = "Words of a paragraph follow each other, and then it ends. " * 20 + "\n\n"
    content = paragraph * (3 * WINDOW_CHARACTERS // len(paragraph))
    chunks = CHUNKER.chunk(content)
    check_spans(content, chunks)
    # windows end where paragraphs do, so whole sentences it is throughout
    assert all(chunk.text.endswith((".", ",")) for chunk in chunks)


def test_a_blob_without_blanks_is_bounded_though_it_is_one_token() -> None:
    one_token = SentenceChunker(ChunkingSpec("sentence", 16, 2), lambda text: bool(text.strip()))
    chunks = one_token.chunk("A" * 300_000)
    check_spans("A" * 300_000, chunks)
    assert max(len(chunk.text) for chunk in chunks) <= 16 * MAX_TOKEN_CHARACTERS
    assert len(chunks) < 2 * 300_000 / (16 * MAX_TOKEN_CHARACTERS)


def test_a_chunk_is_on_the_page_that_most_of_it_stands_on() -> None:
    first, second = "Eins zwei drei vier fünf sechs. ", "Sieben acht neun zehn elf zwölf ja doch."
    content = first + second
    pages = [Page(4, 0, len(first) - 1), Page(9, len(first), len(content))]
    assert [chunk.page for chunk in CHUNKER.chunk(content, pages)] == [4, 9]
    assert {chunk.page for chunk in CHUNKER.chunk(content)} == {None}
    # text before the first page that ends in it counts for it; text on no page for none
    assert [chunk.page for chunk in CHUNKER.chunk(content, [Page(2, 3, 4)])] == [2, None]


def test_chunk_size_leaves_room_for_the_special_tokens_of_the_model() -> None:
    assert EMBEDDER.spec.max_tokens == 256
    assert chunking_spec(ChunkingSettings(), EMBEDDER.spec) == ChunkingSpec("sentence", 254, 32)
    small = chunking_spec(ChunkingSettings(chunk_tokens=100), EMBEDDER.spec)
    assert small.chunk_tokens == 100
    with pytest.raises(ConfigurationError, match="overlap_tokens"):
        chunking_spec(ChunkingSettings(overlap_tokens=254), EMBEDDER.spec)
