"""The layout of one chunk in the vector store: what the indexer writes and the query server reads.

Names beginning with an underscore are the system's. The user's metadata stand beside them under
their own names, so that a filter and LlamaIndex's own store adapter see them as they are. A
revision of a document is complete when its head, the chunk of ordinal 0, is in the store: the head
is written last.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from common.errors import InvalidArgument
from sluice.document.v1 import document_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

MetadataValue: TypeAlias = str | int | float | bool | list[str]

DOCUMENT_ID = "document_id"
SOURCE_URI = "source_uri"
TITLE = "title"
MEDIA_TYPE = "media_type"
PAGE = "page"

VERSION = "_version"
REVISION = "_revision"
ORDINAL = "_ordinal"
CHUNK_COUNT = "_chunk_count"
START = "_start"
END = "_end"
# URI of the file that the document is one of many of; absent for a document that is its file.
CONTAINER = "_container"

# What LlamaIndex's ChromaVectorStore needs to rebuild a node.
NODE_CONTENT = "_node_content"
NODE_TYPE = "_node_type"
DOC_ID = "doc_id"
REF_DOC_ID = "ref_doc_id"

RESERVED = frozenset({DOCUMENT_ID, DOC_ID, REF_DOC_ID, SOURCE_URI, TITLE, MEDIA_TYPE, PAGE})

MAX_ENTRIES = 64
MAX_LIST_VALUES = 64
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@lru_cache(maxsize=4_096)
def is_user_key(key: str) -> bool:
    """Whether a document may carry metadata under this name."""
    return _KEY.fullmatch(key) is not None and key not in RESERVED


def user_metadata(stored: Mapping[str, MetadataValue]) -> dict[str, MetadataValue]:
    """The user's part of a stored record."""
    return {key: value for key, value in stored.items() if is_user_key(key)}


def to_proto(value: MetadataValue) -> document_pb2.MetadataValue:
    """The value as the contracts carry it."""
    match value:
        case bool():
            return document_pb2.MetadataValue(bool_value=value)
        case int():
            return document_pb2.MetadataValue(int_value=value)
        case float():
            return document_pb2.MetadataValue(double_value=value)
        case str():
            return document_pb2.MetadataValue(string_value=value)
        case list():
            return document_pb2.MetadataValue(
                string_list_value=document_pb2.StringList(values=value)
            )


def from_proto(value: document_pb2.MetadataValue) -> MetadataValue:
    """The value as the store keeps it; InvalidArgument if it is none that can be kept."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            if not math.isfinite(value.double_value):
                raise InvalidArgument("numbers must be finite")
            return value.double_value
        case "bool_value":
            return value.bool_value
        case "string_list_value":
            values = list(value.string_list_value.values)
            if not 1 <= len(values) <= MAX_LIST_VALUES:
                raise InvalidArgument(f"a list holds 1 to {MAX_LIST_VALUES} strings")
            return values
        case _:
            raise InvalidArgument("a value must be set")
