"""Which media types are documents, and which a file name tells.

The list is about sources whose text Sluice can hold; it never looks at content.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

PLAIN_TEXT = "text/plain"

_WELL_FORMED = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

_BY_SUFFIX = {
    ".txt": PLAIN_TEXT,
    ".text": PLAIN_TEXT,
    ".log": PLAIN_TEXT,
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}

_APPLICATION = frozenset(
    {
        "application/epub+zip",
        "application/json",
        "application/jsonl",
        "application/msword",
        "application/pdf",
        "application/rtf",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/xhtml+xml",
        "application/xml",
        "application/yaml",
    }
)


def is_supported(media_type: str) -> bool:
    """Whether documents of this type may be indexed: any ``text/*`` and the types known here."""
    if not _WELL_FORMED.fullmatch(media_type):
        return False
    return media_type.startswith("text/") or media_type in _APPLICATION


def guess(name: str) -> str | None:
    """The media type a file name tells by its suffix; None where it tells none known here."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())
