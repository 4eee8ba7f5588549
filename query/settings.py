"""Settings of the query server: bounds, defaults and where it listens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.config import Settings
from common.rpc import ListenAddress, ServerSettings
from query.cross_encoder import CrossEncoderSettings
from rerank_zig import FusionOptions, Normalisation

MIB = 2**20


class QueryServerSettings(ServerSettings):
    """As every server's, on the query server's port."""

    listen: ListenAddress = "127.0.0.1:50052"


class RerankSettings(Settings):
    """How candidates are scored; weights are for requests that give none.

    Attributes:
        alpha: share of meaning, words have the rest; absent, it adapts to each query.
        k1: BM25's saturation by term frequency; absent as the four below, `rerank_zig`'s default.
        b: BM25's share of length normalisation.
        title: what a word in the title counts beside one in the text.
        proximity: what words of the query near each other add.
        normalisation: what brings both parts to one scale.
        threads: queries scored at the same time.
        term_store_bytes: bound of what is kept of chunks' words, so that scoring reads no texts.
    """

    alpha: float | None = Field(default=None, ge=0, le=1)
    k1: float | None = Field(default=None, ge=0, le=10)
    b: float | None = Field(default=None, ge=0, le=1)
    title: float | None = Field(default=None, ge=0, le=100)
    proximity: float | None = Field(default=None, ge=0, le=10)
    normalisation: Literal["min_max", "theoretical"] | None = None
    threads: int = Field(default=2, ge=1, le=256)
    term_store_bytes: int = Field(default=256 * MIB, ge=MIB)

    def options(self) -> FusionOptions:
        """The weights, those of the library where none is set."""
        given = self.model_dump(
            include={"alpha", "k1", "b", "title", "proximity"}, exclude_none=True
        )
        if self.normalisation is not None:
            given["normalisation"] = Normalisation[self.normalisation.upper()]
        return FusionOptions(**given)


class QuerySettings(Settings):
    """Section ``query``.

    Attributes:
        server: where it listens.
        advertise: HOST:PORT under which others reach it; empty for the address it listens on or,
            if that is every address, the one from which this machine reaches etcd.
        deadline_s: of a request that brings none, in seconds.
        rerank_reserve_ms: with less time left than this, reranking is skipped or cut.
        max_searches: searches that run at once.
        max_waiting: searches that wait for their turn; beyond that they are refused with a delay.
            With those that run it stays below the server's ``max_concurrent_rpcs``, over which
            gRPC refuses without one.
        max_stream_searches: searches of one stream in progress at once.
        cross_encoder: absent, the mode CROSS_ENCODER is refused.
        chunk_cache_bytes: bound of the texts kept in memory, for hits.
        word_statistics_bytes: bound of the word statistics of index versions kept in memory; words
            of a version whose table does not fit are weighed by the candidates of each query.
        instance_ttl_s: how long its registration and its pins outlive it, in seconds.
    """

    server: QueryServerSettings = QueryServerSettings()
    advertise: str = ""
    rerank: RerankSettings = RerankSettings()
    cross_encoder: CrossEncoderSettings | None = None
    deadline_s: float = Field(default=10.0, gt=0, le=600)
    rerank_reserve_ms: float = Field(default=50.0, ge=0)
    max_searches: int = Field(default=16, ge=1, le=4096)
    max_waiting: int = Field(default=64, ge=0, le=65_536)
    max_stream_searches: int = Field(default=8, ge=1, le=256)
    chunk_cache_bytes: int = Field(default=256 * MIB, ge=0)
    word_statistics_bytes: int = Field(default=256 * MIB, ge=0)
    instance_ttl_s: int = Field(default=10, ge=2, le=600)
