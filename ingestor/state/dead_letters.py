"""Dead letters: the files that could not be indexed, as people and programs ask for them.

They are rows of the manifests, so a letter goes when its file succeeds or vanishes. Listing reads
only, and may run beside a job; dropping writes, and may not.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import FailedPrecondition
from ingestor.state.file_records import FileOutcome
from ingestor.state.manifest import Manifest, only_job, read_key, read_rows, unusable_state
from ingestor.state.root_locks import hold_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from concurrent.futures import Executor

    from common.coordination import Coordinator
    from ingestor.state.file_records import FileRecord
    from ingestor.state.manifest import ManifestKey
    from ingestor.state.state_folder import StateFolder

T = TypeVar("T")

MAX_LISTED = 100_000
_MORE_READS = 3


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One file or folder that failed.

    Attributes:
        uri: of the file, or of the folder that could not be listed.
        path: relative to the root.
        root_uri: the root it was found under.
        collection: it was meant for.
        index_version: it was meant for.
        version: version that the index still holds of it; 0 for none.
        stage: list, read, extract or index.
        cause: for programs.
        message: for people.
        attempts: how often this state of the file failed.
        is_set_aside: it is not tried again until it changes or is retried.
        first_seen: when it first failed.
        last_seen: when it last failed.
    """

    uri: str
    path: str
    root_uri: str
    collection: str
    index_version: int
    version: int
    stage: str
    cause: str
    message: str
    attempts: int
    is_set_aside: bool
    first_seen: datetime
    last_seen: datetime

    def to_json(self) -> dict[str, Any]:
        """The letter as a JSON object; times in RFC 3339."""
        times = {"first_seen": self.first_seen, "last_seen": self.last_seen}
        return asdict(self) | {name: time.isoformat() for name, time in times.items()}


class DeadLetters:
    """The dead letters of one tenant in one state folder."""

    def __init__(
        self, state: StateFolder, tenant: str, executor: Executor, *, max_attempts: int
    ) -> None:
        self._state = state
        self._tenant = tenant
        self._executor = executor
        self._max_attempts = max_attempts

    async def roots(self, collection: str | None = None) -> list[ManifestKey]:
        """The manifests that hold letters may be in: of each root the one written last."""
        return await self._blocking(self._roots, collection)

    async def letters(self, collection: str | None = None) -> list[DeadLetter]:
        """All letters by root and path; at most ``MAX_LISTED``."""

        def read_between_merges() -> list[DeadLetter]:
            for _ in range(_MORE_READS):
                with suppress(FileNotFoundError):  # a job merged its segments just now
                    return read()
            return read()

        def read() -> list[DeadLetter]:
            found: list[DeadLetter] = []
            for key in self._roots(collection):
                for rows in read_rows(key.folder(self._state)):
                    for record in rows.records(FileOutcome.DEAD_LETTER):
                        found.append(self._letter(key, record))
                        if len(found) == MAX_LISTED:
                            return found
            return found

        return await self._blocking(read_between_merges)

    async def drop(
        self, letters: Collection[DeadLetter], coordinator: Coordinator | None = None
    ) -> int:
        """Forget letters: their files are neither tried nor told of until they change.

        Args:
            letters: which.
            coordinator: keeps the locks on roots; None for none.

        Returns:
            How many there were.

        Raises:
            Contended, FailedPrecondition: a job runs over their root.
        """
        dropped = 0
        for key in await self.roots():
            paths = paths_of(letters, key)
            if paths:
                roots = [key.root_uri]
                async with hold_roots(coordinator, self._tenant, key.collection, roots):
                    dropped += await self._drop(key, paths)
        return dropped

    async def _drop(self, key: ManifestKey, paths: frozenset[str]) -> int:
        dropped = 0
        async with only_job(self._state, key, self._executor):
            manifest = await open_settled(self._state, key, self._executor)
            async for rows in manifest.rows():
                for record in rows.records(FileOutcome.DEAD_LETTER):
                    if record.path in paths:
                        manifest.record(replace(record, outcome=FileOutcome.DROPPED))
                        dropped += 1
            await manifest.merge()
        return dropped

    def _roots(self, collection: str | None) -> list[ManifestKey]:
        tenant = self._state.folder(self._tenant)
        collections = [collection] if collection else list(tenant.names())
        keys = []
        for name in collections:
            for root in tenant.folder(name).names():
                versions = [
                    (max(folder.names().values(), default=0), folder)
                    for version in tenant.folder(name, root).names()
                    for folder in [tenant.folder(name, root, version)]
                ]
                for _, folder in sorted(versions, key=lambda item: item[0])[-1:]:
                    key = read_key(folder)
                    if key is not None:
                        keys.append(key)
        return sorted(keys, key=lambda key: (key.collection, key.root_uri))

    def _letter(self, key: ManifestKey, record: FileRecord) -> DeadLetter:
        return DeadLetter(
            uri=record.uri,
            path=record.path,
            root_uri=key.root_uri,
            collection=key.collection,
            index_version=key.index_version,
            version=record.version,
            stage=record.stage,
            cause=record.cause,
            message=record.message,
            attempts=record.attempts,
            is_set_aside=record.attempts >= self._max_attempts,
            first_seen=datetime.fromtimestamp(record.first_seen_us / 1e6, UTC),
            last_seen=datetime.fromtimestamp(record.last_seen_us / 1e6, UTC),
        )

    async def _blocking(self, function: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, function, *arguments)
        except OSError as error:
            raise unusable_state(error) from None


def paths_of(letters: Iterable[DeadLetter], key: ManifestKey) -> frozenset[str]:
    """Paths of those of these letters that lie in one manifest."""
    return frozenset(
        letter.path
        for letter in letters
        if (letter.collection, letter.root_uri) == (key.collection, key.root_uri)
    )


async def open_settled(state: StateFolder, key: ManifestKey, executor: Executor) -> Manifest:
    """A manifest that no job is working on.

    FailedPrecondition if one is, or was killed: only a whole job can tell what became of its files.
    """
    loop = asyncio.get_running_loop()
    try:
        settled = await loop.run_in_executor(executor, Manifest.is_settled, key.folder(state))
    except OSError as error:
        raise unusable_state(error) from None
    if not settled:
        raise FailedPrecondition(
            f"a job over {key.root_uri} is running or was killed: wait for it, or run "
            f"`sluice ingest` over it again"
        )
    return await Manifest.open(state, key, executor)
