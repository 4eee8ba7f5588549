"""A process that parses files for the ingestor, one at a time, over its standard input and output.

A parser may crash, hang or take all memory; here it takes only this process with it. Started as
``python -c`` by ``worker_pool.py``, never forked, and imports only what the file in hand needs: no
gRPC, no settings. ``worker_protocol.py`` says what is spoken. The process ends when its input does;
on Linux the kernel kills it with its parent, elsewhere it kills itself where a file takes much
longer than allowed, so that it never outlives its parent by more.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

from ingestor.extraction import expansion
from ingestor.extraction.extracted import Part, Refusal
from ingestor.extraction.worker_protocol import Channel, PartSender, RemoteFile, encode_fault
from ingestor.faults import Cause, Fault, FaultStage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingestor.extraction.worker_protocol import Task

MIB = 2**20
_BLOCK_BYTES = 4 * MIB
_SEEKING_BLOCK_BYTES = MIB
_COLUMNAR = frozenset({"parquet", "orc"})
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def main(memory_bytes: int, parent: int) -> None:
    """Serve until the input ends.

    Args:
        memory_bytes: bound on the address space of this process.
        parent: the process to die with.
    """
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold text of documents
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # One file is one thread's work: pools would only reserve memory.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", RAYON_NUM_THREADS="1")
    # Whatever native code prints must not land between the frames.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    channel = Channel(sys.stdin.buffer, answers)
    spent = False
    while not spent:
        task = channel.next_task()
        file = RemoteFile(channel, task.size)
        fault, spent = _serve(channel, task, file)
        if fault is not None:
            # What the storage could not give explains whatever the parser made of it.
            channel.say({"fault": encode_fault(file.fault or fault), "spent": spent})


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; see prctl(2)."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 — for this one call

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        raise SystemExit


def _serve(channel: Channel, task: Task, file: RemoteFile) -> tuple[Fault | None, bool]:
    """Send the parts of a file; else why not, and whether this process is spent."""
    try:
        sender = PartSender(channel)
        for part in _parts(task, file):
            sender.add(part)
            expansion.check_text(sender.sent_bytes, task.size, task.limits.max_expanded_bytes)
        if not sender.count:
            return Fault(FaultStage.EXTRACT, Cause.NO_TEXT, "it holds no text"), False
        sender.send(last=True)
    except Refusal as refusal:
        return refusal.fault, False
    except MemoryError:
        message = "parsing it takes too much memory: see ingest.extraction.worker_memory_bytes"
        return Fault(FaultStage.EXTRACT, Cause.TOO_LARGE, message), True
    except Exception as error:  # noqa: BLE001 — whatever a parser raises, its file is to blame
        # Not the message: it may quote the document.
        message = f"it cannot be read as {task.reading.kind}: {type(error).__name__}"
        return Fault(FaultStage.EXTRACT, Cause.MALFORMED, message), False
    return None, False


def _parts(task: Task, file: RemoteFile) -> Iterator[Part | None]:
    """The documents of the file; None for a record that is passed over."""
    # Each kind imports its own parsers, after the limits were set.
    reading, limits = task.reading, task.limits
    match reading.kind:
        case "file":
            from ingestor.extraction import file_text  # noqa: PLC0415

            data = file.buffered(_BLOCK_BYTES).read()
            yield Part("", file_text.extract(reading, data, limits))
        case "tar" | "zip":
            from ingestor.extraction import archives  # noqa: PLC0415

            yield from archives.parts(reading, file.buffered(_SEEKING_BLOCK_BYTES), limits)
        case "lines" | "log":
            from ingestor.extraction import line_cutting  # noqa: PLC0415

            yield from line_cutting.parts(reading, file.buffered(_BLOCK_BYTES), limits)
        case table:
            from ingestor.extraction import tables  # noqa: PLC0415

            block_bytes = _SEEKING_BLOCK_BYTES if table in _COLUMNAR else _BLOCK_BYTES
            yield from tables.parts(reading, file.buffered(block_bytes), limits)
