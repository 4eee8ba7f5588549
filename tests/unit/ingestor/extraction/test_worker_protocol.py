import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from ingestor.extraction import worker_protocol
from ingestor.extraction.extracted import Extracted, Part, PartBatch
from ingestor.extraction.worker_protocol import (
    Answer,
    Channel,
    PartSender,
    Reading,
    RemoteFile,
    Task,
)
from ingestor.faults import Cause, Fault, FaultStage
from ingestor.settings import ExtractionSettings

FAULT = Fault(FaultStage.READ, Cause.GONE, "it is no longer there")


def frames(data: bytes) -> list[bytes]:
    stream = io.BytesIO(data)
    found = []
    while header := stream.read(8):
        found.append(stream.read(int.from_bytes(header, "big")))
    return found


def framed(*contents: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(len(one).to_bytes(8, "big") + one for one in contents))


def part(number: int, text: str = "text") -> Part:
    pages = ((1, 0, 2), (2, 2, 4))
    metadata: Any = {"n": number, "l": ["ü"]}
    return Part(f"row={number}", Extracted(text, "Title", "text/plain", pages, metadata))


def test_what_is_sent_is_what_arrives():
    answers = io.BytesIO()
    sender = PartSender(Channel(io.BytesIO(), answers))
    for item in (part(0), None, part(1)):
        sender.add(item)
    sender.send(last=True)
    (frame,) = frames(answers.getvalue())
    batch = PartBatch((part(0), part(1)), 1)
    assert Answer.decode(frame) == Answer(batch=batch, last=True)
    task = Task(Reading("csv", "a", rule={"id": "x"}), ExtractionSettings().limits(), 7)
    assert Task.decode(task.encode()) == task
    said = json.dumps({"fault": worker_protocol.encode_fault(FAULT), "spent": True}).encode()
    assert Answer.decode(said) == Answer(fault=FAULT, last=True, spent=True)


@pytest.mark.parametrize(("bound", "value"), [("_LINGER_S", -1.0), ("_BATCH_PARTS", 1)])
def test_a_batch_does_not_wait_for_long_nor_for_many(bound, value, monkeypatch):
    monkeypatch.setattr(worker_protocol, bound, value)
    answers = io.BytesIO()
    sender = PartSender(Channel(io.BytesIO(), answers))
    for item in (part(0), None, part(1)):
        sender.add(item)
    batches = [Answer.decode(frame).batch for frame in frames(answers.getvalue())]
    assert batches == [PartBatch((part(0),), 0), PartBatch((part(1),), 1)]


def test_a_remote_file_asks_for_what_is_read_and_no_more():
    answers = io.BytesIO()
    requests = framed(b"\0" + b"a" * 10, b"\0" + b"b" * 5, b"\1" + encoded(FAULT))
    file = RemoteFile(Channel(requests, answers), 30)
    assert file.read(10) == b"a" * 10
    assert file.seek(-5, io.SEEK_END) == 25
    assert file.read(100) == b"b" * 5
    assert file.read(100) == b""
    file.seek(0)
    with pytest.raises(worker_protocol.StorageFault):
        file.read(1)
    assert file.fault == FAULT
    asked = [json.loads(frame)["read"] for frame in frames(answers.getvalue())]
    assert asked == [[0, 10], [25, 5], [0, 1]]


def encoded(fault: Fault) -> bytes:
    return json.dumps(worker_protocol.encode_fault(fault)).encode()


def test_a_worker_whose_parent_is_gone_ends():
    program = "import os; from ingestor.extraction import worker; worker.main(2**32, os.getppid())"
    task = Task(Reading("csv", "a"), ExtractionSettings().limits(), 100).encode()
    for said in (b"", framed(task).getvalue(), framed(task).getvalue()[:20]):
        ended = subprocess.run(
            [sys.executable, "-c", program], input=said, capture_output=True, timeout=60, check=True
        )
        assert ended.stderr == b""


def test_metadata_count_for_a_batch_too():
    answers = io.BytesIO()
    sender = PartSender(Channel(io.BytesIO(), answers))
    metadata: Any = {"n": ["x" * 1000] * 64}
    for number in range(100):
        sender.add(Part(f"row={number}", Extracted("t", "", "text/plain", (), metadata)))
    sender.send(last=True)
    sizes = [len(frame) for frame in frames(answers.getvalue())]
    assert max(sizes) < 2**20 + 2**17
    assert sum(sizes) == pytest.approx(sender.sent_bytes, rel=0.01)


def test_what_a_worker_says_is_bounded():
    said = {"fault": ["extract", "malformed", "x" * 10**6], "spent": False}
    fault = Answer.decode(json.dumps(said).encode()).fault
    assert fault is not None
    assert len(fault.message) == 1000
    assert Answer.decode(b'{"read": [-5, -1]}').read == (0, 0)
    assert Answer.decode(b'{"read": [5, 999999999]}').read == (5, worker_protocol.MAX_READ_BYTES)


def test_a_text_of_which_all_is_escaped_fits_in_an_answer(monkeypatch):
    monkeypatch.setattr(worker_protocol, "_MAX_BATCH_OVERHEAD_BYTES", 2**16)
    limits = replace(ExtractionSettings().limits(), max_characters=2**20)
    answers = io.BytesIO()
    sender = PartSender(Channel(io.BytesIO(), answers))
    sender.add(part(0, "\x01" * limits.max_characters))
    (frame,) = frames(answers.getvalue())
    assert 2**22 < len(frame) <= limits.max_answer_bytes < 2**23
