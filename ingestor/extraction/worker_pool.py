"""The worker processes that parse files, as their parent sees them.

A worker holds one file at a time, so that the culprit of a crash is known. It is started when it is
first needed and reads its file through the parent, piece by piece. A batch of parts is taken from
its pipe when the next one is asked for, never before: a slow consumer holds the worker back. Files
of many documents leave one worker to the others, however large they are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from ingestor.extraction.worker_protocol import (
    DATA,
    FAULT,
    HEADER_BYTES,
    Answer,
    Task,
    encode_fault,
)
from ingestor.faults import Cause, Fault, FaultStage

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator

    from ingestor.extraction.extracted import PartBatch
    from ingestor.extraction.worker_protocol import Reading
    from ingestor.settings import ExtractionSettings
    from ingestor.storage.sources import OpenFile

_PROGRAM = (
    "import json,sys; sys.path[:]=json.loads(sys.argv[1]); "
    "from ingestor.extraction import worker; worker.main(int(sys.argv[2]), int(sys.argv[3]))"
)
# All that a worker is told of the environment: what an interpreter outside the system's folders may
# need to start, and where temporary files go. It holds no secret, no proxy and no ticket's place.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")


class HeldBytes:
    """An ``OpenFile`` over what is in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    async def read_at(self, offset: int, length: int) -> bytes:
        """See ``OpenFile``."""
        return self._content[offset : offset + length]

    async def aclose(self) -> None:
        """See ``OpenFile``."""


class WorkerPool:
    """Up to ``settings.workers`` processes."""

    def __init__(self, settings: ExtractionSettings) -> None:
        self._workers = [_Worker(settings) for _ in range(settings.workers)]
        self._for_containers = asyncio.Semaphore(settings.workers - 1)
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def aclose(self) -> None:
        """Stop the workers."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def document(self, reading: Reading, data: bytes) -> PartBatch | Fault:
        """The one document of a file."""
        async with aclosing(self._parts(reading, HeldBytes(data))) as batches:
            # To the end of the file, or the worker would be stopped for not being there.
            first, *_ = [batch async for batch in batches]
            return first

    async def parts(
        self, reading: Reading, file: OpenFile
    ) -> AsyncGenerator[PartBatch | Fault, None]:
        """The documents of a file that holds many; a fault is the last item."""
        async with self._for_containers, aclosing(self._parts(reading, file)) as batches:
            async for batch in batches:
                yield batch

    async def _parts(
        self, reading: Reading, file: OpenFile
    ) -> AsyncGenerator[PartBatch | Fault, None]:
        worker = await self._idle.get()
        try:
            async with aclosing(worker.parts(reading, file)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._idle.put_nowait(worker)


class _Worker:
    """One worker process; stopped whenever it is not at the end of a file."""

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        self._limits = settings.limits()
        self._process: Process | None = None

    async def parts(
        self, reading: Reading, file: OpenFile
    ) -> AsyncGenerator[PartBatch | Fault, None]:
        """Parse one file.

        A worker that served other files may have been worn out by them, so a file that crashes it
        before it gave anything is tried once more in a fresh one before it is blamed.
        """
        seasoned = self._process is not None
        async with aclosing(self._attempt(reading, file)) as batches:
            async for batch in batches:
                if seasoned and isinstance(batch, Fault) and batch.cause == Cause.WORKER_CRASHED:
                    break
                seasoned = False
                yield batch
            else:
                return
        async with aclosing(self._attempt(reading, file)) as batches:
            async for batch in batches:
                yield batch

    async def _attempt(
        self, reading: Reading, file: OpenFile
    ) -> AsyncGenerator[PartBatch | Fault, None]:
        frame = Task(reading, self._limits, file.size).encode()
        done = False
        try:
            while True:
                answer = await self._exchange(frame)
                if isinstance(answer, Fault):
                    yield answer
                    return
                if answer.read is not None:
                    content = await file.read_at(*answer.read)
                    frame = (
                        FAULT + json.dumps(encode_fault(content)).encode()
                        if isinstance(content, Fault)
                        else DATA + content
                    )
                    continue
                frame = b""
                done = answer.last and not answer.spent
                if answer.fault is not None:
                    yield answer.fault
                elif answer.batch is not None and (answer.batch.parts or answer.batch.passed_over):
                    yield answer.batch
                if answer.last:
                    return
        finally:
            if not done:
                await self.stop()

    async def _exchange(self, frame: bytes) -> Answer | Fault:
        """Send a frame unless it is empty, and take the next."""
        timeout_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                stdin, stdout = await self._pipes()
                if frame:
                    stdin.write(len(frame).to_bytes(HEADER_BYTES, "big"))
                    stdin.write(frame)
                    await stdin.drain()
                size = int.from_bytes(await stdout.readexactly(HEADER_BYTES), "big")
                if size > self._limits.max_answer_bytes:
                    raise ValueError("no answer is that large")
                return Answer.decode(await stdout.readexactly(size))
        except TimeoutError:
            message = f"extraction made no progress for {timeout_s:g} s"
            return Fault(FaultStage.EXTRACT, Cause.TIMED_OUT, message)
        except (
            *(asyncio.IncompleteReadError, ConnectionError),
            *(ValueError, KeyError, TypeError, RecursionError),  # what is no answer
        ):
            message = "it crashed the parser"
            return Fault(FaultStage.EXTRACT, Cause.WORKER_CRASHED, message)

    async def _pipes(self) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROGRAM, json.dumps(sys.path)),
                *(str(self._settings.worker_memory_bytes), str(os.getpid())),
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # a panic may print text of the document
                start_new_session=True,  # Ctrl-C is for the job, which then stops its workers
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 — piped above
        assert stdout is not None  # noqa: S101 — piped above
        return stdin, stdout

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it may end by itself just now
                process.kill()
        await process.communicate()
