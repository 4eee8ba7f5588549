"""Text from formats that a parser must open: PDF, office documents, HTML.

Runs in a worker process, so it imports nothing but the standard library and the parser. It reads
and writes no file: the parser's own cache, which would keep text of documents in the user's home,
is off, and so is recognition of characters in images. Pages are those of formats that have them as
such (PDF, presentations); a word processor's pages depend on who prints them and are left out.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, TypedDict

import kreuzberg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGED = frozenset(
    {
        "application/pdf",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    }
)
_HTML = frozenset({"text/html", "application/xhtml+xml"})

# What the parser's plain rendering of HTML still carries of Markdown.
_IMAGE = re.compile(r"!\[([^\]]{0,2000})\]\([^)]*\)")
_ESCAPED = re.compile(r"\\([_*|`\[\]#<>~])")


class RichText(TypedDict):
    """Text with its pages as (number, start, end) in characters, ready for JSON."""

    text: str
    title: str
    pages: list[tuple[int, int, int]]
    metadata: dict[str, str]


class Unparsable(Exception):
    """The parser refused the file; the message names no text of it."""


def parse(data: bytes, media_type: str) -> RichText:
    """Parse one file; Unparsable if the parser cannot."""
    paged = media_type in PAGED
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg]  # missing in the library's own stubs
        enable_quality_processing=False,
        pages=kreuzberg.PageConfig(extract_pages=True) if paged else None,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    try:
        result = kreuzberg.extract_bytes_sync(data, media_type, config)
    except kreuzberg.KreuzbergError as error:
        raise Unparsable(_reason(error)) from None
    metadata = dict(result.metadata or {})
    text = result.content.replace("\r\n", "\n").replace("\0", "\ufffd")
    pages: list[tuple[int, int, int]] = []
    if paged and result.pages:
        text, pages = _join(result.pages)
    if media_type in _HTML:
        text = _ESCAPED.sub(r"\1", _IMAGE.sub(r"\1", text))
    title = metadata.get("title")
    return {
        "text": text,
        "title": html.unescape(title).strip() if isinstance(title, str) else "",
        "pages": pages,
        "metadata": dict(_properties(metadata)),
    }


def _join(pages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int, int]]]:
    text = ""
    spans = []
    for page in sorted(pages, key=lambda page: int(page["page_number"])):
        content = str(page["content"]).replace("\r\n", "\n").replace("\0", "\ufffd").strip()
        if not content:
            continue
        if text:
            text += "\n\n"
        spans.append((int(page["page_number"]), len(text), len(text) + len(content)))
        text += content
    return text, spans


def _properties(metadata: dict[str, object]) -> Iterator[tuple[str, str]]:
    for key in ("subject", "created_at", "language"):
        value = metadata.get(key)
        if isinstance(value, str) and value.strip():
            yield key, value.strip()[:1000]
    authors = metadata.get("authors")
    if isinstance(authors, list) and authors:
        yield "author", ", ".join(str(author) for author in authors)[:1000]


def _reason(error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # The parser repeats its message once for the class and once for the cause.
    return first_line.partition(": ")[2][:200] or first_line[:200]
