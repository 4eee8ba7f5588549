"""Extraction: from the bytes of a file to the text of a document, or the fault that prevents it.

Formats that are text are decoded on a thread; the others are parsed in worker processes, which are
started when the first such file comes. A file that crashes its worker, hangs or is broken becomes a
fault and nothing else is lost: a worker holds one file at a time, so the culprit is known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mimetypes
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from common import media_types
from ingestor import plain_text
from ingestor.faults import Cause, Fault, FaultStage

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from common.records import MetadataValue
    from ingestor import rich_text
    from ingestor.settings import ExtractionSettings

logger = logging.getLogger(__name__)

PDF = "application/pdf"
HTML = "text/html"


JSON_LINES = "application/jsonl"


_TEXTUAL = frozenset({"application/json", "application/xml", "application/yaml"})
_MAX_TITLE_BYTES = 1024
_PROGRAM = (
    "import json,sys; sys.path[:]=json.loads(sys.argv[1]); "
    "from ingestor import extraction_worker; extraction_worker.main(int(sys.argv[2]))"
)
_KNOWN_TYPES = mimetypes.MimeTypes()  # Python's own table, whatever this machine adds to it


@dataclass(frozen=True, slots=True)
class Extracted:
    """A document's text; ``pages`` are (number, start, end) in characters of the text."""

    text: str
    title: str
    media_type: str
    pages: tuple[tuple[int, int, int], ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class Extractor(Protocol):
    """Turns files into documents; safe to call many times at once."""

    async def extract(self, name: str, media_type: str | None, data: bytes) -> Extracted | Fault:
        """Extract one file; the media type as ``declared_type`` told it."""


def declared_type(name: str) -> str | Fault | None:
    """What a file's name says about its format, before it is opened.

    A media type; None where only the content can tell; a fault for what cannot hold text.
    """
    known = media_types.guess(name)
    if known is not None:
        return known
    other, packed = _KNOWN_TYPES.guess_type(name)
    if packed is not None:
        return _unsupported(f"packed with {packed}")
    if other is None:
        return None
    if media_types.is_supported(other):
        return other
    family, _, kind = other.partition("/")
    if family in {"image", "audio", "video", "font"}:
        return _unsupported(other)
    opaque = kind in {"octet-stream", "zip", "x-tar", "java-archive", "wasm", "x-python-code"}
    return _unsupported(other) if opaque or kind.startswith("vnd.") else None


def _unsupported(what: str) -> Fault:
    return Fault(FaultStage.EXTRACT, Cause.UNSUPPORTED_TYPE, f"no text is taken from {what}")


class DocumentExtractor:
    """Plain formats on the executor, the others in worker processes."""

    def __init__(self, settings: ExtractionSettings, executor: Executor) -> None:
        self._settings = settings
        self._executor = executor
        self._workers = [_Worker(settings) for _ in range(settings.workers)]
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the workers."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def extract(self, name: str, media_type: str | None, data: bytes) -> Extracted | Fault:
        """See ``Extractor``."""
        if media_type is None:
            media_type = PDF if data.startswith(b"%PDF-") else media_types.PLAIN_TEXT
        is_text = media_type.startswith("text/") or media_type in _TEXTUAL
        if media_type == HTML or not (is_text or media_type == JSON_LINES):
            return await self._parse(name, media_type, data)
        call = partial(_plain, name, media_type, data, self._settings)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _parse(self, name: str, media_type: str, data: bytes) -> Extracted | Fault:
        replaced = 0
        if media_type == HTML:
            decoded = plain_text.decode_html(data, self._settings.fallback_encoding)
            if isinstance(decoded, Fault):
                return decoded
            data, replaced = decoded.text.encode(), decoded.replaced
        worker = await self._idle.get()
        try:
            parsed = await worker.parse(media_type, data)
        finally:
            self._idle.put_nowait(worker)
        if isinstance(parsed, Fault):
            return parsed
        metadata = parsed["metadata"] | ({"replaced_characters": replaced} if replaced else {})
        pages = tuple((number, start, end) for number, start, end in parsed["pages"])
        return _document(
            name, media_type, parsed["text"], title=parsed["title"], pages=pages, metadata=metadata
        )


def _plain(
    name: str, media_type: str, data: bytes, settings: ExtractionSettings
) -> Extracted | Fault:
    decoded = plain_text.decode(data, settings.fallback_encoding)
    if isinstance(decoded, Fault):
        return decoded
    text, title = decoded.text, ""
    metadata: dict[str, MetadataValue] = {}
    if decoded.replaced:
        metadata["replaced_characters"] = decoded.replaced
    rows: plain_text.Rows | Fault | None = None
    bound = settings.max_characters
    match media_type:
        case "text/csv":
            rows = plain_text.render_csv(text, max_characters=bound)
        case "text/tab-separated-values":
            rows = plain_text.render_csv(text, max_characters=bound, delimiter="\t")
        case "application/jsonl":
            rows = plain_text.render_json_lines(text, max_characters=bound)
        case "text/markdown":
            title = plain_text.markdown_title(text)
    if isinstance(rows, Fault):
        return rows
    if rows is not None:
        text = rows.text
        if rows.broken:
            metadata["broken_rows"] = rows.broken
    return _document(name, media_type, text, title=title, metadata=metadata)


def _document(
    name: str,
    media_type: str,
    text: str,
    *,
    title: str,
    metadata: Mapping[str, MetadataValue],
    pages: tuple[tuple[int, int, int], ...] = (),
) -> Extracted | Fault:
    if not text.strip():
        return Fault(FaultStage.EXTRACT, Cause.NO_TEXT, "it holds no text")
    shown = " ".join(title.split()) or name
    cut = shown.encode()[:_MAX_TITLE_BYTES].decode("utf-8", "ignore")
    return Extracted(text, cut, media_type, pages, metadata)


class _Worker:
    """One worker process, started when it is first needed; holds at most one file."""

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        self._process: Process | None = None

    async def parse(self, media_type: str, data: bytes) -> rich_text.RichText | Fault:
        """Parse one file.

        A worker that served other files may have been worn out by them, so a file that crashes it
        is tried once more in a fresh one before it is blamed.
        """
        seasoned = self._process is not None
        parsed = await self._attempt(media_type, data)
        if seasoned and isinstance(parsed, Fault) and parsed.cause == Cause.WORKER_CRASHED:
            parsed = await self._attempt(media_type, data)
        return parsed

    async def _attempt(self, media_type: str, data: bytes) -> rich_text.RichText | Fault:
        timeout_s = self._settings.timeout_s
        bound = self._settings.max_characters
        request = json.dumps(
            {"media_type": media_type, "timeout_s": timeout_s, "max_characters": bound}
        ).encode()
        answered = False
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask(request, data)
            answered = True
        except TimeoutError:
            message = f"extraction took over {timeout_s:g} s"
            return Fault(FaultStage.EXTRACT, Cause.TIMED_OUT, message)
        except (asyncio.IncompleteReadError, ConnectionError):
            message = "it crashed the parser"
            return Fault(FaultStage.EXTRACT, Cause.WORKER_CRASHED, message)
        finally:
            if not answered:
                await self.stop()
        if "too_large" in answer:
            message = f"its text is over {bound} characters"
            return Fault(FaultStage.EXTRACT, Cause.TOO_LARGE, message)
        if "unparsable" in answer:
            return Fault(FaultStage.EXTRACT, Cause.MALFORMED, answer["unparsable"])
        parsed: rich_text.RichText = answer
        return parsed

    async def _ask(self, request: bytes, data: bytes) -> Any:  # noqa: ANN401 — JSON, see the worker
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROGRAM, json.dumps(sys.path)),
                str(self._settings.worker_memory_bytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # a panic may print text of the document
                start_new_session=True,  # Ctrl-C is for the job, which then stops its workers
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 — piped above
        assert stdout is not None  # noqa: S101 — piped above
        for frame in (request, data):
            stdin.write(len(frame).to_bytes(8, "big"))
            stdin.write(frame)
        await stdin.drain()
        size = int.from_bytes(await stdout.readexactly(8), "big")
        return json.loads(await stdout.readexactly(size))

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it may end by itself just now
                process.kill()
        await process.communicate()
