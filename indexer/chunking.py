"""Cuts text into chunks: LlamaIndex's SentenceSplitter, with exact character spans and bounds.

SentenceSplitter gives texts only, and looking a text up in its document afterwards finds the wrong
place where passages repeat. So its own rule for splitting is used as it is, and its rule for
merging is followed here on character offsets: the chunks are the same, the spans are exact. Texts
that are hard on it (see ``_Splitter`` and ``MAX_TOKEN_CHARACTERS``) are kept bounded, and a text is
split a window at a time, so memory follows the number of chunks, not of words. Nothing here is
asynchronous; it belongs in a thread.

The constants below shape chunks. Whoever changes one must rename ``SPLITTER``: two index versions
with the same chunking must hold the same chunks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llama_index.core.node_parser import SentenceSplitter
from pydantic import Field

from common.config import Settings
from common.coordination import ChunkingSpec
from common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from common.embedding import EmbedderSpec
    from indexer.document import Page

SPLITTER = "sentence"
# The model adds two of its own to every text, such as [CLS] and [SEP].
SPECIAL_TOKENS = 2
# A token counts for at most this many characters: else a long blob without a blank, one token to
# a WordPiece tokenizer, or a long run of blanks, none at all, would become one chunk without bound.
MAX_TOKEN_CHARACTERS = 32
WINDOW_CHARACTERS = 2**16


class ChunkingSettings(Settings):
    """How text is cut.

    Attributes:
        chunk_tokens: tokens of the embedder's own tokenizer in a chunk, at most. Where the model
            reads less, it is what the model reads without its special tokens, so that nothing
            is cut off: 254 of all-MiniLM-L6-v2's 256.
        overlap_tokens: tokens of whole sentences repeated from the end of the chunk before.
    """

    chunk_tokens: int = Field(default=256, ge=16, le=8192)
    overlap_tokens: int = Field(default=32, ge=0, le=4096)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document's text; ``content[start:end] == text``, in characters."""

    ordinal: int
    text: str
    start: int
    end: int
    page: int | None


class Chunker(Protocol):
    """Cuts a text into chunks, in order; a text that is not blank gives at least one."""

    @property
    def spec(self) -> ChunkingSpec:
        """What identifies the chunks."""
        ...

    def chunk(self, content: str, pages: Sequence[Page] = ()) -> list[Chunk]:
        """Cut a text; ``pages`` are ascending."""
        ...


class _Piece(NamedTuple):
    """A part of the text that is not cut any further; ``tokens`` as the splitter counts."""

    start: int
    end: int
    tokens: int


