"""Files of many documents, through real worker processes."""

import asyncio
import gzip
import io
import json
import os
import random
import signal
import tarfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from common.errors import Unavailable
from ingestor.extraction import worker_pool
from ingestor.extraction.extracted import PartBatch
from ingestor.extraction.extractor import DocumentExtractor, Extracted
from ingestor.extraction.format_rules import FormatRule, LinesRule, LogRule, TableRule
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.settings import ExtractionSettings
from tests.unit.ingestor.extraction.open_files import HeldFile, gathered

MIB = 2**20
SAMPLES = Path(__file__).parents[4] / "samples"
PDF_BYTES = (SAMPLES / "planning/capacity-review-2026.pdf").read_bytes()
RULES: list[FormatRule] = [
    TableRule(match="*.parquet", format="parquet", id="id", text=("body",)),
    TableRule(match="*.orc", format="orc", text=("body",)),
    TableRule(match="all.avro", format="avro"),
    TableRule(match="*.avro", format="avro", text=("body",)),
    TableRule(match="*.csv", format="csv", id="id", text=("body",)),
    TableRule(match="*.jsonl", format="jsonl", text=("body",)),
    TableRule(match="*.seq", format="sequencefile", text=("value",)),
    LinesRule(match="*.txt", format="lines", lines=10),
    LogRule(match="*.log", format="log"),
]


@asynccontextmanager
async def extractor(settings: ExtractionSettings | None = None) -> AsyncIterator[DocumentExtractor]:
    with ThreadPoolExecutor(1) as executor:
        chosen = settings or ExtractionSettings(workers=2)
        async with DocumentExtractor(chosen, RULES, executor) as running:
            yield running


