"""A process that parses files for the ingestor, one at a time, over its standard input and output.

A parser may crash, hang or take all memory; here it takes only this process with it. Started as
``python -c`` by ``extraction.py``, never forked, and imports only the parser: no gRPC, no settings.

A request is a frame of JSON (``media_type``, ``timeout_s``, ``max_characters``) and a frame of
content; the answer is a frame of JSON: a ``RichText``, ``{"unparsable": reason}`` or
``{"too_large": characters}``. A frame is its length in 8 bytes, big
endian, and its bytes. The process ends when its input does, and kills itself where a file takes
much longer than allowed, so that it never outlives its parent.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
from typing import BinaryIO

_GRACE_S = 10


def main(memory_bytes: int) -> None:
    """Serve until the input ends.

    Args:
        memory_bytes: bound on the address space of this process.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    requests = sys.stdin.buffer
    # Whatever native code prints must not land between the frames.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from ingestor import rich_text  # noqa: PLC0415 — after the limits and the redirection

    while (request := _read_frame(requests)) is not None:
        asked = json.loads(request)
        content = _read_frame(requests)
        if content is None:
            return
        signal.alarm(math.ceil(asked["timeout_s"]) + _GRACE_S)
        try:
            parsed = rich_text.parse(content, asked["media_type"])
            size = len(parsed["text"])
            answer: object = {"too_large": size} if size > asked["max_characters"] else parsed
        except rich_text.Unparsable as unparsable:
            answer = {"unparsable": str(unparsable)}
        signal.alarm(0)
        encoded = json.dumps(answer).encode()
        answers.write(len(encoded).to_bytes(8, "big") + encoded)
        answers.flush()


def _read_frame(stream: BinaryIO) -> bytes | None:
    header = stream.read(8)
    if len(header) < 8:  # noqa: PLR2004 — the header's size
        return None
    size = int.from_bytes(header, "big")
    content = stream.read(size)
    return content if len(content) == size else None
