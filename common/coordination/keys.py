"""The layout of the coordinator's keys; nothing else builds or takes apart a key.

    collections/<tenant>/<collection>/active         the pointer to the active version
    collections/<tenant>/<collection>/sequence       the last version number handed out
    collections/<tenant>/<collection>/versions/<n>   one index version
    instances/<service>/<id>                         where a service answers, leased
    locks/<tenant>/<collection>/roots/<digest>       held by the job over a source root, leased

Names are checked here, so that no name can reach outside its own place.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from common.errors import InvalidArgument
from common.identity import check_collection, check_tenant

COLLECTIONS = "collections/"

_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COLLECTION_KEY = re.compile(r"collections/([^/]+)/([^/]+)/(?:(active)|versions/([0-9]+))")


class CollectionKey(NamedTuple):
    """What a key under ``collections/`` names: a version, or the pointer where it is None."""

    tenant: str
    collection: str
    version: int | None


def parse_collection_key(key: str) -> CollectionKey | None:
    """Take a key of a pointer or a version apart; None for every other key."""
    match = _COLLECTION_KEY.fullmatch(key)
    if match is None:
        return None
    return CollectionKey(match[1], match[2], None if match[3] else int(match[4]))


def tenant_prefix(tenant: str) -> str:
    """Prefix of all collections of a tenant."""
    return f"{COLLECTIONS}{check_tenant(tenant)}/"


def collection_prefix(tenant: str, collection: str) -> str:
    """Prefix of everything about a collection."""
    return f"{tenant_prefix(tenant)}{check_collection(collection)}/"


def active_key(tenant: str, collection: str) -> str:
    """Key of the pointer."""
    return collection_prefix(tenant, collection) + "active"


def sequence_key(tenant: str, collection: str) -> str:
    """Key of the last version number handed out."""
    return collection_prefix(tenant, collection) + "sequence"


def versions_prefix(tenant: str, collection: str) -> str:
    """Prefix of all versions of a collection."""
    return collection_prefix(tenant, collection) + "versions/"


def version_key(tenant: str, collection: str, number: int) -> str:
    """Key of one version."""
    return f"{versions_prefix(tenant, collection)}{number}"


def instances_prefix(service: str) -> str:
    """Prefix of the running instances of a service."""
    if not _SERVICE.fullmatch(service):
        raise InvalidArgument("use 1 to 63 of a-z, 0-9 and -", field="service")
    return f"instances/{service}/"


def root_lock(tenant: str, collection: str, root_uri: str) -> str:
    """Key of the lock on a source root of a collection."""
    digest = hashlib.blake2b(root_uri.encode(), digest_size=16).hexdigest()
    return f"locks/{check_tenant(tenant)}/{check_collection(collection)}/roots/{digest}"