def table(rows: int, width: int = 100) -> bytes:
    chance = random.Random(1)
    bodies = [chance.randbytes(width // 2).hex() for _ in range(rows)]
    buffer = io.BytesIO()
    columns = {"id": list(range(rows)), "body": bodies}
    parquet.write_table(pa.table(columns), buffer, row_group_size=1000)
    return buffer.getvalue()


def processes(extractor: DocumentExtractor) -> list[int]:
    workers = extractor._pool._workers
    return [worker._process.pid for worker in workers if worker._process is not None]


def json_lines(rows: int, width: int = 100) -> bytes:
    return b"".join(
        json.dumps({"body": f"{number} " + "x" * width}).encode() + b"\n" for number in range(rows)
    )


async def test_a_table_comes_in_batches_of_about_a_mebibyte_read_piece_by_piece():
    data = json_lines(10_000, 2000)
    async with extractor() as running:
        plan = running.plan("a.jsonl")
        assert not isinstance(plan, Fault)
        file = HeldFile(data)
        batches = [batch async for batch in running.parts(plan, file)]
    parts = [part for batch in batches if isinstance(batch, PartBatch) for part in batch.parts]
    assert [part.fragment for part in parts] == [f"row={number}" for number in range(10_000)]
    assert parts[7].extracted == Extracted("7 " + "x" * 2000, "a.jsonl row 7", "text/plain")
    sizes = [
        sum(len(part.extracted.text) for part in batch.parts)
        for batch in batches
        if isinstance(batch, PartBatch)
    ]
    assert max(sizes) <= MIB + 2010
    assert len(batches) >= 19
    assert all(length <= 4 * MIB for _, length in file.reads)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.txt.gz", "a.log.gz"])
async def test_a_compressed_container_is_expanded_as_it_is_read(name):
    content = {
        "a.jsonl.gz": json_lines(100),
        "a.csv.gz": b"id,body\n" + b"".join(b"%d,text\n" % number for number in range(100)),
        "a.txt.gz": b"a line\n" * 1000,
        "a.log.gz": b"".join(b"2026-01-%02d 00:00:00 x\n" % day for day in range(1, 31)),
    }
    async with extractor() as running:
        packed = gzip.compress(content[name])
        parts, passed_over, fault = await gathered(running, name, HeldFile(packed))
        assert (fault, passed_over) == (None, 0)
        assert len(parts) == (30 if name == "a.log.gz" else 100)
        cut = HeldFile(packed[: len(packed) // 2])
        _, _, fault = await gathered(running, name, cut)
        assert fault is not None
        assert fault.cause == Cause.MALFORMED
        assert len(processes(running)) == 1  # a broken file costs no process


async def test_members_of_an_archive_with_a_pdf_among_them():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"a/x.pdf": PDF_BYTES, "b.png": b"\x89", "c.md": b"# C"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    async with extractor() as running:
        parts, passed_over, fault = await gathered(running, "a.tgz", HeldFile(buffer.getvalue()))
    assert (fault, passed_over) == (None, 1)
    assert [part.fragment for part in parts] == ["member=a/x.pdf", "member=c.md"]
    assert len(parts[0].extracted.pages) == 4
    assert parts[0].extracted.metadata["subject"] == "Capacity planning"


@pytest.mark.parametrize(
    "path", ["a.parquet", "a.orc", "a.avro", "a.seq", "a.csv", "a.jsonl", "a.log", "a.zip", "a.tgz"]
)
@pytest.mark.parametrize("data", [b"", b"\x00\x01 junk \xff" * 50])
async def test_junk_is_a_fault_and_no_crash(path, data):
    async with extractor() as running:
        parts, _, fault = await gathered(running, path, HeldFile(data))
        assert parts == []
        assert fault is not None
        assert fault.stage == FaultStage.EXTRACT
        assert fault.cause in {Cause.MALFORMED, Cause.NOT_TEXT, Cause.NO_TEXT}
        assert len(processes(running)) == 1


async def test_a_broken_table_gives_what_is_whole_and_then_the_fault():
    data = bytearray(table(5000))
    middle = len(data) // 2
    data[middle : middle + 4000] = random.Random(2).randbytes(4000)
    async with extractor() as running:
        parts, _, fault = await gathered(running, "a.parquet", HeldFile(bytes(data)))
    assert fault is not None
    assert fault.cause == Cause.MALFORMED
    assert 1000 <= len(parts) <= 4000


async def test_a_table_of_blank_rows_holds_no_text():
    async with extractor() as running:
        parts, _, fault = await gathered(running, "a.csv", HeldFile(b"id,body\n1,\n2, \n"))
    assert parts == []
    assert fault is not None
    assert fault.cause == Cause.NO_TEXT


@pytest.mark.parametrize("cause", [Cause.GONE, Cause.UNREADABLE, Cause.PERMISSION_DENIED])
@pytest.mark.parametrize("path", ["a.parquet", "a.jsonl.gz", "a.zip", "a.txt"])
async def test_what_the_storage_cannot_give_is_the_fault(path, cause):
    fault = Fault(FaultStage.READ, cause, "the storage says so")
    data = gzip.compress(json_lines(1000)) if path.endswith("gz") else table(1000)
    async with extractor() as running:
        parts, _, found = await gathered(running, path, HeldFile(data, fault=fault))
        assert parts == []
        assert found == fault
        assert len(processes(running)) == 1


async def test_a_storage_that_fails_altogether_leaves_a_working_extractor():
    class Failing(HeldFile):
        async def read_at(self, offset: int, length: int) -> bytes | Fault:
            raise Unavailable(f"no {length} bytes at {offset}")

    async with extractor() as running:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await gathered(running, "a.jsonl", Failing(json_lines(10)))
            assert processes(running) == []
        parts, _, fault = await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        assert (len(parts), fault) == (10, None)


async def test_a_file_that_was_cut_while_it_was_read_is_said_to_be():
    file = HeldFile(json_lines(100_000))
    file.content = file.content[: 5 * MIB]
    async with extractor() as running:
        parts, _, fault = await gathered(running, "a.jsonl", file)
    assert parts
    assert fault == Fault(FaultStage.READ, Cause.UNREADABLE, "it was cut while it was read")


async def test_a_file_is_read_only_while_its_parts_are_asked_for():
    data = json_lines(400_000)
    async with extractor() as running:
        plan, pdf = running.plan("a.jsonl"), running.plan("a.pdf")
        assert not isinstance(plan, Fault)
        assert not isinstance(pdf, Fault)
        file = HeldFile(data)
        batches = running.parts(plan, file)
        await anext(batches)
        before = len(file.reads)
        for _ in range(3):
            assert isinstance(await running.extract(pdf, PDF_BYTES), Extracted)
        assert len(file.reads) == before
        assert sum(length for _, length in file.reads) <= 8 * MIB < len(data)
        await batches.aclose()


async def test_a_consumer_that_closes_early_leaves_a_working_extractor():
    async with extractor() as running:
        plan = running.plan("a.jsonl")
        assert not isinstance(plan, Fault)
        for _ in range(2):
            batches = running.parts(plan, HeldFile(json_lines(100_000)))
            first = await anext(batches)
            assert isinstance(first, PartBatch)
            await batches.aclose()
            assert processes(running) == []
        parts, _, fault = await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        assert (len(parts), fault) == (10, None)


async def test_containers_leave_a_worker_to_other_files():
    async with extractor() as running:
        plan, pdf = running.plan("a.jsonl"), running.plan("a.pdf")
        assert not isinstance(plan, Fault)
        assert not isinstance(pdf, Fault)
        large = json_lines(100_000)
        first, second = (running.parts(plan, HeldFile(large)) for _ in range(2))
        await anext(first)
        waiting = asyncio.create_task(anext(second))
        for _ in range(10):
            await asyncio.sleep(0)  # the other container asks before the PDF does
        async with asyncio.timeout(20):
            assert isinstance(await running.extract(pdf, PDF_BYTES), Extracted)
        assert not waiting.done()
        await first.aclose()
        async with asyncio.timeout(20):
            assert isinstance(await waiting, PartBatch)
        await second.aclose()


async def test_a_worker_killed_before_it_gave_anything_costs_a_second_attempt_only():
    async with extractor() as running:
        await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        (before,) = processes(running)
        os.kill(before, signal.SIGKILL)
        parts, _, fault = await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        assert (len(parts), fault) == (10, None)
        assert processes(running) != [before]


async def test_a_worker_killed_in_the_middle_is_a_fault():
    async with extractor() as running:
        await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        plan = running.plan("a.jsonl")
        assert not isinstance(plan, Fault)
        batches = running.parts(plan, HeldFile(json_lines(100_000)))
        await anext(batches)
        (process,) = processes(running)
        os.kill(process, signal.SIGKILL)
        rest = [batch async for batch in batches]
        fault = rest[-1]
        assert isinstance(fault, Fault)
        assert fault.cause == Cause.WORKER_CRASHED
        assert not any(isinstance(batch, Fault) for batch in rest[:-1])
        assert processes(running) == []


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(9)",
        "print('no frame' + 'x' * 2**20)",
        "import sys; sys.stdout.buffer.write(bytes(7) + b'\\x02{}')",
        "import sys; sys.stdout.buffer.write(bytes(7) + b'\\x011')",
        # An answer of a tebibyte, which never comes to its end.
        (
            "import sys; sys.stdout.buffer.write(b'\\0\\0\\1' + bytes(2**20)); "
            "sys.stdout.flush(); sys.stdin.buffer.read()"
        ),
    ],
)
async def test_a_container_that_crashes_a_fresh_worker_is_to_blame(program, monkeypatch):
    async with extractor(ExtractionSettings(timeout_s=20)) as running:
        with monkeypatch.context() as broken:
            broken.setattr(worker_pool, "_PROGRAM", program)
            parts, _, fault = await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
            assert parts == []
            assert fault is not None
            assert fault.cause == Cause.WORKER_CRASHED


async def test_no_progress_is_a_fault_but_slow_storage_is_none():
    class SlowFile(HeldFile):
        async def read_at(self, offset: int, length: int) -> bytes | Fault:
            with suppress(TimeoutError):
                async with asyncio.timeout(2.5):
                    await asyncio.Event().wait()
            return await super().read_at(offset, length)

    async with extractor() as running:
        # A process that runs, for its start takes time too.
        await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        for worker in running._pool._workers:
            worker._settings = ExtractionSettings(timeout_s=2)
        parts, _, fault = await gathered(running, "a.jsonl", SlowFile(json_lines(10)))
        assert (len(parts), fault) == (10, None)
        (process,) = processes(running)
        os.kill(process, signal.SIGSTOP)
        parts, _, fault = await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        assert parts == []
        assert fault is not None
        assert fault.cause == Cause.TIMED_OUT
        assert processes(running) == []


async def test_a_container_that_takes_too_much_memory_is_too_large():
    settings = ExtractionSettings(workers=2, worker_memory_bytes=512 * MIB)
    buffer = io.BytesIO()
    bomb = pa.table({"id": [0, 1], "body": pa.array(["a" * 150 * MIB] * 2).dictionary_encode()})
    parquet.write_table(bomb, buffer, compression="zstd")
    del bomb
    async with extractor(settings) as running:
        parts, _, fault = await gathered(running, "a.parquet", HeldFile(buffer.getvalue()))
        assert parts == []
        assert fault is not None
        assert fault.cause == Cause.TOO_LARGE
        parts, _, fault = await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
        assert (len(parts), fault) == (10, None)


def peak_mib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


async def test_memory_stays_bounded_however_long_the_table():
    rows: Sequence[bytes] = [json_lines(20_000, 1000)] * 3
    async with extractor() as running:
        plan = running.plan("a.jsonl")
        assert not isinstance(plan, Fault)
        peaks = []
        count = 0
        async for batch in running.parts(plan, HeldFile(b"".join(rows))):
            assert isinstance(batch, PartBatch)
            count += len(batch.parts)
            peaks.append(peak_mib(processes(running)[0]))
        assert count == 60_000
        assert peaks[-1] - peaks[len(peaks) // 4] < 20
