"""Collections and their index versions, as frozen values that know nothing of gRPC.

Names are those of the contract ``sluice.collections.v1``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from sluice.collections.v1 import collections_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from _typeshed import DataclassInstance
    from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Embedder:
    """What turned text into vectors."""

    model: str
    digest: str
    dimension: int
    pooling: str
    max_tokens: int
    variant: str


@dataclass(frozen=True, slots=True)
class GoldenScore:
    """How well golden queries found what they should, each from 0 to 1.

    Attributes:
        queries: how many.
        depth: hits looked at for each.
        threshold: least score to pass.
        candidate: mean over the queries of the share of expected sources among the hits.
        active: the same for the version active then; None where there was none to be asked.
        active_version: its number; 0 where there was none.
    """

    queries: int
    depth: int
    threshold: float
    candidate: float
    active: float | None
    active_version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the last verification said of a version; ``findings`` is empty when it passed."""

    passed: bool
    verified_at: datetime | None
    findings: tuple[str, ...]
    golden: GoldenScore | None


@dataclass(frozen=True, slots=True)
class Forced:
    """Who activated a version although it fell short."""

    by: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class WordStatistics:
    """How often each word occurs in an index version, as it was last counted and published.

    Attributes:
        chunks: counted over.
        terms: different words.
        text_words: words of all texts together.
        title_words: of all titles.
        analysis: rules by which texts were cut into words.
        digest: SHA-256 of the table, hex.
        counted_at: when.
    """

    chunks: int
    terms: int
    text_words: int
    title_words: int
    analysis: int
    digest: str
    counted_at: datetime | None


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One version.

    Attributes:
        number: from 1; every attempt to build takes a new one.
        state: ``building``, ``ready``, ``active``, ``retired`` or ``failed``.
        embedder: what turned its text into vectors.
        splitter: how text was cut.
        chunk_tokens: largest chunk.
        overlap_tokens: shared by neighbours.
        documents: None where none were counted yet.
        chunks: likewise.
        created_at: when it was begun.
        activated_at: None if it never was active.
        store_collection: its name in the vector store.
        builder: who began it; empty for the first version of a collection.
        retired_at: None while it is active or if it never was.
        verdict: of the last verification; None before the first.
        forced: set when it was activated although it fell short.
        failure: why it is ``failed``.
        fence: of the build it was begun under.
        word_statistics: None until its words were first counted.
    """

    number: int
    state: str
    embedder: Embedder
    splitter: str
    chunk_tokens: int
    overlap_tokens: int
    documents: int | None
    chunks: int | None
    created_at: datetime | None
    activated_at: datetime | None
    store_collection: str
    builder: str = ""
    retired_at: datetime | None = None
    verdict: Verdict | None = None
    forced: Forced | None = None
    failure: str = ""
    fence: int = 0
    word_statistics: WordStatistics | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """A build under way; counts are those acknowledged up to ``reported_at``.

    Attributes:
        version: which is built.
        builder: who builds, as it named itself.
        since: when it began.
        documents: so far.
        chunks: so far.
        documents_per_s: over the last report interval.
        reported_at: when its lock was last renewed.
        ttl_s: how long the lock outlives its last renewal.
    """

    version: int
    builder: str
    since: datetime | None
    documents: int
    chunks: int
    documents_per_s: float
    reported_at: datetime | None
    ttl_s: int


@dataclass(frozen=True, slots=True)
class ActivePointer:
    """Which version answers; ``previous_version`` is 0 if there was none."""

    version: int
    generation: int
    activated_at: datetime | None
    previous_version: int


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection; versions ascend by number."""

    tenant: str
    name: str
    active: ActivePointer | None
    versions: tuple[IndexVersion, ...]
    build: Build | None = None

    @property
    def active_version(self) -> IndexVersion | None:
        """The version that answers queries, if there is one."""
        number = self.active.version if self.active else None
        return next((version for version in self.versions if version.number == number), None)

    def to_json(self) -> dict[str, Any]:
        """The collection as plain values for a JSON object."""
        return as_plain(self)


