"""One ingest job: brings what an index version holds of one root into line with the root.

The survey sets the listing beside the manifest; what is new or changed is read, extracted and
streamed, in parallel and within a budget of bytes; what is gone is deleted. A file that cannot be
indexed becomes a dead letter and the job goes on. A job that was killed is continued by the next
one, which then also asks the index what it holds, so that both end in the index of one clean run;
a job that was asked to stop leaves a manifest that is right.

The job knows no gRPC and no file system: source, extractor, index client and manifest are given.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.discovery import delay_s, is_passing
from common.errors import SluiceError
from common.telemetry import Metric, Stage, span
from ingestor.durations import moment_us
from ingestor.job.byte_budget import ByteBudget
from ingestor.job.means import Means
from ingestor.job.outcomes import Outcomes
from ingestor.job.processing import Processing
from ingestor.job.summary import Counters, IngestSummary, summarize
from ingestor.job.survey import Survey
from ingestor.state.file_records import Kinds
from ingestor.state.held import HeldFiles

if TYPE_CHECKING:
    from ingestor.extraction.extractor import Extractor
    from ingestor.job.means import Sent
    from ingestor.selection import Selection
    from ingestor.sending.index_client import IndexClient
    from ingestor.sending.receipt import Receipt
    from ingestor.settings import IngestSettings
    from ingestor.state.manifest import Manifest
    from ingestor.storage.sources import Source

logger = logging.getLogger(__name__)


class IngestJob:
    """One run over one root; ``run`` it once.

    Args:
        stop: once set, no more files are taken; those in hand are finished within
            ``settings.stop_timeout_s``.
        retry: only try these dead letters again, whatever their attempts: paths relative to the
            root, or all of them if it is empty; the manifest must not be doubtful. None runs over
            the whole root.
    """

    def __init__(
        self,
        *,
        job_id: str,
        source: Source,
        selection: Selection,
        extractor: Extractor,
        index: IndexClient,
        manifest: Manifest,
        settings: IngestSettings,
        stop: asyncio.Event,
        retry: frozenset[str] | None = None,
    ) -> None:
        self._job_id = job_id
        self._source = source
        self._selection = selection
        self._extractor = extractor
        self._index = index
        self._manifest = manifest
        self._settings = settings
        self._stop = stop
        self._retry = retry
        self._over = asyncio.Event()
        self.counters = Counters()
        self._outcomes = Outcomes(manifest, index, self.counters)
        self._stream = index.stream(job_id, _receive)
        self._means = Means(
            source=source,
            extractor=extractor,
            stream=self._stream,
            manifest=manifest,
            outcomes=self._outcomes,
            counters=self.counters,
            settings=settings,
            in_flight=ByteBudget(settings.max_bytes_in_flight, Metric.BYTES_IN_FLIGHT),
            decoding=ByteBudget(max(1, settings.max_bytes_in_flight // 4)),
            stop=stop,
        )

    @property
    def was_refused(self) -> bool:
        """Whether it failed because an indexer does not write to the version at all."""
        return self._stream.was_refused

    async def run(self) -> IngestSummary:
        """Run to the end, or until it is stopped.

        Raises:
            SluiceError: the root cannot be listed, the storage is out of reach, or the index cannot
                be reached or refuses the job. What was acknowledged until then is recorded; start
                the job again.
        """
        with span(Stage.INGEST_JOB, job_id=self._job_id) as active:
            try:
                await self._run_until_stopped()
            except BaseExceptionGroup as group:
                ours, others = group.split(SluiceError)
                if ours is None or others is not None:
                    raise
                raise _first(ours) from None
            finally:
                self._means.in_flight.close()
                await self._manifest.checkpoint()
            summary = summarize(
                self.counters,
                self._source.root_uri,
                self._manifest.key.index_version,
                stopped=self._stop.is_set(),
            )
            active.set("documents", summary.indexed + summary.updated)
            active.set("dead_letters", summary.dead_letters)
        return summary

    async def _run_until_stopped(self) -> None:
        """Run; what is in hand at a stop is given up when it takes too long."""
        limit_s = self._settings.stop_timeout_s
        bound = asyncio.timeout(None)

        async def limit() -> None:
            await self._stop.wait()
            bound.reschedule(asyncio.get_running_loop().time() + limit_s)

        limiting = asyncio.create_task(limit())
        try:
            async with bound:
                await self._run()
        except TimeoutError:
            if not bound.expired():
                raise
            logger.warning("what was in hand took over %g s and was given up", limit_s)
        finally:
            limiting.cancel()

    async def _run(self) -> None:
        is_recovering = self._manifest.doubtful and self._retry is None
        async with AsyncExitStack() as stack:
            held = None
            if is_recovering:
                held = await stack.enter_async_context(HeldFiles.open())
                await self._ask_index(held)
            survey = self._survey(held)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._stream.run())
                saving = group.create_task(self._save())
                processing = Processing(self._means)
                reading = group.create_task(processing.run())
                with span(Stage.INGEST_LIST) as active:
                    if self._retry is None:
                        await survey.run(processing.take)
                    else:
                        await survey.run_letters(self._retry, processing.take)
                    active.set("files", self.counters.listed)
                self.counters.is_listing_done = True
                await processing.close()
                await reading
                self._stream.close()
                await sending
                self._over.set()
                await saving
            if is_recovering and not self._stop.is_set():
                await survey.settle_unmet()
            await self._outcomes.delete_waiting()
        if is_recovering and self._stop.is_set():
            return  # of what was not met nobody knows yet: the manifest stays doubtful
        await self._manifest.finish()

    def _survey(self, held: HeldFiles | None) -> Survey:
        since = self._settings.modified_since
        return Survey(
            source=self._source,
            selection=self._selection,
            extractor=self._extractor,
            manifest=self._manifest,
            outcomes=self._outcomes,
            counters=self.counters,
            settings=self._settings,
            held=held,
            since_us=None if since is None else moment_us(since, datetime.now(UTC)),
            stop=self._stop,
        )

    async def _ask_index(self, held: HeldFiles) -> None:
        """Note what the version holds of this root: the manifest may not tell."""
        failures = 0
        while not self._stop.is_set():
            try:
                await self._list_index(held)
            except SluiceError as error:
                # A listing that breaks off half-way is not taken up again by the client.
                failures += 1
                if not is_passing(error) or failures >= self._settings.stream.max_attempts:
                    raise
                await held.clear()
                await asyncio.sleep(delay_s(self._settings.stream, failures, error))
            else:
                return

    async def _list_index(self, held: HeldFiles) -> None:
        root = self._source.root_uri
        async with aclosing(self._index.documents(root, fragments=True)) as batches:
            async for documents in batches:
                # No row agrees with a fragment: a file has no document then, a container one more.
                files = (
                    (one.container_uri, Kinds.PARTS, one.version, 1)
                    if one.container_uri
                    else (one.source_uri, Kinds.WHOLE, one.version, int(not one.fragment))
                    for one in documents
                )
                # The URI of a single file is also the beginning of others.
                await held.add(file for file in files if root.endswith("/") or file[0] == root)
                if self._stop.is_set():
                    return

    async def _save(self) -> None:
        """Make durable from time to time what was done, and do what waits to be deleted."""
        saved = time.monotonic()
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(0.5, self._settings.checkpoint_s)):
                    await self._over.wait()
            is_time = time.monotonic() - saved >= self._settings.checkpoint_s
            if is_time:
                await self._outcomes.delete_waiting()
            if is_time or self._manifest.is_checkpoint_due:
                await self._manifest.checkpoint()
                saved = time.monotonic()


def _receive(sent: Sent, receipt: Receipt) -> None:
    sent.receive(receipt)


def _first(group: BaseExceptionGroup[SluiceError]) -> SluiceError:
    """The first failure: what failed after it, failed because of it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
