"""Open files for tests of extraction: bytes in memory, and how they were read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestor.extraction.extracted import PartBatch
from ingestor.faults import Fault

if TYPE_CHECKING:
    from ingestor.extraction.extracted import Part
    from ingestor.extraction.extractor import DocumentExtractor


class HeldFile:
    """Content in memory; ``fault`` is what reading gives from ``fault_from`` on."""

    def __init__(self, content: bytes, *, fault: Fault | None = None, fault_from: int = 0) -> None:
        self.content = content
        self.size = len(content)
        self.fault = fault
        self.fault_from = fault_from
        self.reads: list[tuple[int, int]] = []

    async def read_at(self, offset: int, length: int) -> bytes | Fault:
        self.reads.append((offset, length))
        if self.fault is not None and offset + length > self.fault_from:
            return self.fault
        return self.content[offset : offset + length]

    async def aclose(self) -> None:
        pass


async def gathered(
    extractor: DocumentExtractor, path: str, file: HeldFile
) -> tuple[list[Part], int, Fault | None]:
    """All parts of a container, how many records were passed over, and the fault at the end."""
    plan = extractor.plan(path)
    assert not isinstance(plan, Fault), plan
    assert plan.is_container
    parts: list[Part] = []
    passed_over = 0
    fault = None
    async for batch in extractor.parts(plan, file):
        assert fault is None
        if isinstance(batch, PartBatch):
            parts += batch.parts
            passed_over += batch.passed_over
        else:
            fault = batch
    return parts, passed_over, fault
