"""Names and digests that every part must compute alike.

A document is known by its id, a state of it by its version, and what its chunks look like by its
revision. This module never reads anything: the same arguments give the same name everywhere, for
ever, because chunks are cached under these names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_TENANT = "default"

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")
_CHUNK_ID = re.compile(r"([0-9a-f]{32}):([0-9a-f]{16}):(0|[1-9][0-9]{0,8})")


class ChunkId(NamedTuple):
    """The parts of a chunk id."""

    document_id: str
    revision: str
    ordinal: int


class ConsistencyToken(NamedTuple):
    """Which index a write went to: a reader at this generation or a later one sees it."""

    tenant: str
    collection: str
    version: int
    generation: int


def check_tenant(tenant: str) -> str:
    """Return the tenant, ``default`` for the empty name; InvalidArgument if it is malformed."""
    if not tenant:
        return DEFAULT_TENANT
    if not _TENANT.fullmatch(tenant):
        raise InvalidArgument(
            "use 1 to 63 of a-z, 0-9 and -, beginning with none of -", field="tenant"
        )
    return tenant


def check_collection(collection: str) -> str:
    """Return the collection's name; InvalidArgument if it is empty or malformed."""
    if not _COLLECTION.fullmatch(collection):
        raise InvalidArgument(
            "use 1 to 128 of a-z, 0-9, - and _, beginning with a letter or digit",
            field="collection",
        )
    return collection


def document_id(source_uri: str) -> str:
    """128-bit digest of the canonical source URI, 32 hex characters."""
    return hashlib.blake2b(source_uri.encode(), digest_size=16).hexdigest()


def is_document_id(text: str) -> bool:
    """Whether the text has the form of a document id."""
    return _DOCUMENT_ID.fullmatch(text) is not None


def content_digest(content: str) -> str:
    """BLAKE2b-256 of the UTF-8 content, 64 hex characters."""
    return hashlib.blake2b(content.encode(), digest_size=32).hexdigest()


def revision(
    *,
    content_digest: str,
    title: str,
    media_type: str,
    pages: Sequence[tuple[int, int, int]],
    chunking: str,
) -> str:
    """64-bit digest of everything that shapes a document's chunks, 16 hex characters.

    Args:
        content_digest: digest of the text.
        title: the title, because it is stored with every chunk.
        media_type: the source's media type.
        pages: (number, start, end) of each page, in characters.
        chunking: fingerprint of the chunking settings.
    """
    shape = json.dumps([content_digest, title, media_type, [list(p) for p in pages], chunking])
    return hashlib.blake2b(shape.encode(), digest_size=8).hexdigest()


def chunk_id(document_id: str, revision: str, ordinal: int) -> str:
    """``<document_id>:<revision>:<ordinal>``: the same id means the same text, everywhere."""
    return f"{document_id}:{revision}:{ordinal}"


def parse_chunk_id(text: str) -> ChunkId:
    """Split a chunk id; InvalidArgument if it is none."""
    match = _CHUNK_ID.fullmatch(text)
    if match is None:
        raise InvalidArgument(
            "not of the form <document_id>:<revision>:<ordinal>", field="chunk_id"
        )
    return ChunkId(match[1], match[2], int(match[3]))


def store_collection(tenant: str, collection: str, version: int) -> str:
    """Name of the vector store's collection that holds one index version."""
    return f"{tenant}.{collection}.v{version:06d}"


def encode_token(token: ConsistencyToken) -> str:
    """The token as opaque text for clients."""
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode()


def decode_token(text: str) -> ConsistencyToken:
    """The token a client brought back; InvalidArgument if it was not made here."""
    try:
        fields = json.loads(base64.urlsafe_b64decode(text.encode()))
    except ValueError:
        fields = None
    match fields:
        case [str(tenant), str(collection), int(version), int(generation)]:
            return ConsistencyToken(tenant, collection, version, generation)
        case _:
            raise InvalidArgument("not a token from an acknowledgement", field="at_least")
