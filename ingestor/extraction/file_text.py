"""A file that is one document: from its bytes to its text.

Runs on a thread for text that needs only decoding, and in a worker process for all that is parsed
or expanded. It imports a parser when a file needs it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from ingestor.extraction import expansion, plain_text
from ingestor.extraction.extracted import Extracted, Refusal, title_of
from ingestor.extraction.file_types import HTML, JSON_LINES, sniffed_type
from ingestor.faults import Cause, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from common.records import MetadataValue
    from ingestor.extraction.worker_protocol import Limits, Reading

_ROWS = frozenset({"text/csv", "text/tab-separated-values", JSON_LINES})
_TEXTUAL = frozenset({"application/json", "application/xml", "application/yaml"})
_PIECE_BYTES = 2**20
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def is_decoded_only(media_type: str | None) -> bool:
    """Whether the text of this type is its bytes, decoded; None: only the content can tell."""
    if media_type is None or media_type in _ROWS or media_type == HTML:
        return False
    return media_type.startswith("text/") or media_type in _TEXTUAL


def extract(reading: Reading, data: bytes, limits: Limits) -> Extracted:
    """The document of a whole file; Refusal if there is none."""
    if reading.codec:
        from ingestor.extraction import compression  # noqa: PLC0415 — few files need it

        bound = min(limits.max_member_bytes, limits.max_expanded_bytes)
        data = compression.expanding(io.BytesIO(data), reading.codec, bound).read()
    media_type = reading.media_type or sniffed_type(data)
    if isinstance(media_type, Fault):
        _refuse(media_type)
    if media_type == HTML:
        return _html(reading.name, data, limits)
    if is_decoded_only(media_type) or media_type in _ROWS:
        return _plain(reading.name, media_type, data, limits)
    return _rich(reading.name, media_type, data, limits)


def _refuse(fault: Fault) -> NoReturn:
    raise Refusal(Cause(fault.cause), fault.message)


def _plain(name: str, media_type: str, data: bytes, limits: Limits) -> Extracted:
    decoded = plain_text.decode(data, limits.fallback_encoding)
    if isinstance(decoded, Fault):
        _refuse(decoded)
    text, title = decoded.text, ""
    metadata: dict[str, MetadataValue] = {}
    if decoded.replaced:
        metadata["replaced_characters"] = decoded.replaced
    rows: plain_text.Rows | Fault | None = None
    bound = limits.max_characters
    match media_type:
        case "text/csv":
            rows = plain_text.render_csv(text, max_characters=bound)
        case "text/tab-separated-values":
            rows = plain_text.render_csv(text, max_characters=bound, delimiter="\t")
        case "application/jsonl":
            rows = plain_text.render_json_lines(text, max_characters=bound)
        case "text/markdown":
            title = plain_text.markdown_title(text)
    if isinstance(rows, Fault):
        _refuse(rows)
    if rows is not None:
        text = rows.text
        if rows.broken:
            metadata["broken_rows"] = rows.broken
    return _document(name, media_type, text, title=title, metadata=metadata, limits=limits)


def _html(name: str, data: bytes, limits: Limits) -> Extracted:
    decoded = plain_text.decode_html(data, limits.fallback_encoding)
    if isinstance(decoded, Fault):
        _refuse(decoded)
    page = _rich(name, HTML, decoded.text.encode(), limits)
    if not decoded.replaced:
        return page
    return replace(page, metadata={**page.metadata, "replaced_characters": decoded.replaced})


def _rich(name: str, media_type: str, data: bytes, limits: Limits) -> Extracted:
    from ingestor.extraction import rich_text  # noqa: PLC0415 — the parser is large

    if data.startswith(b"PK\x03\x04"):
        _check_expansion(data, limits.max_member_bytes)
    try:
        parsed = rich_text.parse(data, media_type)
    except rich_text.Unparsable as unparsable:
        raise Refusal(Cause.MALFORMED, str(unparsable)) from None
    return _document(
        *(name, media_type, parsed["text"]),
        title=parsed["title"],
        pages=tuple(parsed["pages"]),
        metadata=parsed["metadata"],
        limits=limits,
    )


def _check_expansion(data: bytes, max_bytes: int) -> None:
    """Refuse an office document that expands beyond the bound, whatever its directory declares."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            expanded = sum(member.file_size for member in members.infolist())
            expansion.check(expanded, len(data), max_bytes)
            # A directory that declares too little is found out by the checksum.
            for member in members.infolist():
                with members.open(member) as content:
                    while content.read(_PIECE_BYTES):
                        pass
    except _BAD_ZIP as error:
        message = f"its parts cannot be expanded: {type(error).__name__}"
        raise Refusal(Cause.MALFORMED, message) from None


def _document(
    name: str,
    media_type: str,
    text: str,
    *,
    title: str,
    metadata: Mapping[str, MetadataValue],
    limits: Limits,
    pages: tuple[tuple[int, int, int], ...] = (),
) -> Extracted:
    if len(text) > limits.max_characters:
        raise Refusal(Cause.TOO_LARGE, f"its text is over {limits.max_characters} characters")
    if not text.strip():
        raise Refusal(Cause.NO_TEXT, "it holds no text")
    return Extracted(text, title_of(title) or title_of(name), media_type, pages, metadata)