def as_plain(value: DataclassInstance) -> dict[str, Any]:
    """A frozen value as JSON can carry it; times are ISO 8601 in UTC."""

    def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: item.isoformat() if _is_time(item) else item for name, item in items}

    return asdict(value, dict_factory=plain)


def to_collection(message: collections_pb2.Collection) -> Collection:
    """The collection out of the contract."""
    return Collection(
        tenant=message.tenant,
        name=message.name,
        active=to_pointer(message.active) if message.HasField("active") else None,
        versions=tuple(to_version(version) for version in message.versions),
        build=_build(message.build) if message.HasField("build") else None,
    )


def to_version(message: collections_pb2.IndexVersion) -> IndexVersion:
    """The version out of the contract."""
    counted = message.HasField("counts")
    embedder, chunking = message.embedder, message.chunking
    return IndexVersion(
        number=message.number,
        state=collections_pb2.VersionState.Name(message.state)
        .removeprefix("VERSION_STATE_")
        .lower(),
        embedder=Embedder(
            model=embedder.model,
            digest=embedder.digest,
            dimension=embedder.dimension,
            pooling=embedder.pooling,
            max_tokens=embedder.max_tokens,
            variant=embedder.variant,
        ),
        splitter=chunking.splitter,
        chunk_tokens=chunking.chunk_tokens,
        overlap_tokens=chunking.overlap_tokens,
        documents=message.counts.documents if counted else None,
        chunks=message.counts.chunks if counted else None,
        created_at=_time(message, "created_at"),
        activated_at=_time(message, "activated_at"),
        store_collection=message.store_collection,
        builder=message.builder,
        retired_at=_time(message, "retired_at"),
        verdict=_verdict(message.verdict) if message.HasField("verdict") else None,
        forced=_forced(message.forced) if message.HasField("forced") else None,
        failure=message.failure,
        fence=message.fence,
        word_statistics=(
            _words(message.word_statistics) if message.HasField("word_statistics") else None
        ),
    )


def to_pointer(message: collections_pb2.ActivePointer) -> ActivePointer:
    """The pointer out of the contract."""
    return ActivePointer(
        version=message.version,
        generation=message.generation,
        activated_at=_time(message, "activated_at"),
        previous_version=message.previous_version,
    )


def to_score(message: collections_pb2.GoldenScore) -> GoldenScore:
    """The score out of the contract."""
    return GoldenScore(
        queries=message.queries,
        depth=message.depth,
        threshold=message.threshold,
        candidate=message.candidate,
        active=message.active if message.HasField("active") else None,
        active_version=message.active_version,
    )


def _verdict(message: collections_pb2.Verdict) -> Verdict:
    return Verdict(
        passed=message.passed,
        verified_at=_time(message, "verified_at"),
        findings=tuple(message.findings),
        golden=to_score(message.golden) if message.HasField("golden") else None,
    )


def _forced(message: collections_pb2.Forced) -> Forced:
    return Forced(message.by, _time(message, "at"))


def _words(message: collections_pb2.WordStatistics) -> WordStatistics:
    return WordStatistics(
        chunks=message.chunks,
        terms=message.terms,
        text_words=message.text_words,
        title_words=message.title_words,
        analysis=message.analysis,
        digest=message.digest,
        counted_at=_time(message, "counted_at"),
    )


def _build(message: collections_pb2.Build) -> Build:
    return Build(
        version=message.version,
        builder=message.builder,
        since=_time(message, "since"),
        documents=message.documents,
        chunks=message.chunks,
        documents_per_s=message.documents_per_s,
        reported_at=_time(message, "reported_at"),
        ttl_s=message.ttl_s,
    )


def _time(message: Message, field: str) -> datetime | None:
    """The time a message holds under a field, None where there is none."""
    if not message.HasField(field):
        return None
    moment: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return moment


def _is_time(value: object) -> bool:
    return hasattr(value, "isoformat")
