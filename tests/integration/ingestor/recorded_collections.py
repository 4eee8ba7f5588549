"""The collections service of the recording server: versions, the build lock and its lease, and
verdicts, by the rules of the contract."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from common.errors import Contended, FailedPrecondition, NotFound
from sluice.collections.v1 import collections_pb2 as pb
from sluice.collections.v1 import collections_pb2_grpc

if TYPE_CHECKING:
    from common.errors import SluiceError
    from tests.integration.ingestor.conftest import Recorder


@dataclass
class Builds:
    """The build lock and what builders did; ``message`` is of whoever holds it or held it last."""

    message: pb.Build = field(default_factory=pb.Build)
    fence: int = 100
    until_s: float = 0.0
    # (documents, chunks, rate) of each renewal that went well; raised instead where set.
    renewals: list[tuple[int, int, float]] = field(default_factory=list)
    renewal_failure: SluiceError | None = None
    tried: int = 0
    # (version, reason) of each EndBuild that was not lost before.
    ended: list[tuple[int, str]] = field(default_factory=list)
    # What a verification says besides ``Recorder.findings``.
    golden: pb.GoldenScore | None = None
    misses: list[pb.GoldenMiss] = field(default_factory=list)
    verifications: list[pb.VerifyVersionRequest] = field(default_factory=list)
    activations: list[pb.ActivateVersionRequest] = field(default_factory=list)

    @property
    def is_held(self) -> bool:
        return time.monotonic() < self.until_s

    def holds(self, version: int, fence: int = 0) -> bool:
        """Whether this version is being built, under this fence if one is given."""
        return self.is_held and self.message.version == version and fence in {0, self.fence}

    def take(self, version: int, builder: str, ttl_s: int) -> None:
        self.fence += 1
        self.message = pb.Build(version=version, builder=builder, ttl_s=ttl_s)
        self.message.since.GetCurrentTime()
        self.until_s = time.monotonic() + ttl_s

    def check(self, version: int, fence: int) -> None:
        if not self.holds(version, fence):
            raise FailedPrecondition(f"version {version} lost its build lock")


class CollectionsServicer(collections_pb2_grpc.CollectionsServiceServicer):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def _version(self, number: int) -> pb.IndexVersion:
        created = Timestamp(seconds=self._recorder.created_s + number)
        state = self._recorder.states.get(number, pb.VERSION_STATE_READY)
        return pb.IndexVersion(number=number, created_at=created, state=state)

    def _collection(self, tenant: str, name: str) -> pb.Collection:
        recorder = self._recorder
        collection = pb.Collection(tenant=tenant, name=name)
        collection.active.version = recorder.version
        collection.versions.extend(self._version(number) for number in recorder.versions)
        if recorder.builds.is_held:
            collection.build.CopyFrom(recorder.builds.message)
        return collection

    async def CreateCollection(self, request, context):  # noqa: ARG002, N802 — the stub's names
        self._recorder.creations += 1
        collection = self._collection(request.tenant, request.collection)
        return pb.CreateCollectionResponse(collection=collection)

    async def ListCollections(self, request, context):  # noqa: ARG002, N802 — as above
        found = [pb.Collection(tenant=request.tenant, name=name) for name in ("a", "other")]
        if self._recorder.versions:
            found.append(self._collection(request.tenant, "docs"))
        return pb.ListCollectionsResponse(collections=found)

    async def BeginVersion(self, request, context):  # noqa: ARG002, N802 — as above
        recorder, builds = self._recorder, self._recorder.builds
        if builds.is_held:
            raise Contended(
                f"version {builds.message.version} is being built by {builds.message.builder}",
                retry_after_ms=1000 * builds.message.ttl_s,
            )
        number = max(recorder.versions) + 1
        recorder.versions.append(number)
        recorder.states[number] = pb.VERSION_STATE_BUILDING
        builds.take(number, request.builder, request.ttl_s or 15)
        return pb.BeginVersionResponse(
            version=self._version(number), fence=builds.fence, ttl_s=builds.message.ttl_s
        )

    async def RenewBuild(self, request, context):  # noqa: ARG002, N802 — as above
        builds = self._recorder.builds
        builds.tried += 1
        if builds.renewal_failure is not None:
            raise builds.renewal_failure
        builds.check(request.index_version, request.fence)
        builds.until_s = time.monotonic() + builds.message.ttl_s
        builds.renewals.append((request.documents, request.chunks, request.documents_per_s))
        return pb.RenewBuildResponse()

    async def EndBuild(self, request, context):  # noqa: ARG002, N802 — as above
        recorder, builds, number = self._recorder, self._recorder.builds, request.index_version
        if builds.holds(number, request.fence):
            if recorder.states[number] == pb.VERSION_STATE_BUILDING:
                recorder.states[number] = pb.VERSION_STATE_FAILED
            builds.until_s = 0.0
            builds.ended.append((number, request.reason))
        return pb.EndBuildResponse(version=self._version(number))

    async def VerifyVersion(self, request, context):  # noqa: ARG002, N802 — as above
        recorder, builds = self._recorder, self._recorder.builds
        builds.check(request.index_version, request.fence)
        builds.verifications.append(request)
        recorder.expected.append(request.expected_documents)
        await recorder.on_verify()
        builds.check(request.index_version, request.fence)
        recorder.states[request.index_version] = pb.VERSION_STATE_READY
        return pb.VerifyVersionResponse(
            passed=not recorder.findings,
            findings=recorder.findings,
            golden=builds.golden,
            misses=builds.misses,
        )

    async def ActivateVersion(self, request, context):  # noqa: ARG002, N802 — as above
        recorder, builds, number = self._recorder, self._recorder.builds, request.index_version
        if number not in recorder.versions:
            raise NotFound(f"there is no version {number}")
        if request.fence:
            builds.check(number, request.fence)
        if recorder.states.get(number) in {pb.VERSION_STATE_BUILDING, pb.VERSION_STATE_FAILED}:
            raise FailedPrecondition(f"version {number} is not ready")
        if recorder.findings and not request.force:
            raise FailedPrecondition(f"version {number} fell short")
        builds.activations.append(request)
        recorder.activated.append(number)
        recorder.version = number
        return pb.ActivateVersionResponse(changed=True)
