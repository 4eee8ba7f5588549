"""Looks at what Sluice depends on and names each fault with its cure.

Here stand the checks of what the client and ``common`` know; services add theirs by entry points.
What the settings do not mention is not looked for: ``sluice up`` brings its own coordinator and
vector store. Nothing here may change anything.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from functools import partial
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING

from client.health import NOT_OFFERED, UNREACHABLE, ask
from client.settings import Connection, load_connection, load_coordinator
from common.config import Settings, load
from common.discovery import open_fleet
from common.doctor import ENTRY_POINT_GROUP, Check
from common.embedding.settings import EmbeddingSettings
from common.errors import SluiceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from client.health import ServerHealth
    from common.doctor import CheckSource

LEAST_PYTHON = (3, 11)
PROBE_TIMEOUT_S = 3.0
SERVICES = (
    ("index", "sluice.index.v1.IndexService"),
    ("collections", "sluice.collections.v1.CollectionsService"),
    ("query", "sluice.query.v1.QueryService"),
)
PROBE = "Which machine holds the oldest replica?"


class EmbeddingConfig(Settings):
    """Section ``embedding``, for what needs no other."""

    embedding: EmbeddingSettings = EmbeddingSettings()


def examine(
    *, file: Path | None, environ: Mapping[str, str], target: str | None = None
) -> Iterator[Check]:
    """Run every check, one after the other; an exception of a check is its fault.

    Args:
        file: settings, as ``config.load`` takes them.
        environ: likewise.
        target: server to look at instead of the configured ones.
    """
    yield from (_python(), Check("sluice", ok=True, detail=f"version {version('sluice')}"))
    try:
        client = load_connection(file=file, environ=environ, target=target)
    except SluiceError as error:
        yield Check("settings", ok=False, detail=error.message, cure="correct this key")
        return
    yield Check("settings", ok=True, detail=str(file) if file else "defaults and environment")
    sources: dict[str, CheckSource] = {
        "embedding": _embedding,
        "coordinator": _coordinator,
        "vector store": _vector_store,
    }
    for name, source in sources.items():
        yield from _guarded(name, partial(source, file=file, environ=environ))
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        yield from _guarded(point.name, partial(_plugged_in, point, file, environ))
    yield from _guarded("server", lambda: asyncio.run(probe_servers(client)))


def _guarded(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except SluiceError as error:
        yield Check(name, ok=False, detail=error.message, cure="as the message says")
    except ModuleNotFoundError as error:
        cure = "install sluice[all], or the extra of the service that runs here"
        yield Check(name, ok=False, detail=f"{error.name} is not installed", cure=cure)
    except Exception as error:  # noqa: BLE001  # whatever a check dies of is what it found
        detail = f"the check itself failed ({type(error).__name__})"
        yield Check(name, ok=False, detail=detail, cure="run `sluice --debug doctor`")


def _plugged_in(
    point: EntryPoint, file: Path | None, environ: Mapping[str, str]
) -> Iterable[Check]:
    source: CheckSource = point.load()
    return source(file=file, environ=environ)


def _python() -> Check:
    found = platform.python_version()
    if sys.version_info >= LEAST_PYTHON:
        return Check("python", ok=True, detail=found)
    least = ".".join(map(str, LEAST_PYTHON))
    return Check("python", ok=False, detail=found, cure=f"install Python {least} or newer")


def _embedding(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Open the configured embedder and let it embed one question."""
    from common.embedding import open_embedder  # noqa: PLC0415  # needs an extra

    settings = load(EmbeddingConfig, file=file, environ=environ).embedding

    async def embed() -> str:
        embedder = await asyncio.to_thread(open_embedder, settings)
        try:
            vector = await embedder.embed_query(PROBE)
            return f"{embedder.spec.model} {embedder.spec.variant}, {vector.shape[0]} dimensions"
        finally:
            await embedder.aclose()

    yield Check("embedding", ok=True, detail=asyncio.run(embed()))


