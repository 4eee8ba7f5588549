"""Worker processes: what they are given, what they may take, and when they end."""

import asyncio
import io
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest
from pyarrow import parquet

from ingestor.extraction import worker_pool
from ingestor.faults import Cause
from ingestor.settings import ExtractionSettings
from tests.unit.ingestor.extraction.open_files import HeldFile, gathered
from tests.unit.ingestor.extraction.test_extraction_containers import (
    MIB,
    extractor,
    json_lines,
    processes,
)


def endless() -> bytes:
    """An Avro file whose one block holds, it says, 2**50 records of no bytes."""
    buffer = io.BytesIO()
    schema = {"type": "record", "name": "empty", "fields": []}
    fastavro.writer(buffer, schema, [{}], sync_marker=bytes(16))
    whole = buffer.getvalue()
    count = bytearray()
    left = 2**51  # zigzag
    while left > 127:
        count.append(left & 127 | 128)
        left >>= 7
    count.append(left)
    return whole[: whole.index(bytes(16)) + 16] + bytes(count) + bytes(1) + bytes(16)


async def test_rows_of_nothing_are_no_progress():
    async with extractor(ExtractionSettings(workers=2, timeout_s=3)) as running:
        async with asyncio.timeout(20):
            parts, _, fault = await gathered(running, "all.avro", HeldFile(endless()))
        assert parts == []
        assert fault is not None
        assert fault.cause == Cause.TIMED_OUT
        assert processes(running) == []


_PARENT = """
import asyncio, sys
sys.path[:] = sys.argv[1:]
from tests.unit.ingestor.extraction import test_worker_processes as tests

class File(tests.HeldFile):
    async def read_at(self, offset, length):
        print(*tests.processes(self.running), flush=True)
        return await super().read_at(offset, length)

async def main():
    async with tests.extractor() as running:
        file = File(tests.endless())
        file.running = running
        await tests.gathered(running, "all.avro", file)

asyncio.run(main())
"""


def cpu_ticks(process: int) -> int:
    status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    return int(status.rpartition(")")[2].split()[11])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent")
async def test_a_worker_in_mid_computation_dies_with_its_parent():
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PARENT, *sys.path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(60):
        worker = int(await parent.stdout.readline())
        ended = os.pidfd_open(worker)
        try:
            ticks, deadline = cpu_ticks(worker), time.monotonic() + 30
            while cpu_ticks(worker) < ticks + os.sysconf("SC_CLK_TCK"):
                assert time.monotonic() < deadline  # half a minute for a second of computing
            assert select.select([ended], [], [], 0)[0] == []
            parent.kill()
            await parent.wait()
            assert select.select([ended], [], [], 10)[0] == [ended]
        finally:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            os.close(ended)


def test_a_worker_whose_parent_was_gone_before_it_could_be_told_ends():
    program = "import os; from ingestor.extraction import worker; worker.main(2**32, os.getpid())"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        try:  # its input stays open: that is not what ends it
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def environment_and_open_files(process: int) -> tuple[list[bytes], list[str]]:
    folder = Path(f"/proc/{process}")
    links = [link.readlink().name for link in (folder / "fd").iterdir()]
    return (folder / "environ").read_bytes().split(b"\0"), links


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_worker_is_given_no_secret_and_no_open_file(monkeypatch, tmp_path):
    for name in ("KRB5CCNAME", "HADOOP_CONF_DIR", "AWS_SECRET_ACCESS_KEY", "https_proxy"):
        monkeypatch.setenv(name, "secret")
    with (tmp_path / "open").open("wb") as held:
        os.set_inheritable(held.fileno(), True)  # noqa: FBT003 — its only way
        async with extractor() as running:
            await gathered(running, "a.jsonl", HeldFile(json_lines(10)))
            (process,) = processes(running)
            environment, links = environment_and_open_files(process)
    assert not any(b"secret" in variable for variable in environment)
    names = {variable.partition(b"=")[0].decode() for variable in environment if variable}
    assert names <= {*worker_pool._ENVIRONMENT}
    assert "open" not in links
    assert len(links) == 4  # input, output twice over, errors


async def test_few_bytes_that_hold_endless_text_are_refused():
    text = pa.array(["a" * MIB]).dictionary_encode().take(pa.array([0] * 400))
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"id": range(400), "body": text}), buffer, compression="zstd")
    settings = ExtractionSettings(workers=2, max_expanded_bytes=16 * MIB)
    async with extractor(settings) as running:
        parts, _, fault = await gathered(running, "a.parquet", HeldFile(buffer.getvalue()))
        assert fault is not None
        assert fault.cause == Cause.TOO_LARGE
        assert 1 <= len(parts) <= 17
        # Text that the file has bytes for passes, however much it is.
        plain = HeldFile(json_lines(20, MIB))
        parts, _, fault = await gathered(running, "a.jsonl", plain)
        assert (len(parts), fault) == (20, None)
