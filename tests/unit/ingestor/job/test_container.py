import asyncio
from types import SimpleNamespace
from typing import Any

from ingestor.extraction.extracted import Extracted, Part, PartBatch
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.job.byte_budget import ByteBudget
from ingestor.job.container import read_container
from ingestor.sending.receipt import Receipt
from ingestor.storage.listing import FileEntry
from sluice.index.v1 import index_pb2

MIB = 2**20
ACCEPTED = Receipt(index_pb2.OUTCOME_UNCHANGED)


class Endless:
    """A container of records of 3 MiB, which may never end, and all else that a job has."""

    def __init__(self, end_after: int | None = None) -> None:
        self.end_after = end_after
        self.sent: list[Any] = []
        self.stop = asyncio.Event()
        self.in_flight = ByteBudget(11 * MIB)
        self.counters = SimpleNamespace(files_opened=0, passed_over=0, files_done=0, bytes_done=0)
        self.source = self.extractor = self.manifest = self.stream = self
        self.outcomes = SimpleNamespace(record=lambda _: None, fail=lambda *_: None)

    async def open(self, _entry):
        return self

    async def aclose(self):
        pass

    async def begin(self):
        pass

    async def parts(self, _plan, _file):
        while len(self.sent) != self.end_after:
            extracted = Extracted("x" * 3 * MIB, "", "text/plain")
            yield PartBatch((Part(f"row={len(self.sent)}", extracted),), 0)
        yield Fault(FaultStage.EXTRACT, Cause.MALFORMED, "it ends in the middle")

    async def submit(self, document, context):
        self.sent.append((document, context))

    def count_receipt(self, _candidate, _receipt):
        pass


def candidate() -> Any:
    return SimpleNamespace(
        entry=FileEntry("a", "file:///d/a", MIB, 1),
        plan=SimpleNamespace(recipe=""),
        record=None,
        version=1,
        holding=SimpleNamespace(joined=lambda other: other),
    )


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


async def test_what_is_not_acknowledged_stays_within_the_bytes_in_flight():
    means: Any = Endless()
    reading = asyncio.create_task(read_container(candidate(), means))
    await settle()
    # A batch may take 4 MiB while it is made, so the fourth waits.
    assert len(means.sent) == 3
    assert means.in_flight.held == sum(document.ByteSize() for document, _ in means.sent)
    for acknowledged in range(3):
        means.sent[acknowledged][1].receive(ACCEPTED)
        await settle()
        assert len(means.sent) == 4 + acknowledged
    means.stop.set()
    for _, context in means.sent[3:]:
        context.receive(ACCEPTED)
        await settle()
    async with asyncio.timeout(10):
        await reading
    for _, context in means.sent[6:]:
        context.receive(ACCEPTED)
    assert means.in_flight.held == 0


async def test_a_container_that_breaks_holds_nothing_for_the_batch_that_did_not_come():
    means: Any = Endless(end_after=2)
    async with asyncio.timeout(10):
        await read_container(candidate(), means)
    assert means.in_flight.held == sum(document.ByteSize() for document, _ in means.sent)
    for _, context in means.sent:
        context.receive(ACCEPTED)
    assert (len(means.sent), means.in_flight.held, means.counters.files_done) == (2, 0, 1)