def _coordinator(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Ask etcd for a key, where etcd is configured; an embedded one belongs to its process."""
    from common.coordination import open_coordinator  # noqa: PLC0415  # slow

    settings = load_coordinator(file=file, environ=environ)
    if settings.kind != "etcd":
        yield Check("coordinator", ok=True, detail="embedded: nothing to reach")
        return

    async def look() -> None:
        coordinator = open_coordinator(settings)
        try:
            await coordinator.get("instances/doctor")
        finally:
            await coordinator.aclose()

    where = ", ".join(settings.endpoints)
    try:
        asyncio.run(look())
    except SluiceError as error:
        cure = "start etcd there, or set coordinator.endpoints and its credentials"
        yield Check("coordinator", ok=False, detail=f"etcd at {where}: {error.message}", cure=cure)
        return
    yield Check("coordinator", ok=True, detail=f"etcd answers at {where}")


def _vector_store(*, file: Path | None, environ: Mapping[str, str]) -> Iterator[Check]:
    """Ask a Chroma server for its heartbeat, where one is configured."""
    config = load(_Mentioned, file=file, environ=environ)
    if config.chroma is None or config.chroma.get("mode", "server") != "server":
        yield Check("vector store", ok=True, detail="embedded: nothing to reach")
        return
    from common.chroma import ChromaSettings, open_chroma  # noqa: PLC0415  # slow, needs an extra

    class ChromaConfig(Settings):
        chroma: ChromaSettings = ChromaSettings()

    settings = load(ChromaConfig, file=file, environ=environ).chroma

    async def look() -> None:
        chroma = await asyncio.to_thread(open_chroma, settings)
        try:
            await chroma.heartbeat()
        finally:
            await chroma.aclose()

    where = f"{settings.host}:{settings.port}"
    try:
        asyncio.run(look())
    except SluiceError as error:
        cure = f"start it there (`chroma run --host {settings.host} --port {settings.port}`), or "
        cure += "set chroma.host and chroma.port"
        yield Check("vector store", ok=False, detail=error.message, cure=cure)
        return
    yield Check("vector store", ok=True, detail=f"Chroma answers at {where}")


class _Mentioned(Settings):
    """Section ``chroma`` as it was written, None where it was not: the default is a server."""

    chroma: dict[str, object] | None = None


async def probe_servers(settings: Connection) -> list[Check]:
    """Ask each service for its health, at each of its servers; a fault is told of once."""
    checks: dict[Check, None] = {}
    once = settings.channel.model_copy(update={"max_attempts": 1})
    for name, service in SERVICES:
        target = settings.queries if name == "query" else settings.target
        async with open_fleet(target, once, settings.coordinator, service=name) as fleet:
            try:
                addresses = await fleet.addresses()
            except Unavailable as error:
                cure = "as the message says"
                checks[Check("server", ok=False, detail=error.message, cure=cure)] = None
                continue
            for address in addresses:
                health = await ask(fleet, address, service=service, timeout_s=PROBE_TIMEOUT_S)
                checks[_told(f"{name} server", service, health)] = None
    return list(checks)


def _told(name: str, service: str, health: ServerHealth) -> Check:
    """The finding about one server."""
    if health.status == NOT_OFFERED:
        detail = f"{health.address} does not offer {service}"
        cure = "set client.target and client.query_target to the servers that do"
        return Check(name, ok=False, detail=detail, cure=cure)
    if health.status == UNREACHABLE:
        # One finding, however many services it was asked for.
        detail = f"no server answers at {health.address}"
        cure = "start one with `sluice up`, or name its address with --target or client.target"
        return Check("server", ok=False, detail=detail, cure=cure)
    if not health.is_serving:
        cure = "wait until it is up again, or look at its log"
        return Check(name, ok=False, detail=health.reason, cure=cure)
    return Check(name, ok=True, detail=f"{health.address} is serving")
