"""The layout of the coordinator's keys; nothing else builds or takes apart a key.

    collections/<tenant>/<collection>/active         the pointer to the active version
    collections/<tenant>/<collection>/sequence       the last version number handed out
    collections/<tenant>/<collection>/statistics/<n> the word statistics of a version, as published
    collections/<tenant>/<collection>/versions/<n>   one index version
    instances/<service>/<id>                         where a service answers, leased
    locks/<tenant>/<collection>                      the build lock and the build, leased
    locks/<tenant>/<collection>/maintenance          held by whoever repairs a version, leased
    locks/<tenant>/<collection>/roots/<digest>       held by the job over a source root, leased
    locks/collector                                  held by the indexer that collects, leased
    pins/<tenant>/<collection>/<n>/<use>-<id>        who reads or writes a version, leased

Names are checked here, so that no name can reach outside its own place.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from common.errors import InvalidArgument
from common.identity import check_collection, check_tenant

COLLECTIONS = "collections/"
LOCKS = "locks/"

_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COLLECTION_KEY = re.compile(r"collections/([^/]+)/([^/]+)/(?:(active)|versions/([0-9]+))")
_STATISTICS_KEY = re.compile(r"collections/([^/]+)/([^/]+)/statistics/([0-9]+)")
_BUILD_LOCK = re.compile(r"locks/([^/]+)/([^/]+)")


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


def parse_statistics_key(key: str) -> tuple[str, str, int] | None:
    """Tenant, collection and version of a key of word statistics; None for every other key."""
    match = _STATISTICS_KEY.fullmatch(key)
    return None if match is None else (match[1], match[2], int(match[3]))


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


def statistics_prefix(tenant: str, collection: str) -> str:
    """Prefix of the word statistics of all versions of a collection."""
    return collection_prefix(tenant, collection) + "statistics/"


def statistics_key(tenant: str, collection: str, number: int) -> str:
    """Key of the word statistics of one version."""
    return f"{statistics_prefix(tenant, collection)}{number}"


def instances_prefix(service: str) -> str:
    """Prefix of the running instances of a service."""
    if not _SERVICE.fullmatch(service):
        raise InvalidArgument("use 1 to 63 of a-z, 0-9 and -", field="service")
    return f"instances/{service}/"


def build_lock(tenant: str, collection: str) -> str:
    """Key of the lock under which the next version of a collection is built."""
    return f"{build_locks_prefix(tenant)}{check_collection(collection)}"


def build_locks_prefix(tenant: str) -> str:
    """Prefix of all locks of a tenant, the build locks among them."""
    return f"{LOCKS}{check_tenant(tenant)}/"


def parse_build_lock(key: str) -> tuple[str, str] | None:
    """Tenant and collection of a build lock; None for every other key."""
    match = _BUILD_LOCK.fullmatch(key)
    return None if match is None else (match[1], match[2])


def maintenance_lock(tenant: str, collection: str) -> str:
    """Key of the lock that keeps writers out of a collection."""
    return f"{build_lock(tenant, collection)}/maintenance"


def collector_lock() -> str:
    """Key of the lock held while versions that nobody needs are collected."""
    return f"{LOCKS}collector"


def collection_pins_prefix(tenant: str, collection: str) -> str:
    """Prefix of the pins on all versions of a collection."""
    return f"pins/{check_tenant(tenant)}/{check_collection(collection)}/"


def pins_prefix(tenant: str, collection: str, number: int) -> str:
    """Prefix of the pins on one version."""
    return f"{collection_pins_prefix(tenant, collection)}{number}/"


def root_lock(tenant: str, collection: str, root_uri: str) -> str:
    """Key of the lock on a source root of a collection."""
    digest = hashlib.blake2b(root_uri.encode(), digest_size=16).hexdigest()
    return f"{build_lock(tenant, collection)}/roots/{digest}"
