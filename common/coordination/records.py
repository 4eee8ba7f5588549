"""What the coordinator keeps about collections, their index versions and the running services.

Values only: nothing here reads or writes. `common.coordination.codec` turns them into what is
stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from common import identity

if TYPE_CHECKING:
    from datetime import datetime

    from common.embedding import EmbedderSpec


class VersionState(Enum):
    """The life of an index version: BUILDING → READY → ACTIVE → RETIRED, or FAILED."""

    BUILDING = "building"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChunkingSpec:
    """How text was cut into chunks; sizes in tokens of the embedder."""

    splitter: str
    chunk_tokens: int
    overlap_tokens: int

    def fingerprint(self) -> str:
        """The text that stands for these settings in a revision; equal settings, equal text."""
        return f"{self.splitter}/{self.chunk_tokens}/{self.overlap_tokens}"


@dataclass(frozen=True, slots=True)
class GoldenScore:
    """How well golden queries found what they should among the first ``depth`` hits.

    ``candidate`` is the mean share of expected sources found, 0 to 1, and must reach ``threshold``;
    ``active`` is the same of the version that was active then, None where none could be asked.
    """

    queries: int
    depth: int
    threshold: float
    candidate: float
    active: float | None
    active_version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification said of a version; ``findings`` are lines, none where it passed."""

    passed: bool
    verified_at: datetime
    findings: tuple[str, ...] = ()
    golden: GoldenScore | None = None


@dataclass(frozen=True, slots=True)
class Forced:
    """Who activated a version that had fallen short of its verification."""

    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One index version.

    ``documents`` and ``chunks`` are the counts of the last verification, None before the first.
    ``builder`` is empty for the first version of a collection. ``retired_at`` says since when it is
    out of use, as RETIRED or FAILED. ``mod_revision`` says which state of the record was read, for
    compare-and-set. ``fence`` is the create revision of its key, the fencing token of its build:
    that of the lock which was put in the same transaction.
    """

    tenant: str
    collection: str
    number: int
    state: VersionState
    embedder: EmbedderSpec
    chunking: ChunkingSpec
    documents: int | None
    chunks: int | None
    created_at: datetime
    activated_at: datetime | None
    builder: str = ""
    retired_at: datetime | None = None
    verdict: Verdict | None = None
    forced: Forced | None = None
    failure: str = ""
    mod_revision: int = field(default=0, compare=False, repr=False)
    fence: int = field(default=0, compare=False, repr=False)

    @property
    def store_collection(self) -> str:
        """Name of the vector store's collection."""
        return identity.store_collection(self.tenant, self.collection, self.number)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version of a collection is active.

    ``generation`` grows by one with every activation; ``previous_version`` is the version that was
    active before, 0 if there was none.
    """

    tenant: str
    collection: str
    version: int
    generation: int
    embedder: EmbedderSpec
    activated_at: datetime
    previous_version: int

    @property
    def store_collection(self) -> str:
        """Name of the vector store's collection."""
        return identity.store_collection(self.tenant, self.collection, self.version)


@dataclass(frozen=True, slots=True)
class WordStatisticsRecord:
    """How often words occur in an index version, as published; the counts are in its table.

    ``table`` names the parts of the table in the vector store, ``digest`` is the SHA-256 (hex) of
    all ``parts`` joined. Counted over ``chunks`` chunks with ``terms`` different words;
    ``text_words`` and ``title_words`` are the words of all texts and of all titles. ``analysis``
    says by which rules texts were cut into words.
    """

    tenant: str
    collection: str
    number: int
    table: str
    chunks: int
    terms: int
    text_words: int
    title_words: int
    parts: int
    digest: str
    counted_at: datetime
    analysis: int


@dataclass(frozen=True, slots=True)
class Build:
    """A build under way, as it stands under the build lock of its collection; gone with it.

    ``documents`` and ``chunks`` were acknowledged up to ``reported_at``, ``documents_per_s`` is the
    rate over the last report interval. The lock outlives its last renewal by ``ttl_s`` seconds.
    ``fence`` is its create revision, ``lease`` the id of the lease it is bound to.
    """

    tenant: str
    collection: str
    version: int
    builder: str
    since: datetime
    documents: int
    chunks: int
    documents_per_s: float
    reported_at: datetime
    ttl_s: int
    fence: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection with its pointer, if a version is active, and its versions by number.

    ``build`` is the one under way, None while nobody holds the build lock. ``statistics`` are those
    of the versions whose words were counted and can be read.
    """

    tenant: str
    name: str
    active: Pointer | None
    versions: tuple[VersionRecord, ...]
    build: Build | None = None
    statistics: tuple[WordStatisticsRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A running service; ``address`` is HOST:PORT."""

    id: str
    service: str
    address: str
    started_at: datetime
