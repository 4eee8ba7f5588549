r"""The lines of a text that is too long to hold: decoded as they come, in memory for one line.

Encodings as in ``plain_text``: a byte order mark decides; else each line that is not UTF-8 is read
in the fallback encoding, or its stray bytes become U+FFFD. The first block decides whether the file
is text at all. Lines end with ``\\n``, ``\\r\\n`` or ``\\r``.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, BinaryIO

from ingestor.extraction import plain_text
from ingestor.extraction.extracted import Refusal
from ingestor.faults import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 2**20
_MAX_BYTES_A_CHARACTER = 4


def lines(stream: BinaryIO, *, fallback_encoding: str | None, max_characters: int) -> Iterator[str]:
    """Each line without its end.

    Refusal for what is no text and for a line of over ``max_characters``.
    """
    head = stream.read(_BLOCK_BYTES)
    mark, encoding = plain_text.mark_of(head)
    blocks = _blocks(stream, head[len(mark) :])
    if encoding in {"", "utf-8"}:
        texts = _narrow(blocks, fallback_encoding, max_characters)
    else:
        texts = _wide(blocks, encoding, max_characters)
    first = True
    for decoded in texts:
        has_nul = not mark and "\0" in decoded
        text = plain_text.clean(decoded)
        if first and (has_nul or plain_text.not_text(text)):
            raise Refusal(Cause.NOT_TEXT, "it begins like no text")
        first = False
        for line in text.removesuffix("\n").split("\n"):
            if len(line) > max_characters:
                raise _long_line(max_characters)
            yield line


def _blocks(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    block = head
    while block:
        yield block
        block = stream.read(_BLOCK_BYTES)


def _narrow(
    blocks: Iterator[bytes], fallback_encoding: str | None, max_characters: int
) -> Iterator[str]:
    """Whole lines, of bytes in which an end of line is one byte."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        cut = block.rfind(b"\n") + 1 or block.rfind(b"\r", 0, -1) + 1
        if cut:
            yield _decoded(b"".join([*held, block[:cut]]), fallback_encoding)
            held, size = [], 0
        held.append(block[cut:])
        size += len(block) - cut
        if size > max_characters * _MAX_BYTES_A_CHARACTER:
            raise _long_line(max_characters)
    if rest := b"".join(held):
        yield _decoded(rest, fallback_encoding)


def _decoded(content: bytes, fallback_encoding: str | None) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "".join(
            plain_text.decode_unmarked(line, fallback_encoding)
            for line in content.splitlines(keepends=True)
        )


def _wide(blocks: Iterator[bytes], encoding: str, max_characters: int) -> Iterator[str]:
    """Whole lines, of UTF-16 or UTF-32."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    held: list[str] = []
    size = 0
    for block in blocks:
        text = decoder.decode(block)
        cut = text.rfind("\n") + 1 or text.rfind("\r", 0, -1) + 1
        if cut:
            yield "".join([*held, text[:cut]])
            held, size = [], 0
        held.append(text[cut:])
        size += len(text) - cut
        if size > max_characters:
            raise _long_line(max_characters)
    if rest := "".join(held) + decoder.decode(b"", final=True):
        yield rest


def _long_line(max_characters: int) -> Refusal:
    return Refusal(Cause.TOO_LARGE, f"a line of it is over {max_characters} characters")
