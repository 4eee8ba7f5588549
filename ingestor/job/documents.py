"""Extracted files as the documents of the contracts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from common.identity import content_digest, document_id
from common.records import to_proto
from sluice.document.v1 import document_pb2

if TYPE_CHECKING:
    from common.records import MetadataValue
    from ingestor.extraction.extracted import Extracted
    from ingestor.storage.listing import FileEntry


def part_uri(file_uri: str, fragment: str) -> str:
    """URI of one of a file's documents; the percent-encoded URI of a file holds no ``#``."""
    return f"{file_uri}#{fragment}"


def to_document(
    entry: FileEntry, version: int, extracted: Extracted, fragment: str = ""
) -> document_pb2.Document:
    """The document of a file, or of the part of it that the fragment names.

    Its metadata say what the format told (``author``, ``created_at`` …) and, for filters,
    ``file_name``, ``file_type`` (the suffix in lower case, without dot) and ``folder`` (the name of
    the folder it is in). They depend on the URI and the content only, never on the root that was
    given, so that a file has the same record whichever job brought it.
    """
    uri = part_uri(entry.uri, fragment) if fragment else entry.uri
    metadata: dict[str, MetadataValue] = {**extracted.metadata, **_place(entry.uri)}
    return document_pb2.Document(
        document_id=document_id(uri),
        source_uri=uri,
        container_uri=entry.uri if fragment else "",
        version=version,
        media_type=extracted.media_type,
        title=extracted.title,
        content=extracted.text,
        content_digest=content_digest(extracted.text),
        metadata={key: to_proto(value) for key, value in metadata.items() if value != ""},
        pages=[
            document_pb2.PageSpan(
                number=number, span=document_pb2.CharacterSpan(start=start, end=end)
            )
            for number, start, end in extracted.pages
        ],
    )


@lru_cache(maxsize=64)  # a file of many documents asks for each of them
def _place(file_uri: str) -> dict[str, str]:
    path = PurePosixPath(unquote(file_uri.partition("://")[2]))
    return {
        "file_name": path.name,
        "folder": path.parent.name,
        "file_type": path.suffix.removeprefix(".").lower(),
    }
