"""One state of one document, and the rules it must keep to be indexed.

Nothing here knows how a document came or where it goes. A document that breaks a rule is a value,
``Rejected``, never an exception: the others of its batch go on. Messages never hold its text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from common import identity, media_types, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.records import MetadataValue

MAX_SOURCE_URI_BYTES = 4096
SOURCE_URI_RULE = f"use 1 to {MAX_SOURCE_URI_BYTES} bytes without control characters"
MAX_TITLE_BYTES = 1024
# Metadata stand with every chunk, so their size multiplies.
MAX_METADATA_BYTES = 2**14


@dataclass(frozen=True, slots=True)
class Page:
    """The characters of the content that stand on one page, half open."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """One state of one document; the fields of ``sluice.document.v1.Document``.

    As it comes, ``document_id``, ``media_type`` and ``content_digest`` may be empty; ``check``
    fills them in. ``unreadable`` names a metadata entry whose value could not be read.
    """

    document_id: str
    source_uri: str
    version: int
    media_type: str
    title: str
    content: str
    content_digest: str
    metadata: Mapping[str, MetadataValue]
    pages: tuple[Page, ...]
    container_uri: str = ""
    unreadable: str = ""

    @property
    def key(self) -> str:
        """The id it came with, or else the one its source gives."""
        return self.document_id or identity.document_id(self.source_uri)

    def revision(self, chunking: str) -> str:
        """What its chunks look like when cut by this chunking."""
        return identity.revision(
            content_digest=self.content_digest,
            title=self.title,
            media_type=self.media_type,
            pages=[(page.number, page.start, page.end) for page in self.pages],
            chunking=chunking,
        )


class RejectionCause(Enum):
    """Why a document cannot be indexed; named as in ``sluice.index.v1.RejectionCause``."""

    EMPTY_CONTENT = auto()
    CONTENT_TOO_LARGE = auto()
    UNSUPPORTED_MEDIA_TYPE = auto()
    INVALID_METADATA = auto()
    INVALID_DOCUMENT_ID = auto()
    INVALID_SOURCE_URI = auto()
    INVALID_VERSION = auto()
    DIGEST_MISMATCH = auto()
    INVALID_PAGES = auto()
    INVALID_TITLE = auto()
    NOT_EMBEDDABLE = auto()
    NOT_CHUNKABLE = auto()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The document cannot be indexed as it is; nothing was written."""

    cause: RejectionCause
    message: str


def check(document: Document, *, max_document_bytes: int) -> Document | Rejected:
    """The document with its empty fields filled in, or the first rule it breaks."""
    size = len(document.content.encode())
    digest = identity.content_digest(document.content)
    media_type = document.media_type or media_types.PLAIN_TEXT
    cause = RejectionCause
    rules = (
        (
            identity.is_document_id(document.key),
            cause.INVALID_DOCUMENT_ID,
            "document_id: use 32 lower-case hexadecimal digits, or none to have it derived",
        ),
        (
            is_source_uri(document.source_uri),
            cause.INVALID_SOURCE_URI,
            f"source_uri: {SOURCE_URI_RULE}",
        ),
        (
            not document.container_uri or is_source_uri(document.container_uri),
            cause.INVALID_SOURCE_URI,
            f"container_uri: {SOURCE_URI_RULE}, or none",
        ),
        (document.version >= 1, cause.INVALID_VERSION, "version: must be at least 1"),
        (
            media_types.is_supported(media_type),
            cause.UNSUPPORTED_MEDIA_TYPE,
            "media_type: not one whose text can be indexed; send the text as text/plain",
        ),
        (
            len(document.title.encode()) <= MAX_TITLE_BYTES,
            cause.INVALID_TITLE,
            f"title: must not exceed {MAX_TITLE_BYTES} bytes",
        ),
        (
            size <= max_document_bytes,
            cause.CONTENT_TOO_LARGE,
            f"content: has {size} bytes, more than {max_document_bytes}; split the document",
        ),
        (
            bool(document.content.strip()),
            cause.EMPTY_CONTENT,
            "content: is blank; delete the document instead",
        ),
        (
            document.content_digest in {"", digest},
            cause.DIGEST_MISMATCH,
            "content_digest: is not the BLAKE2b-256 of the content; send the content again",
        ),
        (
            _pages_ascend(document.pages, len(document.content)),
            cause.INVALID_PAGES,
            "pages: must be ascending, must not overlap and must lie within the content",
        ),
    )
    for holds, broken, message in rules:
        if not holds:
            return Rejected(broken, message)
    if fault := _metadata_fault(document):
        return Rejected(cause.INVALID_METADATA, fault)
    return replace(document, document_id=document.key, media_type=media_type, content_digest=digest)


def is_source_uri(uri: str) -> bool:
    """Whether the text may name a source or a container."""
    printable = not any(character < " " or character == "\x7f" for character in uri)
    return printable and bool(uri.strip()) and len(uri.encode()) <= MAX_SOURCE_URI_BYTES


def _pages_ascend(pages: tuple[Page, ...], length: int) -> bool:
    number, position = 0, 0
    for page in pages:
        if page.number <= number or not position <= page.start <= page.end <= length:
            return False
        number, position = page.number, page.end
    return True


def _metadata_fault(document: Document) -> str:
    if document.unreadable:
        return f"metadata: {document.unreadable}"
    if len(document.metadata) > records.MAX_ENTRIES:
        return f"metadata: at most {records.MAX_ENTRIES} entries"
    for key in document.metadata:
        if not records.is_user_key(key):
            return "metadata: a key is reserved or not of the form [A-Za-z][A-Za-z0-9_.-]{0,63}"
    if len(json.dumps(dict(document.metadata), ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        return f"metadata: at most {MAX_METADATA_BYTES} bytes as JSON, for they stand in each chunk"
    return ""
