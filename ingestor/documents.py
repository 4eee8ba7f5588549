"""Extracted files as the documents of the contracts."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from common.identity import content_digest, document_id
from common.records import to_proto
from sluice.document.v1 import document_pb2

if TYPE_CHECKING:
    from common.records import MetadataValue
    from ingestor.extraction import Extracted
    from ingestor.sources import FileEntry


def to_document(entry: FileEntry, version: int, extracted: Extracted) -> document_pb2.Document:
    """The document of a file.

    Its metadata say what the format told (``author``, ``created_at`` …) and, for filters,
    ``file_name``, ``file_type`` (the suffix in lower case, without dot) and ``folder`` (the name of
    the folder it is in). They depend on the URI and the content only, never on the root that was
    given, so that a file has the same record whichever job brought it.
    """
    path = PurePosixPath(unquote(entry.uri.partition("://")[2]))
    metadata: dict[str, MetadataValue] = {
        **extracted.metadata,
        "file_name": path.name,
        "folder": path.parent.name,
        "file_type": path.suffix.removeprefix(".").lower(),
    }
    return document_pb2.Document(
        document_id=document_id(entry.uri),
        source_uri=entry.uri,
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
