"""An index service that keeps documents in a dictionary, records what it is asked and fails on
command: the contract's side of the ingestor's tests, over a real gRPC server."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from common.config import load
from common.errors import FailedPrecondition, NotFound
from common.rpc import GrpcServer, ServerSettings, ServiceBinding
from ingestor.ingestion import Ingestion
from ingestor.progress import ProgressMode, shown
from ingestor.rebuilding import Rebuild
from ingestor.settings import IngestorConfig
from ingestor.storage.pyarrow_storage import PyArrowStorage
from sluice.collections.v1 import collections_pb2, collections_pb2_grpc
from sluice.index.v1 import index_pb2, index_pb2_grpc
from tests.integration.ingestor.recorded_collections import Builds, CollectionsServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from common.errors import SluiceError
    from ingestor.report import IngestReport
    from sluice.document.v1 import document_pb2

    Acknowledge = Callable[[document_pb2.Document], index_pb2.Acknowledgement | None]


async def _nothing() -> None:
    pass


@dataclass
class Recorder:
    """What the service holds and was asked, and how it is to misbehave."""

    # By index version; ``documents`` are those of the active one.
    stores: dict[int, dict[str, document_pb2.Document]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    containers: list[tuple[str, int]] = field(default_factory=list)  # asked to delete, with version
    # Documents that one call deletes of a container.
    deletes_at_once: int = 1000
    openings: list[index_pb2.StreamOpening] = field(default_factory=list)
    listings: int = 0
    creations: int = 0
    version: int = 1
    versions: list[int] = field(default_factory=lambda: [1])
    created_s: int = 1_700_000_000
    states: dict[int, collections_pb2.VersionState.ValueType] = field(default_factory=dict)
    builds: Builds = field(default_factory=Builds)
    activated: list[int] = field(default_factory=list)
    # Awaited in the midst of a verification.
    on_verify: Callable[[], Awaitable[None]] = field(default=_nothing)
    findings: list[str] = field(default_factory=list)
    expected: list[int] = field(default_factory=list)
    rejections: dict[str, index_pb2.RejectionCause.ValueType] = field(default_factory=dict)
    # Each opening takes the next failure: after so many documents this error, or a plain end.
    failures: list[tuple[int, SluiceError | None]] = field(default_factory=list)
    # Ids of documents of which no revision is complete.
    fragments: set[str] = field(default_factory=set)
    reverse: bool = False
    silent: bool = False
    # Called with each document before it is acknowledged.
    on_document: Callable[[document_pb2.Document], None] = lambda _: None
    limits: index_pb2.StreamOpened = field(
        default_factory=lambda: index_pb2.StreamOpened(
            index_version=1,
            max_batch_documents=16,
            max_batch_bytes=1 << 20,
            max_document_bytes=1 << 19,
        )
    )

    @property
    def documents(self) -> dict[str, document_pb2.Document]:
        return self.held(self.version)

    def held(self, version: int) -> dict[str, document_pb2.Document]:
        return self.stores.setdefault(version, {})

    def check_writable(self, version: int) -> None:
        if version not in self.versions:
            raise NotFound(f"there is no version {version}")
        if version != self.version and not self.builds.holds(version):
            raise FailedPrecondition(f"version {version} takes no writes; {self.version} is active")

    def uris(self) -> set[str]:
        return {document.source_uri for document in self.documents.values()}

    def names(self) -> set[str]:
        return {uri.rpartition("/")[2] for uri in self.uris()}

    def acknowledge(
        self, document: document_pb2.Document, version: int
    ) -> index_pb2.Acknowledgement:
        self.sent.append(document.source_uri)
        self.on_document(document)
        answer = index_pb2.Acknowledgement(
            document_id=document.document_id, version=document.version
        )
        cause = self.rejections.get(document.source_uri.rpartition("/")[2])
        documents = self.held(version)
        held = documents.get(document.document_id)
        if cause is None and document.document_id in self.fragments:
            self.fragments.remove(document.document_id)
            held = None
        if cause is not None:
            answer.outcome = index_pb2.OUTCOME_REJECTED
            answer.rejection.cause = cause
            answer.rejection.message = "refused"
        elif held is not None and held.version > document.version:
            answer.outcome = index_pb2.OUTCOME_SUPERSEDED
        elif held is not None and held.content_digest == document.content_digest:
            documents[document.document_id] = document
            answer.outcome = index_pb2.OUTCOME_UNCHANGED
            answer.chunk_count = 1
        else:
            documents[document.document_id] = document
            answer.outcome = index_pb2.OUTCOME_INDEXED
            answer.chunk_count = 1
        return answer


class IndexServicer(index_pb2_grpc.IndexServiceServicer):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def IndexDocuments(self, request_iterator, context):  # noqa: ARG002, N802 — the stub's names
        recorder = self._recorder
        failure = recorder.failures.pop(0) if recorder.failures else None
        taken = version = 0
        async for request in request_iterator:
            if request.HasField("opening"):
                recorder.openings.append(request.opening)
                version = request.opening.index_version or recorder.version
                recorder.check_writable(version)
                if failure is not None and failure[0] == 0 and failure[1] is not None:
                    raise failure[1]
                yield index_pb2.IndexDocumentsResponse(opened=recorder.limits)
                continue
            documents = list(request.batch.documents)
            assert 0 < len(documents) <= recorder.limits.max_batch_documents
            assert request.batch.ByteSize() <= recorder.limits.max_batch_bytes
            assert len({document.document_id for document in documents}) == len(documents)
            recorder.batches.append(len(documents))
            if recorder.silent:
                await asyncio.Event().wait()
            recorder.check_writable(version)
            for document in reversed(documents) if recorder.reverse else documents:
                answer = recorder.acknowledge(document, version)
                taken += 1
                if failure is not None and taken >= failure[0]:
                    if failure[1] is None:
                        return
                    raise failure[1]
                response = index_pb2.IndexDocumentsResponse()
                response.acknowledgements.acknowledgements.append(answer)
                yield response

    async def DeleteDocuments(self, request, context):  # noqa: ARG002, N802 — as above
        assert len(request.documents) + len(request.containers) >= 1
        assert len(request.documents) <= 1000
        assert len(request.containers) <= 100
        response = index_pb2.DeleteDocumentsResponse()
        self._recorder.check_writable(request.index_version)
        documents = self._recorder.held(request.index_version)
        for deletion in request.documents:
            held = documents.get(deletion.document_id)
            outcome = index_pb2.DELETION_OUTCOME_ABSENT
            if held is not None and deletion.version and held.version > deletion.version:
                outcome = index_pb2.DELETION_OUTCOME_SUPERSEDED
            elif held is not None:
                del documents[deletion.document_id]
                self._recorder.deleted.append(held.source_uri)
                outcome = index_pb2.DELETION_OUTCOME_DELETED
            response.results.add(document_id=deletion.document_id, outcome=outcome)
        for container in request.containers:
            recorder = self._recorder
            recorder.containers.append((container.container_uri, container.version))
            found = [
                document_id
                for document_id, document in documents.items()
                if document.container_uri == container.container_uri
                and (not container.version or document.version <= container.version)
            ]
            for document_id in found[: recorder.deletes_at_once]:
                recorder.deleted.append(documents.pop(document_id).source_uri)
            response.container_results.add(
                container_uri=container.container_uri,
                deleted=min(len(found), recorder.deletes_at_once),
                complete=len(found) <= recorder.deletes_at_once,
            )
        return response

    async def ListDocuments(self, request, context):  # noqa: ARG002, N802 — as above
        self._recorder.listings += 1
        for document in list(self._recorder.held(request.index_version).values()):
            fragment = document.document_id in self._recorder.fragments
            if fragment and not request.fragments:
                continue
            if document.source_uri.startswith(request.source_uri_prefix):
                response = index_pb2.ListDocumentsResponse()
                response.documents.add(
                    document_id=document.document_id,
                    source_uri=document.source_uri,
                    container_uri=document.container_uri,
                    version=document.version,
                    fragment=fragment,
                )
                yield response


def bindings(recorder: Recorder, index: IndexServicer | None = None) -> list[ServiceBinding]:
    index = index or IndexServicer(recorder)
    collections = CollectionsServicer(recorder)  # type: ignore[abstract]  # the rest is not used
    return [
        ServiceBinding(
            "sluice.index.v1.IndexService",
            lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(index, server),
        ),
        ServiceBinding(
            "sluice.collections.v1.CollectionsService",
            lambda server: collections_pb2_grpc.add_CollectionsServiceServicer_to_server(
                collections, server
            ),
        ),
    ]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def serve(recorder: Recorder) -> AsyncIterator[Callable[..., Any]]:
    """Starts the service, on a free port or the one given; returns (address, stop)."""
    async with AsyncExitStack() as stack:

        async def start(listen: str = "127.0.0.1:0"):
            server = AsyncExitStack()
            settings = ServerSettings(listen=listen, drain_s=0)
            running = await server.enter_async_context(
                GrpcServer.open(settings, bindings(recorder))
            )
            stack.push_async_callback(server.aclose)
            return running.address, server.aclose

        yield start


def silent(counters, root_uri):
    return shown(counters, root_uri, ProgressMode.NONE, sys.stderr)


@dataclass
class Ingester:
    """Runs jobs over one folder against the recorder."""

    target: str
    state: Path
    root: Path
    coordinator: dict[str, Any] = field(default_factory=dict)

    def config(self, **ingest) -> IngestorConfig:
        stream = {"first_delay_s": 0.01, "max_delay_s": 0.05, "linger_s": 0.01}
        stream |= ingest.pop("stream", {})
        extraction = {"workers": 2} | ingest.pop("extraction", {})
        settings = {"state_uri": str(self.state), "stream": stream, "extraction": extraction}
        overrides = {
            "ingest": settings | ingest,
            "client": {"target": self.target},
            "coordinator": self.coordinator,
        }
        return load(IngestorConfig, file=None, environ={}, overrides=overrides)

    async def __call__(
        self,
        *uris: str,
        rebuild=False,
        activate=False,
        force=False,
        exam=None,
        stop=None,
        show=silent,
        **ingest,
    ) -> IngestReport:
        plan = Rebuild(activate=activate, force=force, exam=exam) if rebuild else None
        async with Ingestion.open(self.config(**ingest), {}) as ingestion:
            return await ingestion.ingest(
                uris or [str(self.root)],
                "docs",
                show=show,
                plan=plan,
                stop=stop,
            )

    async def watch(self, told, stop: asyncio.Event, every_s=0.01, **ingest) -> None:
        async with Ingestion.open(self.config(**ingest), {}) as ingestion:
            await ingestion.watch(
                [str(self.root)], "docs", every_s=every_s, show=silent, told=told, stop=stop
            )

    async def letters(self, **ingest):
        async with Ingestion.open(self.config(**ingest), {}) as ingestion:
            return await ingestion.dead_letters.letters("docs")

    async def retry(self, letters, **ingest):
        async with Ingestion.open(self.config(**ingest), {}) as ingestion:
            return await ingestion.retry(letters, silent)

    async def drop(self, letters):
        async with Ingestion.open(self.config(), {}) as ingestion:
            return await ingestion.dead_letters.drop(letters)


@pytest.fixture
async def ingester(serve, tmp_path: Path) -> Ingester:
    address, _ = await serve()
    root = tmp_path / "root"
    root.mkdir()
    return Ingester(address, tmp_path / "state", root)


@pytest.fixture
def deny_listing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[], None]]:
    """Lets the listing of one folder fail, until what it returns is called.

    The tests may run as root, whom no permission stops.
    """
    original = PyArrowStorage.chunks

    def deny(denied: str) -> Callable[[], None]:
        def chunks(self: PyArrowStorage, folder: str):
            if folder == denied:
                raise PermissionError(13, "Permission denied")
            yield from original(self, folder)

        monkeypatch.setattr(PyArrowStorage, "chunks", chunks)
        return lambda: monkeypatch.setattr(PyArrowStorage, "chunks", original)

    return deny


PROGRAMS = {
    "ingest": "import typer; from ingestor.commands import ingest; typer.run(ingest)",
    "dead-letters": "from ingestor.commands import dead_letters; dead_letters()",
}


@pytest.fixture
async def start(ingester: Ingester) -> AsyncIterator[Callable[..., Any]]:
    """Starts a command as a process of its own, which does not outlive the test."""
    settings = {
        "SLUICE_INGEST__STATE_URI": str(ingester.state),
        "SLUICE_INGEST__CHECKPOINT_S": "0.05",
        "SLUICE_INGEST__STREAM__LINGER_S": "0.001",
        "SLUICE_TELEMETRY__LOG_LEVEL": "error",
        "SLUICE_CLIENT__TARGET": ingester.target,
    }
    started: list[asyncio.subprocess.Process] = []

    async def run(command: str, *words: str) -> asyncio.subprocess.Process:
        about = [str(ingester.root), "--collection", "docs"] if command == "ingest" else []
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAMS[command], *about, *words),
            env=os.environ | settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()
