"""What the manifests of one index version say beside what the index holds; what verify asks of it.

It runs under the locks of a job, so that neither changes meanwhile, and never writes to the index:
what a repair finds is left to the next job. Rows stream by the thousand, and what the index holds
is noted in a temporary database on disk (``HeldFiles``), so that memory has the same bound for any
number of files; the disk takes some hundred bytes for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from common.config import load
from common.discovery import delay_s, is_passing
from common.errors import FailedPrecondition, InvalidArgument, SluiceError
from common.verification import MAX_FINDINGS, ManifestReport
from ingestor.ingestion import Ingestion
from ingestor.sending.index_client import IndexClient, IndexTarget
from ingestor.settings import IngestorConfig
from ingestor.state.file_records import FileOutcome, FileRecord, Holding, Kinds, confirms
from ingestor.state.held import HeldFiles
from ingestor.state.manifest import (
    Manifest,
    ManifestKey,
    only_job,
    read_rows,
    unusable_state,
    version_keys,
)
from ingestor.state.root_locks import hold_roots

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from pathlib import Path
    from typing import TypeVar

    from ingestor.rounds import Shop
    from ingestor.state.rows import Rows

    T = TypeVar("T")


async def check(
    *,
    config: Path | None,
    environ: Mapping[str, str],
    tenant: str,
    collection: str,
    version: int,
    created_at: str,
    incomplete: frozenset[str],
    repair: bool,
) -> ManifestReport:
    """Compare manifests with the index; a ``common.verification.ManifestCheck``.

    With ``repair`` the rows of what the index lacks are noted as to be read again, and a manifest
    that does not know of what the index holds is marked so that the next job asks the index.

    Raises:
        Contended, FailedPrecondition: a job runs over a root, or the state cannot be read.
        InvalidArgument: ``created_at`` is no time.
        SluiceError: the index cannot be listed.
    """
    settings = load(
        IngestorConfig, file=config, environ=environ, overrides={"client": {"tenant": tenant}}
    )
    environment = environ if isinstance(environ, MutableMapping) else dict(environ)
    async with (
        Ingestion.open(settings, environment) as ingestion,
        ingestion.open_shop() as shop,
    ):
        keys = await _keys(shop, collection, version, _moment(created_at))
        return await _Comparison(shop, keys, incomplete, repair=repair).run()


def _moment(text: str) -> int:
    """Microseconds since 1970: the same moment may be written in several ways."""
    moment = Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError:
        raise InvalidArgument(f"{text!r} is no time in ISO 8601", field="created_at") from None
    return moment.ToMicroseconds()


async def _keys(
    shop: Shop, collection: str, version: int, created_us: int
) -> tuple[ManifestKey, ...]:
    """The manifests of an index version, by root; another index may have had its number."""

    def find() -> tuple[ManifestKey, ...]:
        found = version_keys(shop.state, shop.tenant, collection, version)
        keys = (key for key in found if _moment(key.index_created_at) == created_us)
        return tuple(sorted(keys, key=lambda key: key.root_uri))

    return await _blocking(shop, find)


async def _blocking(shop: Shop, function: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(shop.keepers, function)
    except OSError as error:
        raise unusable_state(error) from None


@dataclass(slots=True)
class _Found:
    """What was found so far."""

    files: int = 0
    missing: int = 0
    surplus: int = 0
    forgotten: int = 0
    findings: list[str] = field(default_factory=list)

    def tell(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)


class _Comparison:
    """One comparison; ``run`` it once."""

    def __init__(
        self,
        shop: Shop,
        keys: tuple[ManifestKey, ...],
        incomplete: frozenset[str],
        *,
        repair: bool,
    ) -> None:
        self._shop = shop
        self._keys = keys
        # The percent-encoded URI of a file holds no "#".
        self._incomplete = frozenset(uri.partition("#")[0] for uri in incomplete)
        self._repair = repair
        self._found = _Found()
        self._manifests: dict[str, Manifest] = {}

    async def run(self) -> ManifestReport:
        """Compare under the locks of the roots."""
        shop, found = self._shop, self._found
        if self._keys:
            first = self._keys[0]
            roots = [key.root_uri for key in self._keys]
            async with AsyncExitStack() as stack:
                holding = hold_roots(shop.coordinator, first.tenant, first.collection, roots)
                locks = await stack.enter_async_context(holding)
                for key in self._keys:
                    await stack.enter_async_context(only_job(shop.state, key, shop.keepers))
                await locks.guard(self._compare(), self._abandon)
        return ManifestReport(
            roots=len(self._keys),
            files=found.files,
            findings=tuple(found.findings),
            missing=found.missing,
            surplus=found.surplus,
            forgotten=found.forgotten,
        )

    def _abandon(self) -> None:
        for manifest in self._manifests.values():
            manifest.abandon()

    async def _compare(self) -> None:
        for key in self._keys:
            await self._look_at(key)
        async with HeldFiles.open() as held:
            await self._ask_index(held)
            for key in self._keys:
                async with aclosing(self._rows(key)) as batches:
                    async for rows in batches:
                        await self._compare_rows(key, rows, held)
            async with aclosing(held.unmet()) as unmet:
                async for files in unmet:
                    for uri, holding in files.items():
                        await self._add_surplus(self._root_of(uri), uri, holding.documents)
        for manifest in self._manifests.values():
            await manifest.merge()

    async def _look_at(self, key: ManifestKey) -> None:
        """See whether its last job came to its end; open it where it may be changed."""
        shop = self._shop
        settled = await _blocking(shop, lambda: Manifest.is_settled(key.folder(shop.state)))
        if not settled:
            if shop.coordinator is None and not shop.state.has_locks:
                raise FailedPrecondition(
                    f"a job over {key.root_uri} is running or was killed, and no lock tells which: "
                    "wait for it, or run `sluice ingest` over it again"
                )
            self._found.tell(
                f"{key.root_uri}: the last job did not come to its end; the next `sluice ingest` "
                "over it asks the index"
            )
        if self._repair:
            self._manifests[key.root_uri] = await Manifest.open(shop.state, key, shop.keepers)

    async def _ask_index(self, held: HeldFiles) -> None:
        """Note what the version holds under the roots; a listing that breaks off begins anew."""
        settings = self._shop.settings.stream
        first = self._keys[0]
        target = IndexTarget(
            first.tenant, first.collection, first.index_version, first.index_created_at
        )
        index = IndexClient(self._shop.indexers, target, settings, timeout_s=self._shop.timeout_s)
        failures = 0
        while True:
            try:
                for root_uri in self._outermost():
                    await self._list(index, root_uri, held)
            except SluiceError as error:
                failures += 1
                if not is_passing(error) or failures >= settings.max_attempts:
                    raise
                await held.clear()
                await asyncio.sleep(delay_s(settings, failures, error))
            else:
                return

    async def _list(self, index: IndexClient, root_uri: str, held: HeldFiles) -> None:
        async with aclosing(index.documents(root_uri)) as batches:
            async for documents in batches:
                files = (
                    (one.container_uri, Kinds.PARTS, one.version, 1)
                    if one.container_uri
                    else (one.source_uri, Kinds.WHOLE, one.version, 1)
                    for one in documents
                )
                # The URI of a single file is also the beginning of others.
                await held.add(
                    file for file in files if root_uri.endswith("/") or file[0] == root_uri
                )

    def _outermost(self) -> list[str]:
        """The roots but those within others: what lies in both is listed once."""
        outer: list[str] = []
        for key in self._keys:  # ascending, so that the outer one comes first
            if not (outer and outer[-1].endswith("/") and key.root_uri.startswith(outer[-1])):
                outer.append(key.root_uri)
        return outer

    def _root_of(self, uri: str) -> str:
        """The innermost root that holds the file."""
        return max((key.root_uri for key in self._keys if uri.startswith(key.root_uri)), key=len)

    async def _rows(self, key: ManifestKey) -> AsyncGenerator[Rows, None]:
        """The rows as they are stored, those of segments included."""
        rows = read_rows(key.folder(self._shop.state))
        while (batch := await _blocking(self._shop, lambda: next(rows, None))) is not None:
            yield batch

    async def _compare_rows(self, key: ManifestKey, rows: Rows, held: HeldFiles) -> None:
        records = list(rows.records())
        self._found.files += len(records)
        known = await held.meet([record.uri for record in records])
        for record in records:
            holding = known.get(record.uri)
            missing = _missing(record, holding)
            if missing:
                self._found.missing += missing
                its = f"{missing:,} of its {record.documents:,} documents"
                state = ", or holds an older state" if holding else ""
                self._found.tell(
                    f"{record.uri}: the index lacks {its if record.documents > 1 else 'it'}{state}"
                )
            elif surplus := _surplus(record, holding):
                await self._add_surplus(key.root_uri, record.uri, surplus)
            if missing or record.uri in self._incomplete:
                await self._forget(key, record, is_gone=holding is None)

    async def _add_surplus(self, root_uri: str, uri: str, documents: int) -> None:
        self._found.surplus += documents
        self._found.tell(f"{uri}: the index holds {documents:,} documents that no manifest has")
        if self._repair:
            await self._manifests[root_uri].begin()  # and no end: the next job asks the index

    async def _forget(self, key: ManifestKey, record: FileRecord, *, is_gone: bool) -> None:
        """Have the file read again: under its version, so that what is left of it is mended."""
        if not self._repair:
            return
        manifest = self._manifests[key.root_uri]
        forgotten = replace(record, outcome=FileOutcome.PARTIAL)
        if is_gone and record.outcome not in {FileOutcome.INDEXED, FileOutcome.SUPERSEDED}:
            forgotten = forgotten.holds(Holding())  # it may fail again, and hold nothing then
        manifest.record(forgotten)
        self._found.forgotten += 1
        if manifest.is_checkpoint_due:
            await manifest.checkpoint()


_DONE = (FileOutcome.INDEXED, FileOutcome.SUPERSEDED)


def _missing(record: FileRecord, held: Holding | None) -> int:
    """Documents that a row has and the index lacks, or holds in an older state."""
    if record.outcome == FileOutcome.PARTIAL or not record.version:
        return 0  # it is to be read anyway, or nothing is claimed
    if held is None:
        return max(1, record.documents)
    if record.outcome not in _DONE or confirms(held, record) or held.version > record.version:
        return 0  # of a dead letter nobody knows exactly what is left
    if held.version < record.version:
        return max(1, record.documents)
    return max(0, record.documents - held.documents)


def _surplus(record: FileRecord, held: Holding | None) -> int:
    """Documents that the index holds of a file and its row does not have."""
    if held is None or record.outcome == FileOutcome.PARTIAL:
        return 0
    if not record.version:
        return held.documents
    if record.outcome not in _DONE or confirms(held, record):
        return 0
    if held.version > record.version:
        return held.documents
    return max(0, held.documents - record.documents)
