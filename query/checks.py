"""What `sluice doctor` asks of the query service.

Whether its native library loads and ranks here, whether the cross-encoder that is set opens, and
whether the servers that are configured follow the coordinator. A server that does not answer at all
is told of by the client's own check.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.config import Settings, load
from common.connection import ConnectionSettings
from common.coordination import CoordinatorSettings
from common.discovery import open_fleet
from common.doctor import Check
from common.errors import ConfigurationError, SluiceError, Unavailable
from query.cross_encoder import open_cross_encoder
from query.settings import QuerySettings
from query.staleness import COORDINATOR
from rerank_zig import RerankLibrary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from query.cross_encoder import CrossEncoderSettings

PROBE_TIMEOUT_S = 3.0


class _Config(Settings):
    """Where the query servers are, and what one that starts here would load."""

    client: ConnectionSettings = ConnectionSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    query: QuerySettings = QuerySettings()


def checks(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Score texts as the server does, and ask the servers whether they are up to date."""
    config = load(_Config, file=file, environ=environ)
    if config.query.cross_encoder is not None:
        yield asyncio.run(_cross_encoder(config.query.cross_encoder))
    yield _reranker()
    yield from asyncio.run(_routes(config))


def _reranker() -> Check:
    try:
        scores = RerankLibrary.load().score(
            "replica", ["a replica is missing", "nothing"], np.zeros(2, np.float32)
        )
    except SluiceError as error:
        return Check("native reranker", ok=False, detail="does not load", cure=error.message)
    ranks = bool(scores.fused[0] > scores.fused[1])
    cure = "" if ranks else "build it again: make setup"
    return Check("native reranker", ok=ranks, detail="loads and ranks", cure=cure)


async def _cross_encoder(settings: CrossEncoderSettings) -> Check:
    """Open it and score one text."""
    try:
        encoder = await asyncio.to_thread(open_cross_encoder, settings)
    except ConfigurationError as error:
        detail, cure = error.message, "as the message says"
        return Check("cross-encoder", ok=False, detail=detail, cure=cure)
    try:
        scores = await encoder.score("replica", ["a replica is missing"], budget_s=PROBE_TIMEOUT_S)
    finally:
        await encoder.aclose()
    where = settings.folder
    if len(scores):
        return Check("cross-encoder", ok=True, detail=f"{where} opens and scores")
    return Check(
        "cross-encoder",
        ok=False,
        detail=f"{where} scores no text within {PROBE_TIMEOUT_S:.0f} s",
        cure="set query.cross_encoder.file to its int8 graph, or take a smaller model",
    )


async def _routes(config: _Config) -> list[Check]:
    """Whether each server follows the coordinator; none for one that does not answer."""
    once = config.client.channel.model_copy(update={"max_attempts": 1})
    found = []
    async with open_fleet(
        config.client.queries, once, config.coordinator, service="query"
    ) as fleet:
        with suppress(Unavailable):
            for address in await fleet.addresses():
                async with fleet.channel(address) as channel:
                    found.append(await _route(channel, address))
    return [check for check in found if check is not None]


async def _route(channel: grpc.aio.Channel, address: str) -> Check | None:
    request = health_pb2.HealthCheckRequest(service=COORDINATOR)
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(request, timeout=PROBE_TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return None
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Check("query routes", ok=True, detail=f"{address} follows the coordinator")
    return Check(
        "query routes",
        ok=False,
        detail=f"{address} cannot reach the coordinator and answers from the last versions it knew",
        cure="start etcd, or mend the way from there to it; queries go on meanwhile",
    )
