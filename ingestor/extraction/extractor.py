"""Extraction: from the bytes of a file to the text of its documents, or the fault that prevents it.

What a file becomes is planned from its path alone: a rule of ``ingest.formats``, an archive, or one
document. Text that needs only decoding is decoded on a thread; all that is parsed or expanded goes
to worker processes. A file that crashes its worker, hangs or is broken becomes a fault and nothing
else is lost.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self

from ingestor.extraction import file_text
from ingestor.extraction.extracted import Extracted, Part, PartBatch, Refusal
from ingestor.extraction.file_types import archive_kind, declared_type, sniffed_type, uncompressed
from ingestor.extraction.format_rules import fields, recipe
from ingestor.extraction.worker_pool import WorkerPool
from ingestor.extraction.worker_protocol import Reading
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.selection import compile_glob

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from concurrent.futures import Executor

    from ingestor.extraction.format_rules import FormatRule
    from ingestor.settings import ExtractionSettings
    from ingestor.storage.sources import OpenFile

__all__ = ["DocumentExtractor", "Extracted", "Extractor", "Part", "PartBatch", "Plan"]

_SEEKING = frozenset({"parquet", "orc"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a file.

    ``recipe`` is a short digest of what shapes the documents besides the bytes, empty for the
    built-in way; ``reading`` is for the extractor that made the plan.
    """

    is_container: bool
    recipe: str = ""
    reading: Reading = field(default_factory=lambda: Reading("file", ""))


class Extractor(Protocol):
    """Turns files into documents; safe to call many times at once."""

    def plan(self, path: str) -> Plan | Fault:
        """What becomes of the file at this path, relative to the root."""

    async def extract(self, plan: Plan, data: bytes) -> Extracted | Fault:
        """The document of a file that is no container, from all of its bytes."""

    def parts(self, plan: Plan, file: OpenFile) -> AsyncGenerator[PartBatch | Fault, None]:
        """The documents of a container; a fault is the last item.

        The file is read while it is parsed, and only as far as the batches are asked for. Close
        the generator to stop earlier.
        """


class DocumentExtractor:
    """Decodes on the executor, parses in worker processes."""

    def __init__(
        self, settings: ExtractionSettings, formats: Sequence[FormatRule], executor: Executor
    ) -> None:
        self._rules = [(compile_glob(rule.match), rule) for rule in formats]
        self._executor = executor
        self._limits = settings.limits()
        self._pool = WorkerPool(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the workers."""
        await self._pool.aclose()

    def plan(self, path: str) -> Plan | Fault:
        """See ``Extractor``; an archive is one whatever the rules say."""
        folder, _, packed_name = path.rpartition("/")
        name, codec = uncompressed(packed_name)
        if kind := archive_kind(name):
            if kind == "zip" and codec:
                return _unsupported("a compressed archive is not opened but for tar")
            return Plan(is_container=True, reading=Reading(kind, packed_name, codec=codec))
        uncompressed_path = f"{folder}/{name}" if folder else name
        for glob, rule in self._rules:
            if glob.fullmatch(path) or glob.fullmatch(uncompressed_path):
                if codec and rule.format in _SEEKING:
                    return _unsupported(f"{rule.format} is compressed within, never as a whole")
                reading = Reading(rule.format, packed_name, codec=codec, rule=fields(rule))
                return Plan(is_container=True, recipe=recipe(rule), reading=reading)
        media_type = declared_type(name)
        if isinstance(media_type, Fault):
            return media_type
        reading = Reading("file", packed_name, media_type, codec)
        return Plan(is_container=False, reading=reading)

    async def extract(self, plan: Plan, data: bytes) -> Extracted | Fault:
        """See ``Extractor``."""
        reading = plan.reading
        if not reading.codec:
            media_type = reading.media_type or sniffed_type(data)
            if isinstance(media_type, Fault):
                return media_type
            reading = replace(reading, media_type=media_type)
            if file_text.is_decoded_only(media_type):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._executor, self._decode, reading, data)
        batch = await self._pool.document(reading, data)
        return batch if isinstance(batch, Fault) else batch.parts[0].extracted

    def _decode(self, reading: Reading, data: bytes) -> Extracted | Fault:
        try:
            return file_text.extract(reading, data, self._limits)
        except Refusal as refusal:
            return refusal.fault

    async def parts(self, plan: Plan, file: OpenFile) -> AsyncGenerator[PartBatch | Fault, None]:
        """See ``Extractor``."""
        async with aclosing(self._pool.parts(plan.reading, file)) as batches:
            async for batch in batches:
                yield batch


def _unsupported(message: str) -> Fault:
    return Fault(FaultStage.EXTRACT, Cause.UNSUPPORTED_TYPE, message)
