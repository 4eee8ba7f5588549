"""Settings of the query server: bounds, defaults and where it listens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.config import Settings
from common.rpc import ListenAddress, ServerSettings

MIB = 2**20


class QueryServerSettings(ServerSettings):
    """As every server's, on the query server's port."""

    listen: ListenAddress = "127.0.0.1:50052"


class RerankSettings(Settings):
    """Weights of a fused ranking where a request gives none.

    Attributes:
        alpha: share of meaning; words have the rest.
        k1: BM25's saturation by term frequency.
        b: BM25's share of length normalisation.
        normalisation: what brings both parts to one scale.
        threads: queries scored at the same time.
    """

    alpha: float = Field(default=0.5, ge=0, le=1)
    k1: float = Field(default=1.2, ge=0, le=10)
    b: float = Field(default=0.75, ge=0, le=1)
    normalisation: Literal["min_max", "theoretical"] = "min_max"
    threads: int = Field(default=2, ge=1, le=256)


class QuerySettings(Settings):
    """Section ``query``.

    Attributes:
        server: where it listens.
        advertise: HOST:PORT under which others reach it; empty for the address it listens on or,
            if that is every address, the one from which this machine reaches etcd.
        deadline_s: of a request that brings none, in seconds.
        rerank_reserve_ms: with less time left than this, reranking is skipped.
        max_searches: searches that run at once.
        max_waiting: searches that wait for their turn; beyond that they are refused with a delay.
            With those that run it stays below the server's ``max_concurrent_rpcs``, over which
            gRPC refuses without one.
        max_stream_searches: searches of one stream in progress at once.
        chunk_cache_bytes: bound of the texts kept in memory.
        instance_ttl_s: how long its registration and its pins outlive it, in seconds.
    """

    server: QueryServerSettings = QueryServerSettings()
    advertise: str = ""
    rerank: RerankSettings = RerankSettings()
    deadline_s: float = Field(default=10.0, gt=0, le=600)
    rerank_reserve_ms: float = Field(default=50.0, ge=0)
    max_searches: int = Field(default=32, ge=1, le=4096)
    max_waiting: int = Field(default=128, ge=0, le=65_536)
    max_stream_searches: int = Field(default=8, ge=1, le=256)
    chunk_cache_bytes: int = Field(default=256 * MIB, ge=0)
    instance_ttl_s: int = Field(default=10, ge=2, le=600)