class SentenceChunker:
    """Chunks of whole sentences, as SentenceSplitter makes them."""

    def __init__(self, spec: ChunkingSpec, token_count: Callable[[str], int]) -> None:
        self._spec = spec
        self._token_count = token_count
        self._splitter = _Splitter(
            chunk_size=spec.chunk_tokens, chunk_overlap=spec.overlap_tokens, tokenizer=self._tokens
        )

    @property
    def spec(self) -> ChunkingSpec:
        """What identifies the chunks."""
        return self._spec

    def chunk(self, content: str, pages: Sequence[Page] = ()) -> list[Chunk]:
        """Cut a text; ``pages`` are ascending."""
        starts = [page.start for page in pages]
        spans = self._merge(self._pieces(content))
        trimmed = filter(None, (_trim(content, start, end) for start, end in spans))
        return [
            Chunk(ordinal, content[start:end], start, end, _page(pages, starts, start, end))
            for ordinal, (start, end) in enumerate(trimmed)
        ]

    def _tokens(self, text: str) -> range:
        # SentenceSplitter takes the length of what its tokenizer returns. A text that is too long
        # by its characters alone is not tokenized just to be cut.
        least = -(-len(text) // MAX_TOKEN_CHARACTERS)
        if least > self._spec.chunk_tokens:
            return range(least)
        return range(max(least, self._token_count(text)))

    def _pieces(self, content: str) -> Iterator[_Piece]:
        for start, end in _windows(content):
            position = start
            for text, tokens in self._splitter.pieces(content[start:end]):
                yield _Piece(position, position + len(text), tokens)
                position += len(text)
            if position != end:
                raise RuntimeError("SentenceSplitter lost text; its version is not the one tested")

    def _merge(self, pieces: Iterable[_Piece]) -> Iterator[tuple[int, int]]:
        """Join pieces to spans of at most ``chunk_tokens``, each beginning with an overlap."""
        limit, overlap = self._spec.chunk_tokens, self._spec.overlap_tokens
        current: deque[_Piece] = deque()
        tokens, fresh = 0, True
        for piece in pieces:
            if not fresh and tokens + piece.tokens > limit:
                yield current[0].start, current[-1].end
                closed, current, tokens = current, deque(), 0
                while closed and tokens + closed[-1].tokens <= overlap:
                    current.appendleft(closed.pop())
                    tokens += current[0].tokens
                fresh = True
            while fresh and current and tokens + piece.tokens > limit:
                tokens -= current.popleft().tokens
            current.append(piece)
            tokens += piece.tokens
            fresh = False
        if not fresh:
            yield current[0].start, current[-1].end


class _Splitter(SentenceSplitter):
    """SentenceSplitter before it merges.

    What has neither blank nor punctuation and is longer than a chunk is halved until it fits, where
    SentenceSplitter counts the tokens of each character: 12 MB of base64 would take it minutes and
    become 54,000 chunks.
    """

    def __init__(
        self, *, chunk_size: int, chunk_overlap: int, tokenizer: Callable[[str], range]
    ) -> None:
        super().__init__(chunk_size=chunk_size, chunk_overlap=chunk_overlap, tokenizer=tokenizer)
        self._sub_sentence_split_fns[-1] = halves

    def pieces(self, text: str) -> Iterator[tuple[str, int]]:
        """Parts of the text, in order and without gaps, with their tokens."""
        for split in self._split(text, self.chunk_size):
            yield split.text, split.token_size


def chunking_spec(settings: ChunkingSettings, embedder: EmbedderSpec) -> ChunkingSpec:
    """What the settings mean for an embedder.

    Raises:
        ConfigurationError: no room is left beside the overlap.
    """
    chunk_tokens = min(settings.chunk_tokens, embedder.max_tokens - SPECIAL_TOKENS)
    if not 0 <= settings.overlap_tokens < chunk_tokens:
        raise ConfigurationError(
            f"chunking.overlap_tokens: must be less than the {chunk_tokens} tokens of a chunk"
        )
    return ChunkingSpec(SPLITTER, chunk_tokens, settings.overlap_tokens)


def halves(text: str) -> list[str]:
    """Two parts of a text; the text itself if it is one character."""
    middle = len(text) // 2
    return [text[:middle], text[middle:]] if middle else [text]


def _windows(content: str) -> Iterator[tuple[int, int]]:
    """Cut a long text at a paragraph, else a line, else a blank, in the second half of a window."""
    start = 0
    while len(content) - start > WINDOW_CHARACTERS:
        middle, limit = start + WINDOW_CHARACTERS // 2, start + WINDOW_CHARACTERS
        for separator in ("\n\n", "\n", " "):
            cut = content.rfind(separator, middle, limit)
            if cut >= 0:
                end = cut + len(separator)
                break
        else:
            end = limit
        yield start, end
        start = end
    yield start, len(content)


def _trim(content: str, start: int, end: int) -> tuple[int, int] | None:
    text = content[start:end]
    kept = text.strip()
    if not kept:
        return None
    start += len(text) - len(text.lstrip())
    return start, start + len(kept)


def _page(pages: Sequence[Page], starts: Sequence[int], start: int, end: int) -> int | None:
    """The page that most of the span stands on; the first of several that share it alike."""
    found, most = None, 0
    for page in islice(pages, max(bisect_right(starts, start) - 1, 0), None):
        if page.start >= end:
            break
        shared = min(end, page.end) - max(start, page.start)
        if shared > most:
            found, most = page.number, shared
    return found
